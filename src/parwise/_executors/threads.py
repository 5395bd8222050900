"""Threads of this process, for functions that let go of the GIL."""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed, wait
from typing import Any

from .._core.indexing import Task
from .._report.observer import Observer
from .._system.blas import local_threads, with_local_threads
from .._system.floating_point import floats, read_floats
from . import serial
from .futures import ExecutorRunner
from .job import Job


def run(job: Job) -> None:
    """Compute all tasks in new threads and the calling one."""
    others = job.workers - 1
    if not others:  # one CPU
        job.open()
        serial.go_on(job)
        return
    with ThreadPoolExecutor(others, thread_name_prefix="parwise") as executor:
        run_in(job, executor.submit, others)


def run_in(job: Job, submit: Callable[..., Future[Any]], others: int) -> None:
    """Compute all tasks in this thread and `others` that `submit` gives.

    This thread works too, so that all gets done even if the executor is busy
    with something else, or is the one that this call runs in.
    """
    job.open()
    # A thread starts with default contexts; error handling, print options and
    # decimal precision are to be the caller's.
    control, counts = read_floats(), local_threads() or {}

    def draw() -> None:
        with floats(control), with_local_threads(counts):
            _draw(job, 1 + others)

    futures = [submit(contextvars.copy_context().run, draw) for _ in range(others)]
    try:
        _draw(job, 1 + others)
        if job.observer is not None:
            _await(job.observer, [future for future in futures if not future.cancel()])
    except BaseException:
        job.queue.cut(0)
        raise
    finally:
        begun = [future for future in futures if not future.cancel()]
        wait(begun)
    for future in begun:
        future.result()


def _await(observer: Observer, futures: list[Future[Any]]) -> None:
    """Wait for threads that are at their last tasks, and show when one has done it."""
    since = time.perf_counter()
    for _ in as_completed(futures):
        observer.show()
    observer.waited(since)


def _draw(job: Job, threads: int) -> None:
    """Compute tasks until none is left."""
    while (task := job.queue.next_task(workers=threads)) is not None:
        job.compute_and_accept(task)
        job.show()


class ThreadRunner(ExecutorRunner):
    """Tasks for threads of this process."""

    def __init__(self, job: Job, executor: Executor, workers: int) -> None:
        super().__init__(job, executor, workers)
        # As in the caller's thread: a new one starts with defaults.
        self._floats, self._counts = read_floats(), local_threads() or {}
        self._computing: set[int] = set()

    @property
    def within(self) -> bool:
        """Whether this thread is at one of the tasks, in which the collector has come upon what is at them."""
        return threading.get_ident() in self._computing

    def step(self) -> None:
        """Take a task that is done; or compute one here, if the executor has begun none.

        It may have all its threads at something else, or be the one that this
        runs in.
        """
        self.assign_tasks()
        first = next(iter(self._flying), None)
        if first is not None and not any(f.running() or f.done() for f in self._flying) and first.cancel():
            self._job.compute_and_accept(self._flying.pop(first))
        else:
            super().step()

    def cancel(self) -> None:
        """Have nothing begun any more, and wait for what has: it works on this process's memory."""
        if os.getpid() == self._owner:
            begun = [future for future in self._flying if not future.cancel()]
            if not self.within:
                wait(begun)

    def _submit(self, task: Task) -> None:
        self._flying[self._executor.submit(contextvars.copy_context().run, self._compute, task)] = task

    def _compute(self, task: Task) -> None:
        thread = threading.get_ident()
        self._computing.add(thread)
        try:
            with floats(self._floats), with_local_threads(self._counts):
                self._job.compute_and_accept(task)
        finally:
            self._computing.discard(thread)

    def _collect(self, future: Future[Any], task: Task) -> None:
        future.result()
