"""Threads of this process, for functions that release the GIL."""

from __future__ import annotations

import contextvars
import os
import threading
from concurrent.futures import Executor, Future, wait
from typing import Any

from .._core.indexing import Task
from .._system.blas import local_threads, with_local_threads
from .._system.floating_point import floats, read_floats
from .futures import ExecutorRunner
from .job import Job
from .task_queue import TASK_SECONDS


class ThreadRunner(ExecutorRunner):
    """Computes tasks in threads of this process.

    Parameters
    ----------
    workers : int
        Threads of the executor.
    computes : bool
        True if the calling thread computes tasks too, instead of only those that no thread begins. Each thread then
        takes tasks itself as long as there are any: none waits while the calling thread is at a long one.
    """

    task_seconds = TASK_SECONDS

    def __init__(self, job: Job, executor: Executor, workers: int, computes: bool) -> None:
        super().__init__(job, executor, workers)
        self._computes = computes
        if computes:
            self._max_submitted = self.workers
        # A new thread starts with the defaults; it must have the settings of the calling one.
        self._floats, self._counts = read_floats(), local_threads() or {}
        self._computing: set[int] = set()

    @property
    def within(self) -> bool:
        """True in a thread that computes one of the tasks: garbage collection may end a generator there."""
        return threading.get_ident() in self._computing

    def step(self) -> None:
        """Compute a task here if the calling thread computes, or if no thread has begun one; else wait for one.

        An executor that the user gave may have all its threads at other work, or be the one that this runs in.
        """
        self.poll()
        task = self._own_task()
        if task is None:
            super().step()
        else:
            self._job.compute_and_accept(task)
            self._job.show()

    def _own_task(self) -> Task | None:
        """A task for the calling thread: the next one, or one that waits in the executor."""
        if self._computes and (task := self._next_task()) is not None:
            return task
        if self._computes or not any(future.running() or future.done() for future in self._submitted):
            for future in self._submitted:
                if future.cancel():
                    return self._submitted.pop(future)
        return None

    def _next_task(self) -> Task | None:
        return self._job.queue.next_task(self.task_seconds, self.workers + 1)

    def cancel(self) -> None:
        """Cancel tasks that have not begun, and wait for those that have: they use this process's memory."""
        if os.getpid() == self._owner:
            if self._submitted:
                self._job.queue.cut(0)
            begun = [future for future in self._submitted if not future.cancel()]
            if not self.within:
                wait(begun)

    def _submit(self, task: Task) -> None:
        self._submitted[self._executor.submit(contextvars.copy_context().run, self._compute, task)] = task

    def _compute(self, task: Task | None) -> None:
        thread = threading.get_ident()
        self._computing.add(thread)
        try:
            with floats(self._floats), with_local_threads(self._counts):
                while task is not None:
                    self._job.compute_and_accept(task)
                    self._job.show()
                    task = self._next_task() if self._computes else None
        finally:
            self._computing.discard(thread)

    def _collect(self, future: Future[Any], task: Task) -> None:
        future.result()
