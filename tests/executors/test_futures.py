"""Executors of `concurrent.futures` that are not parwise's own: the first task of each process is compared."""

from __future__ import annotations

import sys
import threading
import types
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import pytest

from parwise import ExecutorError, parallel_apply, parallel_imap, parallel_map
from parwise._workers import remote

from ..support.oracle import assert_same


class Elsewhere(Executor):
    """An executor that is not parwise's, one process of which computes two tasks at a time."""

    def __init__(self):
        self._threads = ThreadPoolExecutor(2)

    def submit(self, func, /, *args, **kwargs):
        return self._threads.submit(func, *args, **kwargs)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def test_a_first_task_that_waits_for_another_there():
    """A task may wait for another one in its process, as Dask's workers take a task while one waits."""
    name = "parwise_test_meeting"
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].other = threading.Event()

    def f(x, name, caller):
        other = sys.modules[name].other
        if x > 0:
            other.set()
        elif threading.get_ident() != caller:
            assert other.wait(20)
        return 2 * x

    try:
        with Elsewhere() as executor:
            got = parallel_apply(f, np.arange(3.0), args=(name, threading.get_ident()), executor=executor, workers=2)
    finally:
        del sys.modules[name]
    assert_same(got, np.arange(3.0) * 2)


def test_a_process_whose_handshake_failed_is_sent_the_call_again(monkeypatch):
    """A process's first task is compared before any other of its results counts."""
    given = []

    class Told(Elsewhere):
        def submit(self, func, /, *args, **kwargs):
            given.append(args)
            return super().submit(func, *args, **kwargs)

    with Told() as executor:
        parallel_apply(np.negative, np.arange(3.0), executor=executor, workers=2)
    token, luggage, arguments = remote._unpack_call(*given[0][1]["call"][1:])
    remote._sessions.pop(token, None)
    with monkeypatch.context() as patch:
        patch.setattr(remote.Session, "run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            remote.compute(token, luggage, arguments)
    assert remote.compute(token, luggage._replace(session=None), arguments) is None
    assert remote.compute(token, luggage, arguments)[1] is not None


def test_a_call_within_its_own_thread_pool_keeps_the_order_of_the_loop():
    """No thread of the pool is free: the caller computes all elements, and ends at the first that raises."""
    called = []

    def f(k):
        called.append(k)
        if k == 3:
            raise ValueError("three")
        return k

    with ThreadPoolExecutor(1) as executor:
        inner = executor.submit(parallel_map, f, range(10), executor=executor)
        with pytest.raises(ValueError, match="three"):
            inner.result(60)
    assert called == [0, 1, 2, 3]


def test_a_thread_pool_that_is_shut_down_during_a_call_loses_no_element():
    executor, busy, begun = ThreadPoolExecutor(2), threading.Event(), threading.Event()
    for _ in range(2):
        executor.submit(busy.wait)

    def f(k):
        if k == 5:
            executor.shutdown(wait=False, cancel_futures=True)
            begun.set()
        return k

    try:
        assert parallel_map(f, range(20), executor=executor) == list(range(20))
        assert begun.is_set()
    finally:
        busy.set()
        executor.shutdown()


@pytest.mark.parametrize("call", [parallel_map, lambda *a, **k: list(parallel_imap(*a, **k))], ids=["map", "imap"])
def test_a_thread_pool_that_was_shut_down_is_named(call):
    closed = ThreadPoolExecutor(2)
    closed.shutdown()
    with pytest.raises(ExecutorError, match="ThreadPoolExecutor takes no more tasks .*; 0 .*items done"):
        call(str, range(20), executor=closed)


def test_a_thread_pool_whose_initializer_fails():
    broken = ThreadPoolExecutor(2, initializer=lambda: 1 / 0)
    with broken, pytest.raises(ExecutorError, match="ThreadPoolExecutor is broken .*; make a new one"):
        parallel_map(lambda k: [thread.join(60) for thread in broken._threads], range(20), executor=broken)


def test_a_thread_pool_that_is_shut_down_between_two_results():
    executor, busy = ThreadPoolExecutor(1), threading.Event()
    results = parallel_imap(lambda k: busy.wait(60) if k else k, range(9), executor=executor)
    assert next(results) == 0
    executor.shutdown(wait=False, cancel_futures=True)
    busy.set()
    with pytest.raises(ExecutorError, match="keep it open until the call has returned; 1 .*items done"):
        list(results)
