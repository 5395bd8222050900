"""The job of a call that goes on where an earlier one has stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._core.call import Call
from ..._core.indexing import Task
from ..._core.inputs.items import ItemStream
from ..._core.kernel import Outcome
from ..._core.outputs.output import ArrayOutput, ListOutput
from ..._core.results import Results, unstacked
from ..._executors.job.job import Job
from ..._report.null_observer import NullObserver
from .forms import form_of, results_of
from .ledger import ArrayLedger, ItemLedger, Ledger


class ResumedJob(Job):
    """A job that leaves out what a ledger counts, and has it count what is finished."""

    def __init__(
        self, call: Call, ledger: Ledger, observe: Callable[[Task, Outcome], None] | None, observer: NullObserver
    ) -> None:
        super().__init__(call, observe=observe, observer=observer)
        self._ledger = ledger
        self._left = list(ledger.counted.rest(call.count))
        if self._left:
            lo = self._left[0][0]
            self.first_task = Task(lo, next((hi for start, hi in call.bounds or () if start == lo), lo + 1))

    @property
    def is_complete(self) -> bool:
        """True if nothing is left to compute."""
        return not self._left and not isinstance(self.call.feed, ItemStream)

    @property
    def as_list(self) -> ListOutput | None:
        """None: each task is counted."""
        return None

    def open(self, start: int = 0) -> None:
        """Make the queue and the output, with what the ledger counts."""
        feed, counted = self.call.feed, list(self._ledger.counted)
        if isinstance(feed, ItemStream) and counted:
            feed.skip(counted[0][1])
        if isinstance(self._ledger, ItemLedger):
            self._ledger.check()
        super().open(start)
        if self._left and not isinstance(feed, ItemStream):
            self.queue.keep(self._left)
        self._restore()
        for lo, hi in counted:
            self.output_replay.close(lo, hi)
            self.observer.skipped(Task(lo, hi))
        for task, gaps, error in self._ledger.known_gaps():
            self._gaps.add(task, gaps, error)

    def _restore(self) -> None:
        """Give the output what an earlier run has left."""
        ledger, output = self._ledger, self.output
        if isinstance(ledger, ArrayLedger) and isinstance(output, ArrayOutput):
            ledger.settle = output.settle
        if isinstance(ledger, ItemLedger):
            for lo, results in sorted(ledger.results.items()):
                output.add(Task(lo, lo + len(results)), Results([results]))
            ledger.results.clear()
        elif isinstance(ledger, ArrayLedger) and isinstance(output, ArrayOutput) and ledger.form is not None:
            output.begin(results_of(ledger.form))

    def accept(self, task: Task, outcome: Outcome, who: object = None) -> None:
        """Accept the outcome of a task, and count it once its results are in their place."""
        super().accept(task, outcome, who)
        if outcome.error is None or outcome.gaps is not None:
            whole = task.lo < self.limit  # else its results were not taken
        else:
            # Of a list, results before the error are there.
            task, whole = Task(task.lo, outcome.index), self.call.form == "list" and outcome.results is not None
            outcome = Outcome(outcome.results, outcome.seconds)
        if whole:
            self._count(task, outcome)

    def _count(self, task: Task, outcome: Outcome) -> None:
        ledger, gaps = self._ledger, outcome.gaps
        if isinstance(ledger, ItemLedger):
            ledger.keep(task.lo, self._values(task, outcome))
        elif isinstance(ledger, ArrayLedger) and isinstance(self.output, ArrayOutput):
            if outcome.results is not None and not self.output.holds(task):
                return
            if ledger.form is None:
                ledger.form = form_of(self.output.like)
            self._fill(ledger, self.output, task, gaps)
        ledger.note(task, outcome)

    def _values(self, task: Task, outcome: Outcome) -> list[Any]:
        """The results of items, with None in gaps."""
        found = [] if outcome.results is None else unstacked(outcome.results.columns[0])
        if outcome.gaps is None:
            return found
        values: list[Any] = [None] * len(task)
        kept = np.setdiff1d(np.arange(task.lo, task.hi), outcome.gaps) - task.lo
        for at, value in zip(kept.tolist(), found, strict=True):
            values[at] = value
        return values

    def _fill(self, ledger: ArrayLedger, output: ArrayOutput, task: Task, gaps: np.ndarray | None) -> None:
        """Write the value of gaps now: what a line tells of `out` must be there."""
        if gaps is not None and len(gaps):
            every = np.arange(task.lo, task.hi) if self.call.vectorized else gaps
            with output.writing:
                for target in ledger.targets:
                    target.fill(every)

    def skip(self, task: Task, error: BaseException) -> None:
        """Leave a gap for a task that was lost, and count it."""
        super().skip(task, error)
        self._count(task, Outcome(None, 0.0, error=error, gaps=np.arange(task.lo, task.hi)))
