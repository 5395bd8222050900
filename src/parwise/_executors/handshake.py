"""The handshake: one task is computed in a worker as well as in the caller, and compared."""

from __future__ import annotations

import time

from .._core.kernel import Outcome
from .._core.results import Results, owned
from .job import Job

# Up to so many tasks per worker, one more makes a difference.
FEW_TASKS = 8
# How long a call may wait for a comparison and nothing else, at least and as a
# part of its time.
GRACE_SECONDS = 0.010
GRACE_SHARE = 0.1


class Handshake:
    """When a worker is to compute the caller's first task too, and what comes of it.

    Among many tasks it is the first that a worker gets. Of a few, which may take
    hours each, none is computed twice before all have been handed out, and then
    only by a worker that has nothing else to do, if it is likely to end with the
    others: once begun it is waited for, since a function that is ended in the
    midst of it may leave half a file behind.

    Parameters
    ----------
    job : Job

    Attributes
    ----------
    pending : bool
        Whether no worker is, or has been, at it.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        settings = job.call.settings
        # Without the caller's own results there is nothing to compare with.
        self.pending = settings.verify is not False and not settings.isolate
        self._few = False
        self._theirs: list[Results] = []
        self._started = 0.0

    def start(self, workers: int) -> None:
        """Note that a call begins to use so many workers."""
        call = self._job.call
        self._few = len(call.bounds or range(call.count)) <= FEW_TASKS * workers
        self._started = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the next worker that is free is to begin with it."""
        return self.pending and not self._few

    def fits(self, seconds: float) -> bool:
        """Whether a worker that is left without a task may be given it.

        Parameters
        ----------
        seconds : float
            How long the other workers will be busy.
        """
        job = self._job
        if not (self.pending and self._few):
            return False
        if job.first is None or job.call.settings.verify:
            return True
        return job.first_seconds <= seconds + self._grace(time.monotonic())

    def begin(self) -> None:
        """Note that a worker is at it."""
        self.pending = False

    def receive(self, outcome: Outcome) -> None:
        """Take the outcome of the first task in one worker."""
        if outcome.error is not None and outcome.gaps is None:
            self._job.fail(outcome.index, outcome.error, self._job.first_task)
        elif outcome.results is not None:
            self._theirs.append(owned(outcome.results))
        self.check()

    def check(self) -> None:
        """Compare with the caller's results, if these are there."""
        if self._theirs and self._job.first is not None:
            theirs, self._theirs = self._theirs, []
            for results in theirs:
                self._job.compare(results)

    def _grace(self, now: float) -> float:
        return max(GRACE_SECONDS, GRACE_SHARE * (now - self._started))
