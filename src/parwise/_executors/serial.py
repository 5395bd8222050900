"""The plain loop, in the calling thread."""

from __future__ import annotations

from .job import Job


def run(job: Job) -> None:
    """Compute all tasks here, in order."""
    job.open()
    go_on(job)


def go_on(job: Job) -> None:
    """Compute here what is left of a job that is open."""
    while (task := job.queue.next_task()) is not None:
        job.compute_and_accept(task)
        job.show()


# While there are results at hand, workers are seen to no more often than this.
PAUSE_SECONDS = 0.001


class _Alone:
    """The thread that asks computes what it asks for."""

    workers = 1
    seconds = PAUSE_SECONDS

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def finished(self) -> bool:
        return self._job.queue.empty

    def step(self) -> None:
        task = self._job.queue.next_task(self.seconds)
        if task is not None:
            self._job.compute_and_accept(task)

    def poll(self) -> None:
        """Nobody else computes."""
