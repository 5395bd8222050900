"""Threads of a call: as many as asked for, used again, and gone soon."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import types
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from parwise import parallel_map
from parwise._executors.threads.executor import Threads
from parwise._system import blas
from parwise._workers.worker import context_capture


def test_threads_are_used_again():
    """Also after a pause in which they have nothing to do: a function may keep a connection for each."""
    executor = Threads(2)
    try:
        idents = set()
        for _ in range(50):
            futures = [executor.submit(threading.get_ident) for _ in range(3)]
            idents |= {future.result() for future in futures}
        assert len(idents) <= 2
    finally:
        executor.shutdown()
    assert not any(thread.is_alive() for thread in executor._threads)


def test_as_many_calls_at_a_time_as_there_are_threads():
    executor, barrier = Threads(3), threading.Barrier(3)
    try:
        for _ in range(20):
            futures = [executor.submit(barrier.wait, 10) for _ in range(3)]
            assert sorted(future.result() for future in futures) == [0, 1, 2]
    finally:
        executor.shutdown()


def test_threads_end_without_a_shutdown():
    executor = Threads(2)
    executor.submit(int).result()
    for thread in executor._threads:
        thread.join(10)
        assert not thread.is_alive()
    assert executor.submit(int).result() == 0
    executor.shutdown()


def test_elements_may_wait_for_one_another_after_a_small_call():
    barrier = threading.Barrier(2)
    wait = False

    def meet(x):
        if wait:
            barrier.wait(60)
        return x

    for wait in (False, False, True):  # noqa: B007 - the function reads it
        assert parallel_map(meet, [1, 2], executor="threads", workers=2) == [1, 2]


def test_elements_may_wait_for_one_another_where_openmp_may_have_threads_for_the_caller_alone(monkeypatch):
    """A module that was imported since libraries were looked for may have brought OpenMP."""
    barrier = threading.Barrier(2)
    monkeypatch.setitem(sys.modules, "parwise_new_module", types.ModuleType("parwise_new_module"))
    monkeypatch.setattr(blas, "is_local", lambda library: library.num_threads > 0)
    assert blas.local_threads(look=False) is None
    assert parallel_map(lambda x: barrier.wait(60) < 2, [1, 2], executor="threads", workers=2) == [True, True]


def test_a_stream_that_another_thread_prints_to_stays_alive():
    """`print` holds no reference to `sys.stdout` in Python 3.11 (gh-130163): it crashed at the end of a call."""
    seen = []
    with ThreadPoolExecutor(2) as threads:
        parallel_map(lambda x: seen.append(weakref.ref(sys.stdout)), range(50), executor=threads, verify=False)
    gc.collect()
    assert all(one() is not None for one in seen)
    assert not any(one() is sys.stdout for one in seen)


def test_an_interrupt_while_the_output_of_a_task_is_taken_over(monkeypatch):
    """What takes the output of tasks is gone after the call, and the caller has its own streams and warnings back."""
    before = sys.stdout, logging.Logger.callHandlers, warnings._showwarnmsg, list(warnings.filters)
    remove, left = context_capture._hooks._remove, []

    def interrupted():
        if not left:
            left.append(True)
            raise KeyboardInterrupt
        remove()

    monkeypatch.setattr(context_capture._hooks, "_remove", interrupted)
    with ThreadPoolExecutor(1) as threads, pytest.raises(KeyboardInterrupt):
        parallel_map(print, range(9), executor=threads)
    assert (sys.stdout, logging.Logger.callHandlers, warnings._showwarnmsg, list(warnings.filters)) == before
    assert context_capture._current.get() is None
    assert not context_capture._hooks._running


def test_an_element_that_raises_at_the_begin_of_a_call_is_called_once():
    called = []

    def f(x):
        called.append(x)
        return 1 / (5 - x)

    for _ in range(30):
        called.clear()
        with pytest.raises(ZeroDivisionError):
            parallel_map(f, range(10), executor="threads", workers=3)
        assert called.count(5) == 1
