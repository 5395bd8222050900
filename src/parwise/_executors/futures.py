"""Tasks submitted to an executor of `concurrent.futures`, in threads or elsewhere."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from .._clock import perf_counter
from .._core.indexing import Task
from .job.job import Job

# Length of a task: to send one to another machine takes milliseconds.
TASK_SECONDS = 0.1


class ExecutorRunner:
    """Submits tasks of one job to an executor and collects their outcomes.

    Parameters
    ----------
    workers : int
        Tasks that the executor computes at a time.
    """

    task_seconds = TASK_SECONDS
    #: Seconds after which a runner looks at its executor while no task ends; None for never.
    look_seconds: float | None = None

    def __init__(self, job: Job, executor: Executor, workers: int) -> None:
        job.open()
        self._job = job
        self._executor = executor
        self._owner = os.getpid()
        self.workers = max(1, workers)
        self._submitted: dict[Future[Any], Task] = {}

    @property
    def finished(self) -> bool:
        """True if no task is left that counts, here or in the executor: not those behind an error."""
        limit = self._job.limit
        return self._job.queue.empty and all(task.lo >= limit for task in self._submitted.values())

    @property
    def max_submitted(self) -> int:
        """Tasks that may be in the executor: each worker has a second one at hand."""
        return 2 * self.workers

    def step(self) -> None:
        """Submit tasks, and wait for a finished one."""
        self.assign_tasks()
        if self._submitted:
            since = perf_counter()
            done, _ = wait(self._submitted, self.look_seconds, FIRST_COMPLETED)
            self._job.observer.waited(since)
            for future in done:
                self._collect(future, self._submitted.pop(future))
        self._job.show()

    def assign_tasks(self) -> None:
        """Submit tasks until there are enough of them in the executor."""
        while len(self._submitted) < self.max_submitted:
            task = self._job.queue.next_task(self.task_seconds, self.workers)
            if task is None:
                return
            self._submit(task)

    def poll(self) -> None:
        """Collect finished tasks and submit new ones, without waiting."""
        for future in [future for future in self._submitted if future.done()]:
            self._collect(future, self._submitted.pop(future))
        self.assign_tasks()

    def end(self) -> None:
        """Do nothing, where threads had no copies of what the function holds."""

    def cancel(self) -> None:
        """Cancel tasks that have not begun, and wait for none."""
        if os.getpid() == self._owner:  # not in a child that was forked meanwhile
            for future in self._submitted:
                future.cancel()

    def _submit(self, task: Task) -> None:
        raise NotImplementedError

    def _collect(self, future: Future[Any], task: Task) -> None:
        raise NotImplementedError
