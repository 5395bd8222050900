"""The caller and its workers share one call: hand-over, handshake, and threads that call at once."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

import parwise
from parwise import ReproducibilityWarning, parallel_apply
from parwise._executors.processes import runner as processes
from parwise._system.blas import ThreadWatch

from ..support.functions import ISOLATED, worker_pids
from ..support.internals import default_pool
from ..support.oracle import assert_same, loop
from ..support.scripts import run_script


def test_many_threads_isolated():
    a = np.random.default_rng(5).standard_normal((50, 50))
    want = loop(np.sort, a)
    wrong = []

    def call():
        for _ in range(3):
            got = parallel_apply(np.sort, a, **ISOLATED)
            if got.tobytes() != want.tobytes():
                wrong.append(got)

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_thread_of_a_function_that_runs_here(monkeypatch):
    """A thread that the function starts takes workers of its own, since the call holds the usual ones."""
    monkeypatch.setattr(processes, "TURN_SECONDS", 0.01)
    found = []

    def f(x):
        thread = threading.Thread(target=lambda: found.append(parallel_apply(np.sum, np.ones((4, 2)), **ISOLATED)))
        thread.start()
        thread.join()
        return x

    assert_same(parallel_apply(f, np.arange(2), workers=2, verify=False), np.arange(2))
    assert [one.tolist() for one in found] == [[2.0] * 4] * len(found)


def test_small_call_stays_here():
    assert set(parallel_apply(lambda x: os.getpid(), np.arange(50)).tolist()) == {os.getpid()}


def test_caller_hands_over(eager):
    """Once workers are up, the caller computes no elements."""
    worker_pids(**ISOLATED)
    where = parallel_apply(lambda x: (time.sleep(0.001), os.getpid())[1], np.arange(200), workers=2, verify=False)
    assert where[0] == os.getpid()
    assert os.getpid() not in where[-100:]


def test_isolate_never_runs_here():
    assert os.getpid() not in parallel_apply(lambda x: os.getpid(), np.arange(5), **ISOLATED)
    assert os.getpid() not in parallel_apply(lambda x: os.getpid(), np.arange(1), **ISOLATED)


def test_long_first_element_does_not_keep_others_waiting(tmp_path):
    """While the caller is at element 0, workers do all the others."""
    gate = tmp_path / "others"
    os.mkfifo(gate)

    def f(x, folder):
        if x == 0 and os.getpid() == caller:  # wait for the last of the others
            with open(gate) as pipe:
                return float(pipe.read())
        if x == 7:
            with open(gate, "w") as pipe:
                pipe.write("0.0")
        return float(x)

    caller = os.getpid()
    got = parallel_apply(f, np.arange(8.0), args=(str(tmp_path),), workers=2)
    assert_same(got, np.arange(8.0))


def test_long_first_element_that_keeps_the_gil(tmp_path):
    """The same with an element in pure Python, before any worker has started."""
    done = run_script(
        """
        import os, sys, time, numpy as np
        from parwise import parallel_apply
        def f(x):
            end = time.monotonic() + 20
            while x == 0 and os.getpid() == caller and time.monotonic() < end:
                if len(os.listdir(folder)) == 5:  # all others are done
                    break
            if x:
                open(os.path.join(folder, str(x)), "w").close()
            return os.getpid()
        caller, folder = os.getpid(), sys.argv[1]
        start = time.monotonic()
        where = parallel_apply(f, np.arange(6), workers=2, verify=False)
        print(where[0] == caller, caller in where[1:], time.monotonic() - start < 19)
        """,
        "-",
        str(tmp_path),
    )
    assert done.stderr == ""
    assert done.stdout == "True False True\n"


def test_handshake_warns_of_random_numbers(eager):
    a = np.arange(100.0)
    with pytest.warns(ReproducibilityWarning, match="draws from np.random") as caught:
        parallel_apply(lambda x: np.random.random(), a, workers=2)
    assert caught[0].filename == __file__
    with pytest.raises(parwise.NotReproducibleError, match="different bits each time"):
        parallel_apply(lambda x: np.random.random(), a, workers=2, verify=True)
    parallel_apply(lambda x: np.random.random(), a, workers=2, verify=False)
    with pytest.warns(ReproducibilityWarning, match="shape"):
        parallel_apply(
            lambda x, caller: np.zeros(2 if os.getpid() == caller or x else 3), a, args=(os.getpid(),), workers=2
        )


def test_handshake_knows_equal_results(eager):
    for value in (np.nan, -0.0, {"a": [1, (2.0, np.arange(3))]}, "text", None, object, np.float32("nan"), 1 + 2j):
        parallel_apply(lambda x, value=value: value, np.arange(20), workers=2, verify=True)


def test_foreign_threads_of_callers(eager):
    """Calls from several threads at once: one uses the workers, the others compute in their own thread."""
    a = np.random.default_rng(5).standard_normal((300, 50))
    want = loop(np.sort, a)
    failures = []

    def call():
        try:
            for _ in range(5):
                assert_same(parallel_apply(np.sort, a, workers=2), want)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_function_that_reuses_its_result(eager):
    buffer = np.empty(2)
    got = parallel_apply(lambda x: np.add(x, 1, out=buffer), np.zeros((40, 2)), workers=2, verify=True)
    assert_same(got, np.ones((40, 2)))
    wide = np.empty((5, 2))
    a = np.arange(80.0).reshape(40, 2)
    got = parallel_apply(lambda b: np.add(b, 1, out=wide), a, vectorized=True, chunk=5, workers=2, verify=True)
    assert_same(got, a + 1)


def test_workers_at_no_blas_all_go_on_working():
    """Watching for BLAS threads must not take a worker's own thread for one."""

    def f(x):
        watch.suspicious = True
        with watch:
            sum(range(2000))
        return watch.busy

    watch = ThreadWatch()
    assert not parallel_apply(f, np.arange(40), **ISOLATED, verify=False)[5:].any()


@pytest.mark.parametrize("blocks", [False, True])
def test_caller_takes_back_what_workers_are_too_slow_for(eager, monkeypatch, blocks):
    """Where copying costs more than the function, the caller computes the remaining elements."""
    here = os.getpid()
    too_slow, after = [], []

    class TooSlow(processes.SlowWorkers):
        def too_slow(self):
            too_slow.extend([1] * (self._dispatcher.computed > 20))
            return bool(too_slow)

    monkeypatch.setattr(processes, "SlowWorkers", TooSlow)
    a = np.random.default_rng(3).standard_normal((4000, 30))
    options = {"vectorized": True, "chunk": 10} if blocks else {}

    def f(x):
        if os.getpid() == here and too_slow:
            after.append(1)
        return np.sort(x, axis=-1)

    assert_same(parallel_apply(f, a, workers=2, **options), np.sort(a, axis=-1))
    assert after
    assert_same(parallel_apply(f, a, workers=2, isolate=True, **options), np.sort(a, axis=-1))


def test_small_call_counts_no_cpus(monkeypatch):
    """To count them reads four files, which takes longer than the call."""
    default_pool().stop()
    monkeypatch.setattr("parwise._executors.job.job.cpu_count", lambda: pytest.fail("CPUs were counted"))
    assert_same(parallel_apply(float, np.arange(5.0), errors="ignore"), np.arange(5.0))
    assert_same(parallel_apply(np.negative, np.arange(5.0), out=np.empty(5)), -np.arange(5.0))
