"""The plain loop, in the calling thread."""

from __future__ import annotations

from .._job import Job


def run(job: Job) -> None:
    """Compute all tasks here, in order."""
    job.open()
    go_on(job)


def go_on(job: Job) -> None:
    """Compute here what is left of a job that is open."""
    while (task := job.plan.take()) is not None:
        job.compute_and_accept(task)
        job.show()
