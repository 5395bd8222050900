"""The first milliseconds of a call, spent on its first elements: most small calls end there."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from ._call import Call, result_places
from ._collect import Collection, collection_of
from ._kernel import Kernel, Outcome
from ._results import Results, Stack
from ._split import Task

# Elements are copied before the function is known to be slow: no more than 5 us of copying.
TRIAL_BYTES = 2**16


class Trial:
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
            self._most = min(self._most, one.row or self._most, max(1, TRIAL_BYTES // max(1, one.row_bytes)))

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
        self._error = self._kernel.draw(calls, raw, min(1, count), begun)
        self.first_seconds = time.perf_counter() - begun
        # Another thread may have taken on the next element by now.
        for until in (early, seconds):
            if self._error is not None or len(raw) == count or self._stop is not None:
                break
            elapsed = time.perf_counter() - begun
            if elapsed < until:
                self._error = self._kernel.draw(calls, raw, count, min(begun + until, alone))
                elapsed = time.perf_counter() - begun
            if elapsed * (call.count - len(raw)) > enough * len(raw):
                break
        # It may have looked just before the last element was counted.
        stop = self.claim(len(raw))
        if self._error is None and len(raw) < stop:
            self._error = self._kernel.draw(calls, raw, stop, begun)
        self.seconds = time.perf_counter() - begun

    def claim(self, stop: int | None = None) -> int:
        """Agree, once for all, on the first element that is not computed here.

        Without `stop` it is the one behind that at hand.
        """
        with self._lock:
            if self._stop is None:
                self._stop = min(len(self.raw) + 1, self._most) if stop is None else stop
            return self._stop

    def whole(self) -> np.ndarray | list[Any] | Collection | None:
        """The call's result, if all of it has been computed and it is a plain array of numbers, or none at all."""
        call = self._call
        if self._error is not None or len(self.raw) < call.count or call.out is not None:
            return None
        if call.feed is not None:
            return self.raw
        results = self._results()
        if call.raw:
            return collection_of(call, results.columns[0])
        (column, *more) = results.columns
        if more or results.wrap is not None or not isinstance(column, Stack):
            return None
        array, grid = column.array, call.grid
        if array.dtype.kind not in "?biufc" or not array.dtype.isnative:  # another dtype in a list
            return None
        if call.axis == (0,):
            return array
        array = array.reshape(*grid, *array.shape[1:])
        return np.ascontiguousarray(np.moveaxis(array, range(len(grid)), result_places(call.axis, array.ndim)))

    def outcome(self) -> tuple[Task, Outcome]:
        """What became of the elements, as one task."""
        found = len(self.raw)
        if self._error is None:
            try:
                return Task(0, found), Outcome(self._results(), self.seconds, begun=self._begun)
            except Exception as error:  # what cannot be put together
                self._error = error
                found -= 1
        return Task(0, found + 1), Outcome(None, self.seconds, index=found, error=self._error, begun=self._begun)

    def summary(self) -> tuple[Task, Outcome]:
        """As `outcome` of all elements, but without their results."""
        return Task(0, len(self.raw)), Outcome(None, self.seconds, begun=self._begun)

    def first(self) -> Results:
        """What the function gave for the first element."""
        return self._kernel.pack(self.raw[:1], range(1))

    def _results(self) -> Results:
        return self._kernel.pack(self.raw, range(len(self.raw)))
