"""The plain loop, in the calling thread."""

from __future__ import annotations

from .._job import Job


def run(job: Job) -> None:
    """Compute all tasks here, in order."""
    while (task := job.plan.take()) is not None:
        job.compute_and_accept(task)
