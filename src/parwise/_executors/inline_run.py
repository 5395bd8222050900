"""The first elements of a call, computed in the calling thread: most small calls end there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .._clock import perf_counter
from .._core.call import Call, result_axes
from .._core.indexing import Task
from .._core.kernel import Kernel, Outcome
from .._core.options.defaults import has_no_gil
from .._core.outputs.output import RawResults, raw_results
from .._core.results import Results, Stack
from .collector import Collector, FreeCollector
from .job.job import Job
from .job.task_length import COLD_SECONDS

# Length of a batch where a helper thread waits, for longer than that. Without one a batch may take `GROWTH` times as
# long as all before it: what stands between two takes 20 us, and 60 us once the function has taken a ms, since nothing
# of it is in the caches.
BATCH_SECONDS = 0.001
# A batch has at most so many times the elements before it. The first call of a process takes 8 us for each batch.
GROWTH = 4
# Bytes that are copied before the time of an element is known: they take 0.1 ms. A call of fewer bytes can end without
# tasks and an output array, which take 0.15 ms.
TRIAL_BYTES = 2**20


class InlineRun:
    """Computes the first elements in the calling thread, before there are tasks, an output array or workers.

    Parameters
    ----------
    reads_only : bool
        True if the function gets views of the user's arrays, see `Job.reads_only`.
    transfer_seconds : float
        Seconds that it takes to send an element to a worker, beyond those that a copy here takes.

    Attributes
    ----------
    raw : list
        Results of the function.
    seconds, first_seconds : float
        Time of all these elements, and of the first one.
    """

    def __init__(self, call: Call, kernel: Kernel, reads_only: bool = False, transfer_seconds: float = 0.0) -> None:
        self._call = call
        self._kernel = kernel
        self._transfer_seconds = transfer_seconds
        self._begun = self.seconds = self.first_seconds = 0.0
        self._error: BaseException | None = None
        self._most = call.count
        for one in () if reads_only else call.inputs:
            self._most = min(self._most, one.run_end or self._most)
            if not one.scalars or one.scalar_run(0, 1) is None:  # they are copied
                self._most = min(self._most, max(1, TRIAL_BYTES // max(1, one.row_bytes)))
        most = self._most
        runs = [one.views(0, most) if reads_only else one.private(0, most) for one in call.inputs]
        self._collector = (FreeCollector if has_no_gil() else Collector)(kernel, runs)
        self.raw = self._collector.raw
        self.claim = self._collector.claim

    @staticmethod
    def suits(call: Call) -> bool:
        """Tell whether the first elements of a call can be computed in this way."""
        settings = call.settings
        tasks = call.vectorized or settings.ignore or settings.verify or settings.resume is not None
        return not tasks and all(one.loaded for one in call.inputs)

    def run(
        self,
        looks: Iterable[float],
        expect: Callable[[], object] | None = None,
        ends: Callable[[float], bool] | None = None,
        pace: float = 0.0,
    ) -> None:
        """Compute until the last of the `looks`, or until another thread has claimed the next element.

        Parameters
        ----------
        looks : iterable of float
            Seconds after which it also ends if `ends` of the seconds of work
            that seem to be left is True.
        expect : callable, optional
            Tells the other thread, before each batch, when it may claim the elements behind
            the one being computed.
        ends : callable, optional
            Without it only the last look ends it.
        pace : float, optional
            Seconds that an element took in an earlier call: the batch behind the first one is long then.
        """
        if expect is not None:
            expect()
        self._begun = begun = perf_counter()
        self._error = self._collector.collect(1)
        self.first_seconds = perf_counter() - begun
        pace *= self.first_seconds <= pace + COLD_SECONDS  # or it is another kind of element now
        told = 0.0
        for until in looks:
            while not self._over and (elapsed := perf_counter() - begun) < until:
                if expect is not None and elapsed - told > BATCH_SECONDS / 2:
                    told = elapsed
                    expect()
                longest = BATCH_SECONDS if expect is not None else max(BATCH_SECONDS, GROWTH * elapsed)
                self._error = self._collector.collect(self._batch(elapsed, min(longest, until - elapsed), pace))
                pace = 0.0
            if self._over or (ends is not None and ends(self._seconds_left(elapsed))):
                break
        self.claim(len(self.raw) + (self._error is not None))  # an element that raised is not called again
        self.seconds = perf_counter() - begun

    def _seconds_left(self, elapsed: float) -> float:
        """Seconds of work that seem to be left, less those that their transfer takes."""
        found = len(self.raw)
        return (elapsed / found - self._transfer_seconds) * (self._call.count - found)

    @property
    def _over(self) -> bool:
        """True if no more elements are to be computed here."""
        return self._error is not None or len(self.raw) == self._most or self._collector.stop is not None

    def _batch(self, elapsed: float, seconds: float, pace: float) -> int:
        """Length of a batch of so many seconds, by a known pace, or not much longer than all so far."""
        found = len(self.raw)
        most = self._most - found
        if not pace:
            pace, most = max(elapsed, 1e-9) / found, min(most, GROWTH * found)
        return min(most, max(1, int(seconds / pace)))

    def end(self, job: Job) -> bool:
        """Give the job its result, if that is complete; otherwise return False."""
        whole = self._whole()
        if whole is None:
            return False
        job.end_with(whole)
        if job.observer.active:
            job.observer.took(Task(0, len(self.raw)), Outcome(None, self.seconds, begun=self._begun))
        return True

    def hand_over(self, job: Job) -> None:
        """Give an open job the outcome of these elements."""
        task, outcome = self._outcome()
        if job.comparison.wanted and self.raw:
            job.comparison.keep(self._kernel.pack(self.raw[:1], range(1)), self.first_seconds)
        job.accept(task, outcome)

    def _whole(self) -> np.ndarray | list[Any] | RawResults | None:
        """The result of the call, if it is complete and an array of numbers, a list or raw results."""
        call = self._call
        if self._error is not None or len(self.raw) < call.count or call.out is not None:
            return None
        if call.feed is not None:
            return self.raw
        results = self._results()
        if call.form == "raw":
            return raw_results(call, results.columns[0])
        (column, *more) = results.columns
        if more or results.wrap is not None or not isinstance(column, Stack):
            return None
        array, grid = column.array, call.grid
        if array.dtype.kind not in "?biufc" or not array.dtype.isnative:  # another dtype in a list
            return None
        if call.axis == (0,):
            return array
        array = array.reshape(*grid, *array.shape[1:])
        return np.ascontiguousarray(np.moveaxis(array, range(len(grid)), result_axes(call.axis, array.ndim)))

    def _outcome(self) -> tuple[Task, Outcome]:
        """The elements as one task, and its outcome."""
        found = len(self.raw)
        if self._error is None:
            try:
                return Task(0, found), Outcome(self._results(), self.seconds, begun=self._begun)
            except Exception as error:  # results that cannot be put together
                self._error = error
                found -= 1
        return Task(0, found + 1), Outcome(None, self.seconds, index=found, error=self._error, begun=self._begun)

    def _results(self) -> Results:
        return self._kernel.pack(self.raw, range(len(self.raw)), self._collector.kinds)
