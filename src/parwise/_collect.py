"""Puts the results of all tasks together as the function gave them, for whoever has other rules for arrays."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from ._call import Call
from ._layout import address_of
from ._results import Column, Results, Stack
from ._split import Task


class Collection(NamedTuple):
    """What the function gave for each element.

    Attributes
    ----------
    array : ndarray
        The mapped axes, and behind them those of the results if all are of one
        kind; else Python objects, each as it came.
    kind : type or None
        The results' type if all are of one type, dtype and shape.
    mapped : int
        Number of mapped axes.
    gaps : ndarray
        Flat indices of elements without a result; what `array` has there is no
        value.
    """

    array: np.ndarray
    kind: type | None
    mapped: int
    gaps: np.ndarray

    def values(self) -> list[Any]:
        """The results in order, each as the function gave it."""
        flat = self.array.reshape(-1, *self.array.shape[self.mapped :])
        if self.kind in (None, float, int, bool, complex):
            return flat.tolist()  # type: ignore[no-any-return]
        if self.kind is np.ndarray and flat.ndim == 1:  # a list of it would hold scalars
            return [flat[k, ...] for k in range(len(flat))]
        return list(flat)


class Collector:
    """Takes results in any order, as `Assembler` does, and changes none.

    Parameters
    ----------
    call : Call
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._kind: Any = None
        self._rows: np.ndarray | None = None
        # What is not like the first: indices, and results.
        self._odd: list[tuple[list[int], list[Any]]] = []
        # Which rows hold a result.
        self._filled: np.ndarray | None = None
        self._lock = threading.Lock()

    def add(self, task: Task, results: Results, indices: np.ndarray | None = None) -> None:
        """Take the results of `task`, or of some of its elements; their memory is free again afterwards."""
        (column,) = results.columns
        where: Any = slice(task.lo, task.hi) if indices is None else indices
        with self._lock:
            if isinstance(column, Stack) and self._rows is None and not self._odd:
                self._kind = column.kind
                self._rows = np.empty((self._call.count, *column.array.shape[1:]), column.array.dtype)
                self._filled = np.zeros(self._call.count, bool)
            rows, filled = self._rows, self._filled
            if isinstance(column, Stack) and rows is not None and filled is not None and self._fits(column):
                filled[where] = True
                # Most are there already.
                if indices is not None or address_of(rows[where]) != address_of(column.array):
                    rows[where] = column.array
                return
            every = range(task.lo, task.hi) if indices is None else indices.tolist()
            self._odd.append((list(every), _values(column)))

    def _fits(self, column: Stack) -> bool:
        rows = self._rows
        assert rows is not None
        array = column.array
        return bool(column.kind == self._kind and array.dtype == rows.dtype and array.shape[1:] == rows.shape[1:])

    def place(self, lo: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Memory for arrays from `lo` on: that where they stay, if it fits."""
        rows = self._rows
        if rows is None or self._kind is not np.ndarray or dtype != rows.dtype or shape != rows.shape[1:]:
            return np.empty((count, *shape), dtype)
        return rows[lo : lo + count]

    def finish(self, gaps: np.ndarray) -> Collection:
        """All results; `gaps` are the elements that have none."""
        grid = self._call.grid
        if self._rows is not None and not self._odd:
            return Collection(self._rows.reshape(*grid, *self._rows.shape[1:]), self._kind, len(grid), gaps)
        every = np.empty(self._call.count, object)
        if self._rows is not None and self._filled is not None:
            at = np.flatnonzero(self._filled).tolist()
            _spread(every, at, _values(Stack(self._kind, self._rows[self._filled])))
        for indices, values in self._odd:
            _spread(every, indices, values)
        return Collection(every.reshape(grid), None, len(grid), gaps)


def collection_of(call: Call, column: Column) -> Collection:
    """The results of a call whose only task is at hand."""
    collector = Collector(call)
    collector.add(Task(0, call.count), Results([column]))
    return collector.finish(np.empty(0, np.intp))


def _values(column: Column) -> list[Any]:
    """Single results, in memory of their own."""
    if isinstance(column, Stack):
        return Collection(column.array.copy(), column.kind, 1, np.empty(0, np.intp)).values()
    return column


def _spread(every: np.ndarray, indices: list[int], values: list[Any]) -> None:
    """Put single results to their places; an array among them is one of them."""
    for index, value in zip(indices, values, strict=True):
        every[index] = value
