"""Slow elements: workers come up beside the caller, and find what the caller has."""

from __future__ import annotations

import contextlib
import decimal
import os
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest
import threadpoolctl

from parwise import NotReproducibleError, parallel_apply
from parwise._core.arguments import make_call
from parwise._core.options import resolve
from parwise._executors import background
from parwise._executors.inline import InlineRun
from parwise._executors.job import Job
from parwise._system.blas import ThreadWatch, is_local, local_threads, with_local_threads
from parwise._system.interpreter import short_switch_interval
from parwise._workers.default_pool import default_pool

from .oracle import assert_same, loop

A = np.arange(6.0)


def slowly(x):
    """Take so long that workers are brought up beside it: 30 ms of pure Python."""
    end = time.perf_counter() + 0.03
    while time.perf_counter() < end:
        x = x * 1.0
    return x


@pytest.mark.parametrize("cold", [True, False])
def test_contexts_of_a_slow_first_element(cold):
    """The thread that starts the workers has none of the caller's contexts of its own."""

    def f(x):
        slowly(x)
        seen = (np.geterr()["divide"], decimal.getcontext().prec, repr(np.float64(x) / 3), np.getbufsize())
        return repr((*seen, repr(np.array([x / 3]))))

    if cold:
        default_pool().stop()
    size = np.setbufsize(4096)
    try:
        with np.errstate(divide="raise"), decimal.localcontext(prec=5), np.printoptions(precision=3):
            assert_same(parallel_apply(f, A, workers=2, verify=True), loop(f, A))
    finally:
        np.setbufsize(size)


def test_function_that_writes_files_is_never_cut(tmp_path):
    """An element that is computed twice, to compare, comes to its end."""

    def save(x):
        with open(tmp_path / f"{int(x)}", "w") as file:
            file.write("begin")
            file.flush()
            slowly(x)
            file.write(" end")
        return x

    for count in (2, 3, 5):
        assert_same(parallel_apply(save, np.arange(float(count)), workers=2), np.arange(float(count)))
        assert {path.read_text() for path in tmp_path.iterdir()} == {"begin end"}


@pytest.mark.parametrize(
    ("state", "slept", "at_work"), [("R (running)", 0, False), ("R (running)", 1, True), ("S (sleeping)", 1, False)]
)
def test_threads_that_spin_since_they_began_are_not_at_work(state, slept, at_work, monkeypatch):
    watch = ThreadWatch()
    thread = threading.get_native_id()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "get_native_id", lambda: -1)
        patch.setattr(threading, "enumerate", list)
        real = watch._activity()[str(thread)]
    told = re.sub(r"State:\t[^ ]+ \([a-z ]+\)", f"State:\t{state}", real)
    told = re.sub(r" voluntary_ctxt_switches:\t\d+", f" voluntary_ctxt_switches:\t{slept}", told)
    monkeypatch.setattr(watch, "_activity", lambda: {"7": told})
    assert watch.at_work() == at_work
    assert watch.running() == ("R" in state)


def test_workers_that_have_no_part_in_a_call_take_no_attention(monkeypatch):
    """One that ends meanwhile is let go of, and not heard of again and again."""
    parallel_apply(np.sum, np.ones((6, 2)), workers=3, isolate=True)
    pool = default_pool()
    outsider, waits, wait = pool.workers[2], [], pool.wait
    pid = outsider.pid

    def f(x):
        if x == 0:
            os.kill(pid, signal.SIGKILL)
        return slowly(x)

    monkeypatch.setattr(pool, "wait", lambda timeout: [waits.append(timeout), wait(timeout)][1])
    assert_same(parallel_apply(f, A, workers=2, isolate=True), A)
    assert outsider not in pool.workers
    assert len(waits) < 100


class Changing:
    """Cannot be pickled as long as the caller is at it, like a dict that grows."""

    def __init__(self):
        self.busy = False

    def __call__(self, x):
        self.busy = True
        slowly(x)
        self.busy = False
        return x * 2

    def __reduce__(self):
        if self.busy:
            raise RuntimeError("dictionary changed size during iteration")
        return Changing, ()


def test_function_that_changes_what_it_holds():
    assert_same(parallel_apply(Changing(), A, workers=2), A * 2)


def test_unpicklable_function_is_told_all_the_same():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to a worker process"):
        parallel_apply(lambda x: (lock, slowly(x))[1], A, workers=2)


def test_claim_stops_the_trial(monkeypatch):
    """What the other thread has taken on is not computed here as well."""
    calls = []

    def f(x):
        calls.append(x)
        return x

    class Early(InlineRun):
        def run(self, *seconds):
            self.claim()  # as if the first element had taken long
            super().run(*seconds)

    from parwise._executors import processes

    monkeypatch.setattr(processes, "InlineRun", Early)
    assert_same(parallel_apply(f, np.arange(50.0), workers=2), np.arange(50.0))
    assert calls == sorted(set(calls))


def test_claim_in_the_midst_of_a_trial():
    """From the time on when another thread may look, each element may be the last."""
    alone, claimed = time.perf_counter() + 0.01, []

    def f(x):
        if x == 5:
            while time.perf_counter() <= alone:
                pass
            claimed.append(trial.claim())  # as by the other thread, while this one is at hand
        return x

    call = make_call(f, (np.arange(50.0),), settings=resolve({"workers": 2}))
    trial = InlineRun(call, Job(call).kernel)
    trial.run(alone, 60.0)
    assert claimed == [6]
    assert trial.raw == list(range(6))


def test_claim_behind_the_last_element_of_a_trial(monkeypatch):
    """The other thread looks when all that was copied for the trial is computed, and not yet told."""
    from parwise._executors import processes

    class Late(InlineRun):
        def claim(self, stop=None):
            if stop is not None:
                super().claim()  # the other thread's, just before this one's
            return super().claim(stop)

    monkeypatch.setattr(processes, "InlineRun", Late)
    rows = np.random.default_rng(0).standard_normal((9, 20_001))
    assert_same(parallel_apply(np.sort, rows, workers=2), np.sort(rows))
    assert_same(parallel_apply(np.negative, np.arange(300.0), workers=2), -np.arange(300.0))


def test_local_threads_belong_to_the_caller():
    """OpenMP counts threads for each thread by itself."""

    class Library:
        user_api = "openmp"
        filepath = "libfake.so"

        def __init__(self):
            self.numbers = threading.local()

        @property
        def num_threads(self):
            return getattr(self.numbers, "n", 2)

        def set_num_threads(self, number):
            self.numbers.n = number

    from parwise._system import blas

    fake = Library()
    assert is_local(fake)
    before = blas.libraries
    blas.libraries = lambda: [fake]
    try:
        fake.set_num_threads(1)
        assert local_threads() == {"libfake.so": 1}
        seen = parallel_apply(lambda x: (slowly(x), fake.num_threads)[1], A, executor="threads", workers=3)
        assert set(seen.tolist()) == {1}
        with with_local_threads({"libfake.so": 3}):
            assert fake.num_threads == 3
        assert fake.num_threads == 1
        # Of a library that nobody has looked at, only the caller's own thread can tell the number.
        blas._found = (0, [])
        assert local_threads(look=False) is None
    finally:
        blas.libraries = before


def test_one_cpu(monkeypatch):
    monkeypatch.setattr("parwise._executors.job.cpu_count", lambda: 1)
    for executor in ("threads", "processes"):
        assert_same(parallel_apply(np.negative, A, executor=executor), -A)
    assert_same(parallel_apply(slowly, A), A)


def test_switch_interval_is_put_back_by_the_last():
    before = sys.getswitchinterval()
    short_switch_interval.begin()
    other = threading.Thread(target=short_switch_interval.begin)
    other.start()
    other.join()
    short_switch_interval.end()
    assert sys.getswitchinterval() < before
    short_switch_interval.end()
    assert sys.getswitchinterval() == before


def test_switch_interval_is_put_back_before_the_call_returns():
    """And not some time later, by a thread that is on its way out."""
    before = sys.getswitchinterval()
    seen = set()

    def f(x):
        slowly(x)
        seen.add(sys.getswitchinterval())
        return x

    for _ in range(20):
        parallel_apply(f, A[:2], workers=2, verify=False)
        assert sys.getswitchinterval() == before
    assert min(seen) < before


# What verify must not do.


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"vectorized": True, "chunk": 2}])
def test_interrupts_go_through_verify(number, options):
    """Whichever call of the function Ctrl-C hits: never a result, and never another error."""
    calls = []

    def f(x):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)
        return x * 2

    with contextlib.suppress(KeyboardInterrupt):
        parallel_apply(f, A, verify=True, executor="serial", **options)
        assert len(calls) < number
    assert_same(parallel_apply(np.negative, A, workers=2, isolate=True), -A)


MIXED = {
    "int and float": lambda x: 0 if x % 3 == 0 else 0.5 * x,
    "float32 and float64": lambda x: np.float32(x) if x % 2 else np.float64(x),
    "arrays of two dtypes": lambda x: np.zeros(2, "f4" if x % 2 else "f8"),
    "bool and bool_": lambda x: bool(x % 2) if x % 3 else np.bool_(x % 2),
    "in a tuple": lambda x: (x, 0 if x % 3 == 0 else x),
    "text": lambda x: "a" * int(x),
    "None and nan": lambda x: None if x % 2 else float("nan"),
    "dicts of arrays": lambda x: {"a": np.arange(3) * x},
    "objects": lambda x: threading.Event,
    "long complex": lambda x: np.clongdouble(x) / 3,
    "records": lambda x: np.array((1, x), "i4,f8"),
}


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("verify", [True, "full"])
@pytest.mark.parametrize("executor", ["processes", "serial"])
def test_no_false_alarm_for_mixed_results(name, verify, executor, request):
    if executor == "processes":
        request.getfixturevalue("eager")
    a = np.arange(40.0)
    got = parallel_apply(MIXED[name], a, verify=verify, executor=executor, workers=2)
    want = parallel_apply(MIXED[name], a, workers=1)
    if isinstance(want, tuple):
        got, want = got[1], want[1]
    assert repr(got) == repr(want)


@pytest.mark.parametrize("options", [{}, {"vectorized": True, "chunk": 10}])
@pytest.mark.parametrize("verify", [True, "full"])
def test_out_may_be_the_input(verify, options):
    b = np.arange(40.0)
    assert parallel_apply(lambda x: x + 1, b, out=b, verify=verify, workers=2, **options) is b
    assert_same(b, np.arange(1.0, 41.0))
    with pytest.raises(ValueError, match="out has shape"):
        parallel_apply(lambda x: x + 1, b, out=np.empty((40, 2)), verify=verify)
    with pytest.raises(TypeError, match="cannot be stored in out of dtype int64"):
        parallel_apply(lambda x: x + 0.5, b, out=np.empty(40, int), verify=verify)


def test_block_function_that_never_ends_on_nan(monkeypatch):
    monkeypatch.setattr("parwise._verify.audit.SPECIAL_SECONDS", 0.1)

    def settle(block):
        out = block.copy()
        for row in out:
            while not abs(row).max() < 1e-3:
                row /= 2
        return out

    a = np.random.default_rng(0).standard_normal((400, 3))
    assert_same(parallel_apply(settle, a, vectorized=True, chunk=10, workers=2, verify=True), settle(a))


def test_generator_of_an_element_serves_a_nested_call():
    def inner(x, rng):
        return rng.normal()

    def outer(row, rng):
        return parallel_apply(inner, row, rng=rng).sum()

    rows = np.ones((3, 2))
    want = []
    for seed in np.random.SeedSequence(1).spawn(3):
        children = np.random.default_rng(seed).bit_generator.seed_seq.spawn(1)[0].spawn(2)
        want.append(np.sum([np.random.default_rng(child).normal() for child in children]))
    for way in ({"workers": 1}, {"workers": 2, "isolate": True}):
        assert_same(parallel_apply(outer, rows, rng=1, **way), np.array(want))


def test_constant_beyond_arrays_of_any_kind():
    for a in (np.ones(9, bool), np.arange(9).astype("M8[D]"), np.arange(9.0), np.zeros(9, "i4,f8")):
        got = parallel_apply(
            lambda b: b[::-1][::-1], a, vectorized=True, chunk=3, depth=1, boundary="constant", workers=1
        )
        assert_same(got, a)


def test_disputes_of_long_elements_cost_little(monkeypatch):
    """By default, what takes long is not computed again and again to find out why."""
    monkeypatch.setattr("parwise._verify.audit.LONG_SECONDS", 0.0)
    here = os.getpid()
    calls = []

    def f(x):
        if os.getpid() == here:
            calls.append(x)
        return slowly(x) if os.getpid() == here else x + 1

    with pytest.warns(UserWarning, match="verify=True looks for the reason"):
        parallel_apply(f, np.arange(40.0), workers=2)
    assert calls.count(0.0) <= 3
    with pytest.raises(NotReproducibleError):
        parallel_apply(f, np.arange(40.0), workers=2, verify=True)


def test_threads_of_blas_with_a_slow_first_element():
    rows = np.random.default_rng(1).standard_normal((6, 20_001))
    with threadpoolctl.threadpool_limits(2):
        f = lambda v: (slowly(1.0), v @ v)[1]  # noqa: E731
        assert_same(parallel_apply(f, rows, workers=2), loop(f, rows))


def test_interrupt_as_it_is_about_to_leave(monkeypatch):
    """The other thread must not go on with workers that another call has by then."""
    leave, calls = background.BackgroundDispatcher.leave, []

    def interrupted(self):
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        leave(self)

    monkeypatch.setattr(background.BackgroundDispatcher, "leave", interrupted)
    helper = background.BackgroundDispatcher(None, None)
    with pytest.raises(KeyboardInterrupt), helper:
        pass
    assert helper._state == "left"
