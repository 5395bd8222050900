"""Whether there are CPUs for workers."""

from __future__ import annotations

from functools import cached_property

from ._blas import ThreadWatch, read_threads, workers_beside
from ._job import Job


class Room:
    """Whether there are CPUs for workers, or BLAS has them all at work already.

    Workers keep the caller's number of BLAS threads, which its bits depend on.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        # Native ids of this call's own threads.
        self.threads: set[int] = set()
        self.watch = ThreadWatch(self.threads)

    @cached_property
    def _any(self) -> bool:
        """Whether this process may use more than one CPU at all."""
        return self._job.call.settings.workers > 1

    @cached_property
    def _doubtful(self) -> bool:
        """Whether BLAS would leave no CPU to a second worker, if it is at work."""
        wanted = self._job.call.settings.blas_threads
        return not isinstance(wanted, int) and workers_beside(read_threads(), 2) < 2

    def known_free(self) -> bool:
        """Whether the last task has shown that there is room; if not, the next will."""
        if not (self._any and self._doubtful):
            return self._any
        self.watch.suspicious = self.watch.busy is not False
        return self.watch.busy is False

    def seems_free(self) -> bool:
        """Whether there is room at this moment, in the midst of a task."""
        # Looking for BLAS takes 20 ms beside a function in pure Python, so that comes last.
        return self._any and not (self.watch.at_work() and self._doubtful)
