"""Results of all tasks put together, and the gaps where there are none."""

from __future__ import annotations

import threading
import warnings
from typing import Any, NamedTuple

import numpy as np

from ..errors import user_level
from .call import Call, result_axes
from .indexing import Task
from .layout import address_of
from .output_column import OutputColumn, gap_value
from .results import Column, Results, Stack

# So many indices are named in the warning.
NAMED = 20


class Gaps:
    """The gaps of one call.

    Parameters
    ----------
    call : Call
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._found: list[np.ndarray] = []
        # Index, end of its task, and reason of the first one.
        self._first: tuple[int, int, BaseException] | None = None
        self._lock = threading.Lock()

    def add(self, task: Task, gaps: np.ndarray, error: BaseException) -> None:
        """Note gaps in `task`; `error` is the reason of the first of them."""
        first = int(gaps[0])
        if self._call.vectorized:
            gaps = np.arange(task.lo, task.hi)
        with self._lock:
            self._found.append(gaps)
            if self._first is None or first < self._first[0]:
                self._first = first, task.hi, error

    def others(self, task: Task, gaps: np.ndarray | None) -> np.ndarray | None:
        """Indices of the results of `task` if it has gaps."""
        if gaps is None:
            return None
        every = np.arange(task.lo, task.hi)
        return every[~np.isin(every, gaps)]

    @property
    def indices(self) -> np.ndarray:
        """All gaps, in order."""
        if not self._found:
            return np.empty(0, np.intp)
        # Not np.unique, which imports numpy.ma: 0.1 s.
        every = np.sort(np.concatenate(self._found))
        return every[np.diff(every, prepend=-1) > 0]

    def warn(self) -> None:
        """Tell the user of the gaps, if there are any."""
        if self._first is None:
            return
        call, indices = self._call, self.indices
        index, stop, error = self._first
        named = ", ".join(str(call.public_index(int(one))) for one in indices[:NAMED])
        more = ", ..." if len(indices) > NAMED else ""
        what = "in blocks that cover" if call.vectorized else "for"
        try:
            reason = f"{type(error).__name__}: {error}"
        except Exception:
            reason = type(error).__name__
        warnings.warn(
            f"no result {what} {len(indices)} of {call.count} elements, which are gaps now: {named}{more}. "
            f"The first one, {call.name(index, stop)}: {reason}",
            RuntimeWarning,
            stacklevel=user_level(),
        )


class ArrayOutput:
    """Takes results in any order and gives the array, or tuple of arrays.

    Parameters
    ----------
    call : Call
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._targets: list[OutputColumn] = []
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
            OutputColumn(self._call, task, column, None if out is None else out[k])
            for k, column in enumerate(results.columns)
        ]
        self._begun = True

    def memory_for(self, lo: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
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
            places = result_axes(self._call.axis, len(grid))
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
        places = result_axes(call.axis, len(call.grid))
        return np.moveaxis(np.full(call.grid, np.nan), range(len(call.grid)), places)


def _describe(results: Results) -> str:
    return f"{len(results.columns)} result(s) {'in a tuple' if results.wrap else 'alone'}"


class RawResults(NamedTuple):
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


class RawOutput:
    """Takes results in any order, as `ArrayOutput` does, and changes none.

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

    def memory_for(self, lo: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Memory for arrays from `lo` on: that where they stay, if it fits."""
        rows = self._rows
        if rows is None or self._kind is not np.ndarray or dtype != rows.dtype or shape != rows.shape[1:]:
            return np.empty((count, *shape), dtype)
        return rows[lo : lo + count]

    def finish(self, gaps: np.ndarray) -> RawResults:
        """All results; `gaps` are the elements that have none."""
        grid = self._call.grid
        if self._rows is not None and not self._odd:
            return RawResults(self._rows.reshape(*grid, *self._rows.shape[1:]), self._kind, len(grid), gaps)
        every = np.empty(self._call.count, object)
        if self._rows is not None and self._filled is not None:
            at = np.flatnonzero(self._filled).tolist()
            _spread(every, at, _values(Stack(self._kind, self._rows[self._filled])))
        for indices, values in self._odd:
            _spread(every, indices, values)
        return RawResults(every.reshape(grid), None, len(grid), gaps)


def raw_results(call: Call, column: Column) -> RawResults:
    """The results of a call whose only task is at hand."""
    collector = RawOutput(call)
    collector.add(Task(0, call.count), Results([column]))
    return collector.finish(np.empty(0, np.intp))


def _values(column: Column) -> list[Any]:
    """Single results, in memory of their own."""
    if isinstance(column, Stack):
        return RawResults(column.array.copy(), column.kind, 1, np.empty(0, np.intp)).values()
    return column


def _spread(every: np.ndarray, indices: list[int], values: list[Any]) -> None:
    """Put single results to their places; an array among them is one of them."""
    for index, value in zip(indices, values, strict=True):
        every[index] = value


class ListOutput:
    """Puts the results of all tasks together to a list."""

    def __init__(self) -> None:
        self._results: dict[int, Any] = {}
        self._lock = threading.Lock()

    def memory_for(self, lo: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Memory for results that are stacked."""
        return np.empty((count, *shape), dtype)

    def __contains__(self, index: int) -> bool:
        return index in self._results

    def pop_results(self, index: int) -> list[Any]:
        """Hand over the results from `index` on that are there, which are not kept."""
        found = self._results
        with self._lock:
            stop = index
            while stop in found:
                stop += 1
            return [found.pop(k) for k in range(index, stop)]

    def add(self, task: Task, results: Results, indices: np.ndarray | None = None) -> None:
        """Take the results of `task`, or of some `indices` in it."""
        (column,) = results.columns
        values = column.unstack() if isinstance(column, Stack) else column
        with self._lock:
            found = range(task.lo, task.hi) if indices is None else indices.tolist()
            self._results.update(zip(found, values, strict=True))

    def skip(self, gaps: np.ndarray) -> None:
        """Have None where there is no result."""
        with self._lock:
            self._results.update(dict.fromkeys(gaps.tolist()))

    def finish(self, gaps: np.ndarray) -> list[Any]:
        """All results in order."""
        found = self._results
        return [found[k] for k in range(len(found))]
