"""Workers start in a background thread while the caller computes the first element."""

from __future__ import annotations

import decimal
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import threadpoolctl

from parwise import parallel_apply, parallel_map
from parwise._executors import inline_run as inline_runs
from parwise._executors.collector import Collector
from parwise._executors.inline_run import InlineRun
from parwise._executors.processes import background, inline

from ..support.functions import slowly
from ..support.internals import Job, default_pool, make_call, resolve
from ..support.oracle import assert_same, loop

A = np.arange(6.0)


@pytest.mark.parametrize("cold", [True, False])
def test_contexts_of_a_slow_first_element(cold):
    """Workers get the caller's contexts, although another thread starts them."""

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
    """An element that is computed twice for comparison is computed to its end."""

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


def test_workers_that_have_no_part_in_a_call_take_no_attention(monkeypatch):
    """A worker that exits meanwhile is dropped, and its exit is noticed once."""
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
    """Cannot be pickled while the caller computes with it, like a dict that grows."""

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


def test_claim_stops_the_inline_run(monkeypatch):
    """Elements that the background thread has claimed are not computed by the caller."""
    calls = []

    def f(x):
        calls.append(x)
        return x

    class Early(InlineRun):
        def run(self, *seconds):
            self.claim()  # as if the first element had taken long
            super().run(*seconds)

    monkeypatch.setattr(inline, "InlineRun", Early)
    assert_same(parallel_apply(f, np.arange(50.0), workers=2), np.arange(50.0))
    assert calls == sorted(set(calls))


def test_claim_in_the_midst_of_an_inline_run():
    """Each element of the caller may be its last."""
    claimed = []

    def f(x):
        if x == 5:
            claimed.append(inline_run.claim())  # as by the other thread, while this one is at hand
        return x

    call = make_call(f, (np.arange(50.0),), settings=resolve({"workers": 2}))
    inline_run = InlineRun(call, Job(call).kernel)
    inline_run.run((60.0,))
    assert claimed == [6]
    assert inline_run.raw == list(range(6))


def test_claim_behind_the_last_element_of_an_inline_run(monkeypatch):
    """The background thread claims elements when the caller has computed its last one and not yet reported it."""

    class Late(Collector):
        def claim(self, stop=None):
            if stop is not None:
                super().claim()  # the other thread's, just before this one's
            return super().claim(stop)

    monkeypatch.setattr(inline_runs, "Collector", Late)
    rows = np.random.default_rng(0).standard_normal((9, 20_001))
    assert_same(parallel_apply(np.sort, rows, workers=2), np.sort(rows))
    assert_same(parallel_apply(np.negative, np.arange(300.0), workers=2), -np.arange(300.0))


def test_one_cpu(monkeypatch):
    monkeypatch.setattr("parwise._executors.job.job.cpu_count", lambda: 1)
    for executor in ("threads", "processes"):
        assert_same(parallel_apply(np.negative, A, executor=executor), -A)
    assert_same(parallel_apply(slowly, A), A)


def test_threads_of_blas_with_a_slow_first_element():
    rows = np.random.default_rng(1).standard_normal((6, 20_001))
    with threadpoolctl.threadpool_limits(2):
        f = lambda v: (slowly(1.0), v @ v)[1]  # noqa: E731
        assert_same(parallel_apply(f, rows, workers=2), loop(f, rows))


def test_interrupt_as_it_is_about_to_leave(monkeypatch):
    """The background thread must not use workers that another call has locked by then."""
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


def test_the_helper_thread_is_not_taken_for_a_thread_of_blas():
    """It wakes during each task of a call that computes no elements before its workers are asked for."""

    def pid(_):
        time.sleep(0.005)
        return os.getpid()

    assert len(set(parallel_map(pid, range(300), workers=2, errors="ignore", verify=False))) > 1


def test_helper_thread_holds_nothing_of_the_call_while_it_waits():
    """The interpreter may end as it waits, and then frees nothing of what is in its frames."""
    call, frames = make_call(np.negative, (A,), settings=resolve({"workers": 2})), []
    with background.BackgroundDispatcher(Job(call), None) as dispatcher:
        dispatcher.expect(60.0)
        deadline = time.monotonic() + 30
        while not frames and time.monotonic() < deadline:
            time.sleep(0)
            frames = [frame for frame in sys._current_frames().values() if frame.f_code.co_name == "_help"]
        (frame,) = frames
        assert frame.f_back is None
        assert set(frame.f_locals) == {"leaving", "shown", "seconds"}
    assert frame.f_locals["shown"] == []
