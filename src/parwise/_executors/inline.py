"""The first milliseconds of a call, spent on its first elements: most small calls end there."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from .._core.call import Call, result_axes
from .._core.indexing import Task
from .._core.kernel import Kernel, Outcome
from .._core.output import RawResults, raw_results
from .._core.results import Results, Stack, owned
from .background import COLD_SECONDS, HELP_AFTER_SECONDS, WARM_SECONDS, BackgroundDispatcher
from .dispatcher import Dispatcher
from .job import Job

# Elements are copied before the function is known to be slow: no more than 5 us of copying.
TRIAL_BYTES = 2**16


class InlineRun:
    """Elements computed in the caller's thread, before tasks, targets and workers are thought of.

    Parameters
    ----------
    call : Call
    kernel : Kernel

    Attributes
    ----------
    raw : list
        What the function gave.
    seconds, first_seconds : float
        How long that took, and the first element alone.
    """

    def __init__(self, call: Call, kernel: Kernel) -> None:
        self._call = call
        self._kernel = kernel
        self.raw: list[Any] = []
        self._begun = self.seconds = self.first_seconds = 0.0
        self._error: BaseException | None = None
        self._stop: int | None = None
        self._lock = threading.Lock()
        self._most = call.count
        for one in call.inputs:
            self._most = min(self._most, one.run_end or self._most, max(1, TRIAL_BYTES // max(1, one.row_bytes)))

    @staticmethod
    def suits(call: Call) -> bool:
        """Whether the call's first elements can be computed in this way."""
        return not (call.vectorized or call.settings.ignore or call.settings.verify) and all(
            one.loaded for one in call.inputs
        )

    def run(self, alone: float, seconds: float, early: float = 0.0, enough: float = float("inf")) -> None:
        """Compute until `seconds` are over, or another thread has taken on what comes next.

        Parameters
        ----------
        alone : float
            Until when no other thread does that, by `time.perf_counter`. From then
            on each element may be the last: what that thread takes on begins
            behind the one at hand.
        seconds : float
        early, enough : float
            After `early` seconds it ends as well if, by then, more than
            `enough` seconds of work seem to be left.
        """
        call, raw, count = self._call, self.raw, self._most
        calls = self._kernel.start([one.private(0, count) for one in call.inputs])
        self._begun = begun = time.perf_counter()
        self._error = self._kernel.collect(calls, raw, min(1, count), begun)
        self.first_seconds = time.perf_counter() - begun
        # Another thread may have taken on the next element by now.
        for until in (early, seconds):
            if self._error is not None or len(raw) == count or self._stop is not None:
                break
            elapsed = time.perf_counter() - begun
            if elapsed < until:
                self._error = self._kernel.collect(calls, raw, count, min(begun + until, alone))
                elapsed = time.perf_counter() - begun
            if elapsed * (call.count - len(raw)) > enough * len(raw):
                break
        # It may have looked just before the last element was counted.
        stop = self.claim(len(raw))
        if self._error is None and len(raw) < stop:
            self._error = self._kernel.collect(calls, raw, stop, begun)
        self.seconds = time.perf_counter() - begun

    def claim(self, stop: int | None = None) -> int:
        """Agree, once for all, on the first element that is not computed here.

        Without `stop` it is the one behind that at hand.
        """
        with self._lock:
            if self._stop is None:
                self._stop = min(len(self.raw) + 1, self._most) if stop is None else stop
            return self._stop

    def end(self, job: Job) -> bool:
        """Give the job its result, if that is complete; otherwise return False."""
        whole = self._whole()
        if whole is None:
            return False
        job.end_with(whole)
        if job.observer is not None:
            job.observer.took(Task(0, len(self.raw)), Outcome(None, self.seconds, begun=self._begun))
        return True

    def hand_over(self, job: Job) -> None:
        """Give an open job the outcome of these elements."""
        task, outcome = self._outcome()
        if job.compared and self.raw:
            job.first, job.first_seconds = owned(self._kernel.pack(self.raw[:1], range(1))), self.first_seconds
        job.accept(task, outcome)

    def _whole(self) -> np.ndarray | list[Any] | RawResults | None:
        """The call's result, if all of it has been computed and it is a plain array of numbers, or none at all."""
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
        """What became of the elements, as one task."""
        found = len(self.raw)
        if self._error is None:
            try:
                return Task(0, found), Outcome(self._results(), self.seconds, begun=self._begun)
            except Exception as error:  # what cannot be put together
                self._error = error
                found -= 1
        return Task(0, found + 1), Outcome(None, self.seconds, index=found, error=self._error, begun=self._begun)

    def _results(self) -> Results:
        return self._kernel.pack(self.raw, range(len(self.raw)))


# The caller's own tasks: the second one is long enough to trust its pace. With
# workers up each 2 ms of them leave a CPU idle, so that less must do.
TRIAL_SECONDS = 0.002
EARLY_SECONDS = 0.0004
OWN_SECONDS = 0.004
# So much more than pays must seem to be left, after that little.
WORTH = 2


def enough_seconds(warm: bool) -> float:
    """Seconds of work left from which on workers are handed the rest after `EARLY_SECONDS`."""
    return WORTH * WARM_SECONDS if warm else float("inf")


def _least(background: BackgroundDispatcher) -> str:
    """What workers would have to be worth."""
    if background.warm:
        return f"workers pay from {WARM_SECONDS * 1e3:g} ms of work on"
    return f"starting workers pays from {COLD_SECONDS * 1e3:g} ms of work on"


class InlineTasks:
    """The calling thread, as it computes tasks until workers take over or none is left.

    Parameters
    ----------
    job : Job
    background : BackgroundDispatcher
        Which has joined.
    """

    def __init__(self, job: Job, background: BackgroundDispatcher) -> None:
        self._job = job
        self._background = background
        self._seconds = EARLY_SECONDS if background.warm else TRIAL_SECONDS
        # The most work that was left and could have been shared, and that was left at all.
        self._serial_seconds = self._most = 0.0
        pace = job.queue.pace
        self._begun = pace is not None
        if pace is not None:
            background.pace, self._most = pace, job.queue.seconds_left
            self._look_up(self._worth(job.queue.seconds_left))

    def step(self) -> bool:
        """Compute one task, if it is the caller's turn; otherwise return False."""
        job, background = self._job, self._background
        queue, cpus = job.queue, background.cpus
        if (
            background.dispatcher.serving
            or background.error is not None
            or (task := queue.next_task(self._seconds)) is None
        ):
            return False
        background.expect(None if queue.empty else background.help_after_at_least())
        start = time.perf_counter()
        if cpus.watch.suspicious:
            with cpus.watch:
                start = time.perf_counter()
                job.compute_and_accept(task)
        else:
            job.compute_and_accept(task)
        job.repeat()
        background.pace = (time.perf_counter() - start) / len(task)
        left = queue.seconds_left
        self._most = max(self._most, left)
        worth = self._worth(left)
        if self._begun:
            background.poll(worth and cpus.known_free())
            self._serial_seconds = max(self._serial_seconds, left if left > WARM_SECONDS else 0.0)
            # Where BLAS keeps the CPUs, look again ever more seldom.
            self._seconds = min(2 * self._seconds, HELP_AFTER_SECONDS / 2) if cpus.watch.busy else OWN_SECONDS
        else:
            self._look_up(worth)
        self._begun = True
        return True

    def leave(self) -> Dispatcher:
        """Leave what is left to the workers, if they have been started."""
        pool, dispatcher = self._background.pool, self._background.dispatcher
        if self._job.observer is not None and not dispatcher.started:
            self._explain()
        pool.serial_seconds = 0.0 if dispatcher.started else pool.serial_seconds + self._serial_seconds
        self._background.leave()
        dispatcher.caller_computes = False
        return dispatcher

    def _explain(self) -> None:
        """Tell why no worker was started."""
        job, background, most = self._job, self._background, self._most
        if background.cpus.watch.busy:
            job.explain("BLAS or OpenMP uses all CPUs already, in each call of the function")
        elif most <= WARM_SECONDS if background.warm else most <= COLD_SECONDS:
            job.explain(f"{most * 1e3:.2g} ms of work were left after the first elements; {_least(background)}")

    def _worth(self, left: float) -> bool:
        """Whether `left` seconds of work are enough to bring in workers.

        Calls of middling size are each too short for a cold start. What they could
        have saved is added up, and pays for it in the end.
        """
        background = self._background
        return (
            left > WARM_SECONDS if background.has_idle_workers else left + background.pool.serial_seconds > COLD_SECONDS
        )

    def _look_up(self, worth: bool) -> None:
        """After the first element: see to workers that are there, or whether there is room for some."""
        dispatcher = self._background.dispatcher
        if dispatcher.started:
            dispatcher.wake()  # there is something now to compare a worker's results with
        else:
            self._background.cpus.watch.suspicious = worth
