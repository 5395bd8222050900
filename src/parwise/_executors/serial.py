"""The plain loop, in the calling thread."""

from __future__ import annotations

from .job import Job
from .task_queue import TASK_SECONDS

# Tasks of items whose results are taken one after another: a caller that waits gets its result soon.
ITEM_SECONDS = 0.001


class SerialRunner:
    """Computes the tasks of an open job in the calling thread, in order.

    Parameters
    ----------
    task_seconds : float, optional
        Length of a task of many items.
    """

    workers = 1

    def __init__(self, job: Job, task_seconds: float = TASK_SECONDS) -> None:
        self._job = job
        self.task_seconds = task_seconds
        self.finished = False

    def step(self) -> None:
        """Compute one task."""
        task = self._job.queue.next_task(self.task_seconds)
        if task is None:
            self.finished = True
            return
        self._job.compute_and_accept(task)
        self._job.show()

    def poll(self) -> None:
        """Do nothing: no other thread or process computes."""
