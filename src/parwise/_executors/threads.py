"""Threads of this process, for functions that release the GIL."""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from .._clock import perf_counter
from .._core.indexing import Task
from .._system.blas import local_threads, with_local_threads
from .._system.interpreter import DeferredInterrupt
from .._system.library_settings import local_settings, read_local_settings
from .._system.platforms.floating_point import floats, read_floats
from .futures import ExecutorRunner
from .job import Job
from .task_queue import TASK_SECONDS

# A thread waits for so long for another call: a function may keep something for each thread, as a connection.
LINGER_SECONDS = 0.1


class Threads(Executor):
    """Threads of one call; the calling thread does the work where none can be started, as runners see to it.

    `ThreadPoolExecutor` raises an error instead, from the moment that the main thread has ended. It also looks at
    `time.monotonic`, which a test may have replaced. A thread ends soon when nothing is left to do, so that none is
    waited for at exit: an iterator of results may be left half-way.

    Parameters
    ----------
    count : int
        Threads at a time.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._items: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._threads: list[threading.Thread] = []
        # Threads that wait for a call, by the locks on which they do so.
        self._idle: list[Any] = []
        self._running = 0
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call of a function, without keywords."""
        future: Future[Any] = Future()
        with DeferredInterrupt(), self._lock:
            self._items.append((future, function, args))
            if self._idle:
                self._idle.pop().release()
            elif self._running < self._count:
                with contextlib.suppress(RuntimeError):
                    self._start()
        return future

    def _start(self) -> None:
        self._threads = [one for one in self._threads if one.is_alive()]
        thread = threading.Thread(target=self._serve, name=f"parwise_{self._running}")
        thread.start()
        self._threads.append(thread)
        self._running += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait until the threads have made all calls."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().release()
        for thread in self._threads if wait else ():
            thread.join()

    def _serve(self) -> None:
        wake = _thread.allocate_lock()
        wake.acquire()
        while True:
            with self._lock:
                item = self._items.popleft() if self._items else None
                if item is None and self._closed:
                    self._running -= 1
                    return
                if item is None:
                    self._idle.append(wake)
            if item is None:
                if not self._is_wanted(wake):
                    return
                continue
            future, function, args = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args))
                except BaseException as error:
                    future.set_exception(error)
            del item, future, function, args

    def _is_wanted(self, wake: Any) -> bool:
        """Wait for a call; False if none comes for a while."""
        if wake.acquire(timeout=LINGER_SECONDS):
            return True
        with self._lock:
            if wake in self._idle:
                self._idle.remove(wake)
                self._running -= 1
                return False
        wake.acquire()  # a call has come just now
        return True


class _ThreadState:
    """Runs functions in other threads with the settings of this one: a new thread starts with the defaults."""

    def __init__(self) -> None:
        self._floats, self._counts = read_floats(), local_threads() or {}
        self._settings = read_local_settings()

    def submit(self, executor: Executor, function: Any, *args: Any) -> Future[Any]:
        """Submit a call of a function."""
        return executor.submit(contextvars.copy_context().run, self._run, function, *args)

    def _run(self, function: Any, *args: Any) -> None:
        with floats(self._floats), with_local_threads(self._counts), local_settings(self._settings):
            function(*args)


class SharedThreadRunner:
    """Computes tasks in the calling thread and in threads that take tasks themselves as long as there are any.

    All is computed even if the executor has all its threads at other work, or is
    the one that this call runs in.

    Parameters
    ----------
    workers : int
        Threads of the executor.
    """

    task_seconds = TASK_SECONDS

    def __init__(self, job: Job, executor: Executor, workers: int) -> None:
        job.open()
        self._job = job
        self.workers = 1 + workers
        self.finished = False
        state = _ThreadState()
        self._others = [state.submit(executor, self._compute_all) for _ in range(workers)]

    def step(self) -> None:
        """Compute a task here, or wait for a thread that computes one of the last."""
        if self._compute_next():
            return
        self._others = [future for future in self._others if not future.cancel()]
        if not self._others:
            self.finished = True
            return
        since = perf_counter()
        done, _ = wait(self._others, return_when=FIRST_COMPLETED)
        self._job.observer.waited(since)
        self._others = [future for future in self._others if future not in done]
        for future in done:
            future.result()
        self._job.show()

    def poll(self) -> None:
        """Do nothing: threads accept outcomes and take tasks themselves."""

    def cancel(self) -> None:
        """Have threads end after their tasks, and wait for them: they use this process's memory."""
        if not self.finished:
            self._job.queue.cut(0)
            wait([future for future in self._others if not future.cancel()])

    def _compute_all(self) -> None:
        while self._compute_next():
            pass

    def _compute_next(self) -> bool:
        task = self._job.queue.next_task(workers=self.workers)
        if task is None:
            return False
        self._job.compute_and_accept(task)
        self._job.show()
        return True


class ThreadRunner(ExecutorRunner):
    """Computes tasks in threads of this process, for a call whose results are taken one after another."""

    task_seconds = TASK_SECONDS

    def __init__(self, job: Job, executor: Executor, workers: int) -> None:
        super().__init__(job, executor, workers)
        self._state = _ThreadState()
        self._computing: set[int] = set()

    @property
    def within(self) -> bool:
        """True in a thread that computes one of the tasks: garbage collection may end a generator there."""
        return threading.get_ident() in self._computing

    def step(self) -> None:
        """Wait for a finished task; or compute one here, if the executor has begun none.

        It may have all its threads at other work, or be the one that this runs in.
        """
        self.assign_tasks()
        first = next(iter(self._submitted), None)
        # Threads of the call's own are about to begin: results as they come need not wait for a task of this one.
        if not self._job.ordered and self._job.call.settings.executor == "threads":
            first = None
        if first is not None and not any(f.running() or f.done() for f in self._submitted) and first.cancel():
            self._job.compute_and_accept(self._submitted.pop(first))
        else:
            super().step()

    def cancel(self) -> None:
        """Cancel tasks that have not begun, and wait for those that have: they use this process's memory."""
        if os.getpid() == self._owner:
            begun = [future for future in self._submitted if not future.cancel()]
            if not self.within:
                wait(begun)

    def _submit(self, task: Task) -> None:
        self._submitted[self._state.submit(self._executor, self._compute, task)] = task

    def _compute(self, task: Task) -> None:
        thread = threading.get_ident()
        self._computing.add(thread)
        try:
            self._job.compute_and_accept(task)
        finally:
            self._computing.discard(thread)

    def _collect(self, future: Future[Any], task: Task) -> None:
        future.result()
