"""The handshake: one task is computed in the caller and in a worker, and the results are compared."""

from __future__ import annotations

from ..._clock import monotonic
from ..._core.kernel import Outcome
from ..._core.results import Results, owned
from ..job.job import Job

# With so few tasks per worker one more task delays the call noticeably.
FEW_TASKS = 8
# Seconds that a call may wait for the comparison alone: the least, and as a part of the time of the call.
GRACE_SECONDS = 0.001
GRACE_SHARE = 0.1


class Handshake:
    """Decides when a worker computes the caller's first task too, and compares the results.

    In a call of many tasks it is the first task of a worker. In a call of few
    tasks, which may take hours each, a worker computes it only when no other
    task is left, and only if it will probably finish with the other workers.
    Once begun it is waited for, since a function that is killed half-way may
    leave half a file behind.

    Attributes
    ----------
    pending : bool
        True until a worker has been sent the task.
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
        """Begin the part of the call that workers compute."""
        call = self._job.call
        self._few = (call.expected if call.bounds is None else len(call.bounds)) <= FEW_TASKS * workers
        self._started = monotonic()

    @property
    def _wanted(self) -> bool:
        return self.pending and self._job.comparison.wanted

    @property
    def due(self) -> bool:
        """True if the next free worker computes the task before any other."""
        return self._wanted and not self._few

    @property
    def due_last(self) -> bool:
        """True if it is left for a worker that has no other task."""
        return self._wanted and self._few

    def fits(self, seconds: float) -> bool:
        """Tell whether a worker without a task may compute it now.

        Parameters
        ----------
        seconds : float
            Time for which the other workers will be busy.
        """
        known = self._job.comparison
        if known.results is None or self._job.call.settings.verify:
            return True
        return known.seconds <= seconds + self._grace(monotonic())

    def mark_sent(self) -> None:
        """Note that a worker has been sent the task."""
        self.pending = False

    def receive(self, outcome: Outcome) -> None:
        """Take the outcome of the first task in one worker."""
        # An exception is not the call's: this process has the result. If others have it too, their tasks raise it.
        if outcome.results is not None and (outcome.error is None or outcome.gaps is not None):
            self._theirs.append(owned(outcome.results))
        self.check()

    def check(self) -> None:
        """Compare with the caller's results, once these are known."""
        if self._theirs and self._job.comparison.results is not None:
            theirs, self._theirs = self._theirs, []
            for results in theirs:
                self._job.compare(results)

    def _grace(self, now: float) -> float:
        return max(GRACE_SECONDS, GRACE_SHARE * (now - self._started))
