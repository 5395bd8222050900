"""What of a run has been finished: in memory, and in its journal."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..._clock import perf_counter
from ..._core.call import Call
from ..._core.indexing import Task
from ..._core.inputs.items import ItemStream
from ..._core.kernel import Outcome
from ..._core.outputs.gaps import Gaps
from ..._core.results import tuple_of
from ..._system.interpreter import DeferredInterrupt
from .batches import Batches, ItemDigests
from .element_set import ElementSet, common_cuts, within_cuts
from .forms import name_of, type_of
from .journal import Journal
from .targets import Target

# A line is written when the work that would be lost without it takes all workers so many times as long as the last
# line took, with writing its data: lines take 5 %.
COST_RATIO = 20
# And at least so many seconds of all workers, or this part of the time since the call began: else a call of hours would
# have a file for every moment of it.
LEAST_SECONDS = 0.1
LEAST_SHARE = 0.001
# The reason of a gap behind the first ones of its task.
NOT_KEPT = Exception("not kept, unlike those of the first gaps of its task")


class Ledger(ABC):
    """Counts finished elements, and writes them to the journal once they are on the disk.

    Attributes
    ----------
    counted : ElementSet
        Elements that need not be computed again.
    gaps : list
        Of counted elements without a result, for each part of a task that had some: the indices, the end of the task,
        and type and text of the first error.
    """

    def __init__(self, call: Call, journal: Journal, cuts: Sequence[int] | None) -> None:
        self.call = call
        self._journal = journal
        self._cuts = cuts
        self.counted = ElementSet()
        self.gaps: list[tuple[list[int], int, str, str]] = []
        self.done = False
        self._noted = ElementSet()
        self._new_gaps: list[tuple[list[int], int, str, str]] = []
        # Seconds of work that are not counted yet, and of all work; seconds that the last line took.
        self._owed = self._worked = self._cost = 0.0
        self._begun = perf_counter()
        self._lock = threading.RLock()
        for line in journal.lines[1:]:
            self._read(line)

    def _read(self, line: dict[str, Any]) -> None:
        if "disputed" in line:
            raise ValueError(
                f"results of the run with resume={self._journal.path!r} were found not to be reproducible: "
                f"{line['disputed']} Remove the journal to start again"
            )
        for lo, hi, *_ in line.get("runs", ()):
            self.counted.add(lo, hi)
            self._noted.add(lo, hi)
        self.gaps += [tuple(one) for one in line.get("gaps", ())]
        self.done = self.done or line.get("done", False)

    def note(self, task: Task, outcome: Outcome) -> None:
        """Note that a task is finished, with the seconds that it took, and its gaps."""
        with self._lock:
            self._new_gaps += self._parts_of_gaps(task, outcome)
            self._noted.add(task.lo, task.hi)
            self._owed += outcome.seconds
            self._worked += outcome.seconds
            elapsed = perf_counter() - self._begun
            workers = max(1.0, self._worked / elapsed)
            if self._owed >= workers * max(COST_RATIO * self._cost, LEAST_SECONDS, LEAST_SHARE * elapsed):
                self.commit()

    def _parts_of_gaps(self, task: Task, outcome: Outcome) -> Iterator[tuple[list[int], int, str, str]]:
        """Yield the gaps of a task in parts, each of which counts as a whole, with the reason of its first."""
        gaps = [] if outcome.gaps is None else outcome.gaps.tolist()
        known: Sequence[BaseException | None] = outcome.failures or [outcome.error]
        places = [bisect_right(self._cuts or (), one) for one in gaps]
        starts = [k for k in range(len(gaps)) if k < len(known) or places[k] != places[k - 1]]
        for first, stop in pairwise([*starts, len(gaps)]):
            # Of a task that was lost, all have the same one.
            error = known[first] if first < len(known) else NOT_KEPT if outcome.failures else outcome.error
            yield gaps[first:stop], task.hi, type(error).__name__, _text_of(error)

    def commit(self) -> None:
        """Bring what has been finished to the disk, and then write a line of it."""
        with self._lock:
            noted = ElementSet(within_cuts(lo, hi, self._cuts) for lo, hi in self._runs_to_count())
            runs = list(noted.without(self.counted))
            if runs:
                begun = perf_counter()
                self._write_line(runs)
                self._owed, self._cost = 0.0, perf_counter() - begun

    def _write_line(self, runs: list[tuple[int, int]]) -> None:
        line, inside = self._save(runs), ElementSet(runs)
        gaps = [one for one in self._new_gaps if one[0][0] in inside]
        left = [one for one in self._new_gaps if one[0][0] not in inside]
        # A line that is in the journal and not noted here would be written again, with its file.
        with DeferredInterrupt():
            self._journal.append({**line, "gaps": gaps} if gaps else line)
            # Not before: where the disk is full, the next line has all of it.
            self._new_gaps = left
            self.gaps += gaps
            self._recorded(line)
            self._count(runs)

    def _count(self, runs: list[tuple[int, int]]) -> None:
        for run in runs:
            self.counted.add(*run)

    def known_gaps(self) -> Iterator[tuple[Task, np.ndarray, BaseException]]:
        """Yield the gaps that an earlier run has left, with the first error of each task."""
        for gaps, end, kind, text in self.gaps:
            yield Task(gaps[0], end), np.array(gaps), type(kind, (Exception,), {})(text)

    def _runs_to_count(self) -> ElementSet:
        return self._noted

    @abstractmethod
    def _save(self, runs: list[tuple[int, int]]) -> dict[str, Any]:
        """Bring the results of some runs to the disk, and return what a line tells of them."""

    @abstractmethod
    def _recorded(self, line: dict[str, Any]) -> None:
        """Note that what `_save` has returned is in the journal."""

    def finish(self, result: Any) -> None:
        """Count what is left: the whole result is there."""
        self.commit()

    def dispute(self, text: str) -> None:
        """Note that results were found not to be reproducible."""
        self._journal.append({"disputed": text})


def _text_of(error: BaseException | None) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def cuts_of(call: Call, targets: list[Target]) -> list[int] | None:
    """Where runs of elements may begin and end that count: between blocks, and between chunks of `out`."""
    blocks = None if call.bounds is None else [0, *(hi for _, hi in call.bounds)]
    return common_cuts([blocks, *(one.cuts for one in targets)])


class ArrayLedger(Ledger):
    """Counts elements whose results are in `out`, in files.

    Attributes
    ----------
    form : dict or None
        The form of results, as `form_of` tells it; the first line has it.
    """

    def __init__(self, call: Call, journal: Journal, targets: list[Target]) -> None:
        self.form: dict[str, Any] | None = None
        self.targets = targets
        #: Writes what the output holds of some runs until whole chunks are complete; None before there is an output.
        self.settle: Callable[[list[tuple[int, int]]], None] | None = None
        self._wrap: str | None = None
        self._form_told = False
        super().__init__(call, journal, cuts_of(call, targets))

    def _read(self, line: dict[str, Any]) -> None:
        super()._read(line)
        self._wrap = line.get("tuple", self._wrap)
        if "form" in line:
            self.form, self._form_told = line["form"], line["form"] is not None
        for lo, hi, *sums in line.get("runs", ()):
            if sums != [one.checksum(lo, hi) for one in self.targets]:
                raise ValueError(
                    f"out does not hold what the journal resume={self._journal.path!r} lists for elements {lo} to "
                    f"{hi - 1}: it is a new array, or was changed. Open the array of the earlier run (np.memmap "
                    "with mode='r+', zarr with mode='a'), or remove the journal to start again"
                )

    def finish(self, result: Any) -> None:
        """Count all elements, those too whose results were written only now, since they were unlike the first."""
        self._cuts = None
        self._noted.add(0, self.call.count)
        self.commit()
        self._journal.append({"done": True, "tuple": name_of(type(result)) if isinstance(result, tuple) else None})

    def whole(self) -> Any:
        """The result of a run that was finished."""
        gaps, out = Gaps(self.call), self.call.out or ()
        for task, indices, error in self.known_gaps():
            gaps.add(task, indices, error)
        gaps.warn()
        return out[0] if self._wrap is None else tuple_of(type_of(self._wrap, tuple), list(out))

    def _save(self, runs: list[tuple[int, int]]) -> dict[str, Any]:
        if self.settle is not None:
            self.settle(runs)
        for target in self.targets:
            target.sync(runs)
        sums = [[lo, hi, *(one.checksum(lo, hi) for one in self.targets)] for lo, hi in runs]
        return {"runs": sums} if self._form_told else {"runs": sums, "form": self.form}

    def _recorded(self, line: dict[str, Any]) -> None:
        self._form_told = self._form_told or line["form"] is not None


class ItemLedger(Ledger):
    """Counts items whose results are in files of a folder.

    Of an iterator only items before the first unfinished one count, since it is read in order.
    """

    def __init__(self, call: Call, journal: Journal, batches: Batches, items: ItemDigests) -> None:
        self._batches = batches
        self._items = items
        #: Results of counted items, by the first of each run.
        self.results: dict[int, list[Any]] = {}
        # ElementSet of counted items, with the digests of these.
        self._digests: list[tuple[int, int, str]] = []
        self._waiting: dict[int, list[Any]] = {}
        super().__init__(call, journal, None)

    def _read(self, line: dict[str, Any]) -> None:
        super()._read(line)
        if "runs" in line:
            for (lo, hi, digest), results in zip(line["runs"], self._batches.load(line), strict=True):
                self.results[lo] = results
                self._digests.append((lo, hi, digest))

    def check(self) -> None:
        """Raise a ValueError if counted items are others now; those of an iterator must have been read."""
        for lo, hi, digest in self._digests:
            if self._items.digest(lo, hi) != digest:
                folder = os.path.dirname(self._journal.path)
                raise ValueError(
                    f"items {lo} to {hi - 1} have results in the folder resume={folder!r}, but at least one of "
                    "them is different now; pass the same items, or remove the folder to start again"
                )

    def keep(self, lo: int, results: list[Any]) -> None:
        """Keep the results of a task until they are in a file."""
        with self._lock:
            self._waiting[lo] = results

    def _runs_to_count(self) -> ElementSet:
        if isinstance(self.call.feed, ItemStream):
            return ElementSet(list(self._noted)[:1] if 0 in self._noted else ())
        return self._noted

    def _save(self, runs: list[tuple[int, int]]) -> dict[str, Any]:
        results = [self._results_of(lo, hi) for lo, hi in runs]
        return {
            "runs": [(lo, hi, self._items.digest(lo, hi)) for lo, hi in runs],
            **self._batches.save(runs, results),
        }

    def _recorded(self, line: dict[str, Any]) -> None:
        self._batches.count += 1
        for lo, hi, _ in line["runs"]:
            while lo < hi:
                lo += len(self._waiting.pop(lo))

    def _results_of(self, lo: int, hi: int) -> list[Any]:
        found: list[Any] = []
        while lo + len(found) < hi:
            found += self._waiting[lo + len(found)]
        return found
