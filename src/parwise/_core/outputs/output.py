"""Results of all tasks: as arrays, raw or as a list."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ..call import Call, Told, result_axes
from ..indexing import Task
from ..results import Column, Results, Stack, tuple_of, unstacked
from .column import OutputColumn
from .gaps import gap_value
from .sink import FileSink

# Number of results that have been popped before their places are freed.
MOST_POPPED = 1000


class Output(ABC):
    """Puts the results of all tasks of a call together, in whatever order they come."""

    #: The type of tuple that results are, if they are tuples.
    wrap: type[tuple[Any, ...]] | None = None

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lock = threading.Lock()

    def memory_for(self, lo: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Memory for arrays from element `lo` on: the final array's own, where it fits."""
        return np.empty((count, *shape), dtype)

    @property
    def targets(self) -> list[tuple[np.ndarray | None, Any]]:
        """Memory for the results of all elements, of each column, and their kind; None where they may not fit."""
        return []

    @property
    def sinks(self) -> list[FileSink]:
        """Files behind `out`."""
        return []

    @abstractmethod
    def add(self, task: Task, results: Results, indices: np.ndarray | None = None) -> None:
        """Take the results of `task`, or of some `indices` of it; their memory is free again afterwards."""

    def skip(self, gaps: np.ndarray) -> None:  # noqa: B027 - raw results learn of gaps at the end
        """Note elements that will have no result."""

    def flush(self) -> None:  # noqa: B027 - only files hold something back
        """Write what is held, of a call that has ended, perhaps before its end."""

    @abstractmethod
    def finish(self, gaps: np.ndarray) -> Any:
        """Return the whole result; `gaps` are the elements without one."""


class ArrayOutput(Output):
    """The results as one array, or as a tuple of arrays."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._columns: list[OutputColumn] = []
        self._begun = False
        # Those before the first result.
        self._early_gaps: list[np.ndarray] = []

    def memory_for(self, lo: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Memory for arrays from element `lo` on: the final array's own, where it fits."""
        if len(self._columns) == 1 and self.wrap is None:
            own = self._columns[0].rows_for(lo, count, dtype, shape)
            if own is not None:
                return own
        return super().memory_for(lo, count, dtype, shape)

    @property
    def targets(self) -> list[tuple[np.ndarray | None, Any]]:
        """Memory for the results of all elements, of each column, and their kind; None where they may not fit."""
        return [column.target for column in self._columns] if self._begun else []

    @property
    def sinks(self) -> list[FileSink]:
        """Files behind `out`."""
        return [column.sink for column in self._columns if column.sink is not None]

    def add(self, task: Task, results: Results, indices: np.ndarray | None = None) -> None:
        """Write the results of `task` to the arrays."""
        with self._lock:
            self._add(task, results, indices)

    def _add(self, task: Task, results: Results, indices: np.ndarray | None) -> None:
        if not self._begun:
            self._make_columns(task, results)
        if not self._is_like_columns(results):
            raise ValueError(
                f"func returned {_describe(results)} {self._call.name(task.lo, task.hi)}, "
                f"but {len(self._columns)} {'in a tuple' if self.wrap else 'alone'} before"
            )
        for own, column in zip(self._columns, results.columns, strict=True):
            own.add(task, column, indices)

    def _is_like_columns(self, results: Results) -> bool:
        return len(results.columns) == len(self._columns) and (results.wrap is None) == (self.wrap is None)

    @property
    def like(self) -> Results | None:
        """No results, of the kinds that go to the arrays at once; None if that is not known, or some do not."""
        columns: list[Column] = [like for one in self._columns if (like := one.like) is not None]
        return Results(columns, self.wrap) if self._begun and len(columns) == len(self._columns) else None

    def begin(self, like: Results) -> None:
        """Make arrays for results like those of an earlier run, as its `like` told them."""
        self._make_columns(Task(0, 0), like)

    def holds(self, task: Task) -> bool:
        """True if the results of a task that was added are in the arrays already."""
        return all(one.holds(task) for one in self._columns)

    def _make_columns(self, task: Task, results: Results) -> None:
        out = self._call.out
        if out is not None and len(out) != len(results.columns):
            raise ValueError(
                f"func returned {_describe(results)}, but out has {len(out)} array(s); "
                "pass a tuple with one array per result"
            )
        self.wrap = results.wrap
        self._columns = [
            self._make_column(task, column, None if out is None else out[k]) for k, column in enumerate(results.columns)
        ]
        self._begun = True
        for gaps in self._early_gaps:
            self._skip(gaps)

    def _make_column(self, task: Task, first: Column, out: Any) -> OutputColumn:
        if self._call.block_grid is None:
            return OutputColumn(self._call, task, first, out)
        from .block_column import BlockGridColumn  # most calls do without

        return BlockGridColumn(self._call, self._call.block_grid, task, first, out)

    def skip(self, gaps: np.ndarray) -> None:
        """Note elements that will have no result."""
        with self._lock:
            if self._begun:
                self._skip(gaps)
            else:
                self._early_gaps.append(gaps)

    def _skip(self, gaps: np.ndarray) -> None:
        for column in self._columns:
            column.skip(gaps)

    def flush(self) -> None:
        """Write what is held for files, of a call that has ended, perhaps before its end."""
        with self._lock:
            for column in self._columns:
                column.flush()

    @property
    def writing(self) -> threading.Lock:
        """Held while results are written: to write two parts of a chunk of a file at a time would lose one of them."""
        return self._lock

    def settle(self, runs: Iterable[tuple[int, int]]) -> None:
        """Write what is held for files of the elements in some runs."""
        with self._lock:
            for sink in self.sinks:
                for lo, hi in runs:
                    sink.settle(lo, hi)

    def finish(self, gaps: np.ndarray) -> Any:
        """Return the array or arrays."""
        if not self._begun and self._call.told is not None:
            return self._as_told(self._call.told(), len(gaps) > 0)
        if not self._begun and len(gaps):
            return self._all_gaps()
        if not self._begun:  # no element, no call: np.asarray([])
            return self._empty()
        arrays = [column.finish(gaps) for column in self._columns]
        return arrays[0] if self.wrap is None else tuple_of(self.wrap, arrays)

    def _empty(self) -> Any:
        out = self._call.out
        if out is None:
            grid = self._call.grid
            axes = result_axes(self._call.axis, len(grid))
            return np.moveaxis(np.asarray([]).reshape(grid), range(len(grid)), axes)
        return out[0] if len(out) == 1 else out

    def _as_told(self, told: Told, missing: bool) -> Any:
        """Arrays of the shapes and dtypes that were told, which no result has shown; `missing` if all are gaps."""
        arrays = []
        for shape, dtype in zip(told.shapes, told.dtypes, strict=True):
            own, value = gap_value(np.dtype(dtype)) if missing else (np.dtype(dtype), np.zeros((), dtype))
            array = np.full((*self._call.grid, *shape), value, own)
            axes = self._call.result_axes(array.ndim)
            arrays.append(np.moveaxis(array, range(len(axes)), axes))
        return tuple(arrays) if told.in_tuple else arrays[0]

    def _all_gaps(self) -> Any:
        """NaN for every element: no result tells the dtype or shape."""
        call = self._call
        if call.out is not None:
            for target in call.out:
                target[...] = gap_value(target.dtype)[1]
            return call.out[0] if len(call.out) == 1 else call.out
        if call.vectorized:
            return np.full(call.inputs[0].source.shape, np.nan)
        axes = result_axes(call.axis, len(call.grid))
        return np.moveaxis(np.full(call.grid, np.nan), range(len(call.grid)), axes)


def _describe(results: Results) -> str:
    return f"{len(results.columns)} result(s) {'in a tuple' if results.wrap else 'alone'}"


class RawResults(NamedTuple):
    """The results of all elements, as the function returned them.

    Attributes
    ----------
    array : ndarray
        If all results are of one kind: their values, with the mapped axes
        first. Otherwise an array of the objects themselves.
    kind : type or None
        The type of the results, if all are of one type, dtype and shape.
    mapped : int
        Number of mapped axes.
    gaps : ndarray
        Flat indices of elements without a result; there `array` has no value.
    """

    array: np.ndarray
    kind: type | None
    mapped: int
    gaps: np.ndarray

    def values(self) -> list[Any]:
        """The results in order, each as the function returned it."""
        lengths, shape = self.array.shape[: self.mapped], self.array.shape[self.mapped :]
        flat = self.array.reshape(math.prod(lengths), *shape)  # -1 would be unknown for results without values
        return flat.tolist() if self.kind is None else Stack(self.kind, flat).unstack()


def raw_results(call: Call, column: Column, gaps: np.ndarray | None = None) -> RawResults:
    """The results of all elements of a call, in order and in memory of their own."""
    if isinstance(column, Stack):
        kind, array = column.kind, column.array
    else:
        kind, array = None, np.fromiter(column, object, len(column))  # keeps lists and arrays as objects
    grid = call.grid
    return RawResults(
        array.reshape(*grid, *array.shape[1:]), kind, len(grid), np.empty(0, np.intp) if gaps is None else gaps
    )


class RawOutput(ArrayOutput):
    """The results as the function returned them: `RawResults`."""

    def finish(self, gaps: np.ndarray) -> RawResults:
        """Return all results."""
        if not self._begun:
            return raw_results(self._call, [None] * self._call.count, gaps)
        return raw_results(self._call, self._columns[0].unchanged(gaps), gaps)


class ListOutput(Output):
    """The results as a list, or one after another."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        # Results of all elements from `_begin` on; and later ones, by the first element of each list.
        self._front: list[Any] = []
        self._begin = 0
        #: Number of results that were taken one after another.
        self.taken = 0
        self._later: dict[int, list[Any]] = {}

    def is_ready(self, limit: float) -> bool:
        """True if the next result is there, and before element `limit`."""
        return self.taken < self._begin + len(self._front) and self.taken < limit

    def ends_at(self, limit: float) -> bool:
        """True if no result before element `limit` is left to be taken."""
        return self.taken >= limit

    def pop(self) -> Any:
        """Remove and return the next result; nothing keeps it afterwards."""
        with self._lock:
            at = self.taken - self._begin
            result, self._front[at] = self._front[at], None
            self.taken += 1
            if at + 1 == len(self._front) or at > MOST_POPPED:
                del self._front[: at + 1]
                self._begin = self.taken
            return result

    def take_front(self, count: int) -> list[Any] | None:
        """Remove and return the results of the first `count` elements; None if these are not all results."""
        if self._later or self._begin or len(self._front) != count:
            return None
        front, self._front = self._front, []
        return front

    def adopt(self, results: list[Any]) -> None:
        """Take a list of the first results as it is."""
        with self._lock:
            self._front = results
            self._append(len(results), [])

    def add(self, task: Task, results: Results, indices: np.ndarray | None = None) -> None:
        """Keep the results of `task`."""
        (column,) = results.columns
        values = unstacked(column)
        with self._lock:
            if indices is None:
                self._append(task.lo, values)
            else:
                for index, value in zip(indices.tolist(), values, strict=True):
                    self._append(index, [value])

    def skip(self, gaps: np.ndarray) -> None:
        """Put None where there is no result."""
        with self._lock:
            for index in gaps.tolist():
                self._append(index, [None])

    def _append(self, index: int, values: list[Any]) -> None:
        front = self._front
        if index != self._begin + len(front):
            self._later[index] = values
            return
        # The caller's own results come in order: as fast as in one list.
        front += values
        while self._later and (more := self._later.pop(self._begin + len(front), None)) is not None:
            front += more

    def finish(self, gaps: np.ndarray) -> list[Any]:
        """Return all results in order."""
        return self._front
