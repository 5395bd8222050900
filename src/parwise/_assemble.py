"""Puts the results of all tasks together, as ``np.asarray`` of the whole list would."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ._call import Call, result_places
from ._gaps import gap_value
from ._results import Results
from ._split import Task
from ._target import Target


class Assembler:
    """Takes results in any order and gives the array, or tuple of arrays.

    Parameters
    ----------
    call : Call
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._targets: list[Target] = []
        self._wrap: type[tuple[Any, ...]] | None = None
        self._begun = False
        self._lock = threading.Lock()

    def add(self, task: Task, results: Results, indices: np.ndarray | None = None) -> None:
        """Take the results of `task`; their memory is free again afterwards.

        Parameters
        ----------
        task : Task
        results : Results
        indices : ndarray, optional
            The elements that they belong to, if not to all of the task's.
        """
        with self._lock:
            if not self._begun:
                self._begin(task, results)
            if len(results.columns) != len(self._targets) or (results.wrap is None) != (self._wrap is None):
                raise ValueError(
                    f"func returned {_describe(results)} {self._call.name(task.lo, task.hi)}, "
                    f"but {len(self._targets)} {'in a tuple' if self._wrap else 'alone'} before"
                )
            for target, column in zip(self._targets, results.columns, strict=True):
                target.add(task, column, indices)

    def _begin(self, task: Task, results: Results) -> None:
        out = self._call.out
        if out is not None and len(out) != len(results.columns):
            raise ValueError(
                f"func returned {_describe(results)}, but out has {len(out)} array(s); "
                "pass a tuple with one array per result"
            )
        self._wrap = results.wrap
        self._targets = [
            Target(self._call, task, column, None if out is None else out[k])
            for k, column in enumerate(results.columns)
        ]
        self._begun = True

    def place(self, lo: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Memory for results from `lo` on: the final array's own, where it fits."""
        if len(self._targets) == 1 and self._wrap is None:
            own = self._targets[0].rows_for(lo, count, dtype, shape)
            if own is not None:
                return own
        return np.empty((count, *shape), dtype)

    def finish(self, gaps: np.ndarray) -> Any:
        """The whole result; `gaps` are the elements that have none."""
        if not self._begun and len(gaps):
            return self._all_gaps()
        if not self._begun:  # no element, no call: what np.asarray([]) gives
            return self._empty()
        arrays = [target.finish(gaps) for target in self._targets]
        if self._wrap is None:
            return arrays[0]
        make = getattr(self._wrap, "_make", self._wrap)  # named tuples take items one by one
        return make(arrays)

    def _empty(self) -> Any:
        out = self._call.out
        if out is None:
            grid = self._call.grid
            places = result_places(self._call.axis, len(grid))
            return np.moveaxis(np.asarray([]).reshape(grid), range(len(grid)), places)
        return out[0] if len(out) == 1 else out

    def _all_gaps(self) -> Any:
        """NaN for every element, as nothing is known of the results."""
        call = self._call
        if call.out is not None:
            for target in call.out:
                target[...] = gap_value(target.dtype)[1]
            return call.out[0] if len(call.out) == 1 else call.out
        if call.vectorized:
            return np.full(call.inputs[0].source.shape, np.nan)
        places = result_places(call.axis, len(call.grid))
        return np.moveaxis(np.full(call.grid, np.nan), range(len(call.grid)), places)


def _describe(results: Results) -> str:
    return f"{len(results.columns)} result(s) {'in a tuple' if results.wrap else 'alone'}"
