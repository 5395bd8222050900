"""Puts the results of all tasks together, as ``np.asarray`` of the whole list would."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from ._call import Call, result_places
from ._layout import address_of
from ._results import Column, Results, Stack
from ._split import Task, boxes


class Assembler:
    """Takes results in any order and gives the array, or tuple of arrays.

    Parameters
    ----------
    call : Call
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._targets: list[_Target] = []
        self._wrap: type[tuple[Any, ...]] | None = None
        self._begun = False
        self._lock = threading.Lock()

    def add(self, task: Task, results: Results) -> None:
        """Take the results of `task`; their memory is free again afterwards."""
        with self._lock:
            if not self._begun:
                self._begin(task, results)
            if len(results.columns) != len(self._targets) or (results.wrap is None) != (self._wrap is None):
                raise ValueError(
                    f"func returned {_describe(results)} {self._call.name(task.lo, task.hi)}, "
                    f"but {len(self._targets)} {'in a tuple' if self._wrap else 'alone'} before"
                )
            for target, column in zip(self._targets, results.columns, strict=True):
                target.add(task, column)

    def _begin(self, task: Task, results: Results) -> None:
        out = self._call.out
        if out is not None and len(out) != len(results.columns):
            raise ValueError(
                f"func returned {_describe(results)}, but out has {len(out)} array(s); "
                "pass a tuple with one array per result"
            )
        self._wrap = results.wrap
        self._targets = [
            _Target(self._call, task, column, None if out is None else out[k])
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

    def finish(self) -> Any:
        """The whole result."""
        if not self._begun:  # no element, no call: what np.asarray([]) gives
            return self._empty()
        arrays = [target.finish() for target in self._targets]
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


def _describe(results: Results) -> str:
    return f"{len(results.columns)} result(s) {'in a tuple' if results.wrap else 'alone'}"


class _Target:
    """One array of the result.

    Results like the first one go straight to their rows. The others are kept
    as they came, and then dtype and shape are worked out from all at the end.
    """

    def __init__(self, call: Call, task: Task, first: Column, out: Any) -> None:
        self._call = call
        self._out = out
        self._block = call.bounds is not None
        self._odd: dict[int, tuple[int, Column]] = {}
        self._kind: Any = None
        self._array: Any = None
        self._rows: np.ndarray | None = None
        if isinstance(first, Stack) and (not self._block or self._keeps_length(task, first.array)):
            self._allocate(first)

    def _axis_of(self, ndim: int) -> int:
        """Where the mapped axis stands in a block of `ndim` dimensions."""
        axis = self._call.axis[0]
        if not -ndim <= axis < ndim:
            raise ValueError(
                f"a block function must keep the mapped axis {axis}, but its result has {ndim} dimension(s)"
            )
        return axis % ndim

    def _keeps_length(self, task: Task, block: np.ndarray) -> bool:
        """Whether results seem to be as long as their blocks, so that their places are known."""
        axis = self._axis_of(block.ndim)
        count = self._call.count
        fits = self._out is None or (len(self._out.shape) == block.ndim and self._out.shape[axis] == count)
        return fits and block.shape[axis] == len(task)

    def _allocate(self, first: Stack) -> None:
        """Make the array from the first result's dtype and shape."""
        call = self._call
        grid = call.grid
        twice = min(2, len(call.bounds) if call.bounds is not None else call.count)
        if self._block:
            axis = self._axis_of(first.array.ndim)
            self._places: tuple[int, ...] = (axis,)
            self._shape = (*first.array.shape[:axis], *first.array.shape[axis + 1 :])
            dtype = np.concatenate([np.empty(0, first.array.dtype)] * twice).dtype
        else:
            self._shape = first.array.shape[1:]
            self._places = result_places(call.axis, len(grid) + len(self._shape))
            dtype = first.array.dtype
            if not (dtype.isnative and dtype.kind in "?biufc"):  # others may become another type in a list
                dtype = np.asarray([np.zeros(1, dtype)] * twice).dtype
        self._kind = first.kind
        self._dtype = first.array.dtype
        self._fill = self._out
        if self._out is not None:
            self._check_out(dtype, self._full_shape())
        if self._out is None or self._overlaps():
            self._fill = np.empty(self._full_shape(), dtype)
        self._array = self._fill
        if isinstance(self._fill, np.ndarray):
            rows = self._fill.view(np.ndarray)
            if self._places != (0,):
                rows = _merged(np.moveaxis(rows, self._places, range(len(grid))), grid)
            self._rows = rows

    def _full_shape(self) -> tuple[int, ...]:
        shape = list(self._shape)
        for place, length in sorted(zip(self._places, self._call.grid, strict=True)):
            shape.insert(place, length)
        return tuple(shape)

    def _overlaps(self) -> bool:
        """Whether writing results would change what later calls of the function read."""
        if not isinstance(self._out, np.ndarray):
            return False
        call = self._call
        sources = [one.source for one in call.inputs if one.loaded]
        others = _arrays_within([*sources, *call.args, *call.kwargs.values(), *_closure(call.func)])
        return any(np.may_share_memory(self._out, other) for other in others)

    def _check_out(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        out = self._out
        if tuple(out.shape) != shape:
            raise ValueError(
                f"out has shape {tuple(out.shape)}, but the result has {shape}; pass out=np.empty({shape})"
            )
        if not np.can_cast(dtype, out.dtype, "same_kind"):
            raise TypeError(
                f"results of dtype {dtype} cannot be stored in out of dtype {out.dtype} (same_kind casting)"
            )

    def rows_for(self, lo: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray | None:
        """Rows of the final array, if stacks of `dtype` and `shape` go there unchanged."""
        rows = self._rows
        if rows is None or self._block or dtype != rows.dtype or rows.shape[1:] != shape:
            return None
        return rows[lo : lo + count]

    def add(self, task: Task, column: Column) -> None:
        """Take one column of a task's results."""
        if not self._fits(task, column):
            self._odd[task.lo] = (task.hi, _kept(column))
            return
        assert isinstance(column, Stack)
        stack = np.moveaxis(column.array, self._places[0], 0) if self._block else column.array
        rows = self._rows
        if rows is not None and rows.ndim == 1 + len(self._shape):
            own = rows[task.lo : task.hi]
            # Most are there already. may_share_memory would let go of the GIL,
            # and a small call would wait for another thread to give it back.
            if self._block or address_of(own) != address_of(stack):
                own[...] = stack
            return
        at = 0
        for index, count in boxes(task.lo, task.hi, self._call.grid):
            self._write(index, stack[at : at + count])
            at += count

    def _fits(self, task: Task, column: Column) -> bool:
        if self._kind is None or not isinstance(column, Stack) or column.kind != self._kind:
            return False
        shape = column.array.shape
        if self._block:
            axis = self._axis_of(len(shape))
            fits = axis == self._places[0] and shape[axis] == len(task)
            return fits and column.array.dtype == self._dtype and (*shape[:axis], *shape[axis + 1 :]) == self._shape
        return column.array.dtype == self._dtype and shape[1:] == self._shape

    def _write(self, index: tuple[slice, ...], part: np.ndarray) -> None:
        """Write a box of results to the array, or the file behind `out`."""
        if self._rows is not None:
            view = self._rows[index]
            view[...] = part.reshape(view.shape)
            return
        full: list[slice] = [slice(None)] * (len(index) + len(self._shape))
        lengths = []
        for place, one, n in zip(self._places, index, self._call.grid, strict=True):
            full[place] = one
            lengths.append(len(range(n)[one]))
        block = part.reshape(*lengths, *self._shape)
        self._fill[tuple(full)] = np.moveaxis(block, range(len(index)), self._places)

    def finish(self) -> Any:
        """The array, of a dtype and shape that hold all results."""
        if self._kind is not None and not self._odd:
            if self._out is None:
                return self._array
            if self._fill is not self._out:
                self._out[...] = self._fill
            return self._out
        whole = self._concatenated() if self._block else self._as_array()
        if self._out is None:
            return whole
        self._check_out(whole.dtype, whole.shape)
        self._out[...] = whole
        return self._out

    def _concatenated(self) -> np.ndarray:
        blocks = []
        for lo, hi in self._call.bounds or ():
            if lo in self._odd:
                column = self._odd[lo][1]
                assert isinstance(column, Stack)
                blocks.append(column.array)
            else:
                assert self._rows is not None
                part = self._rows[lo:hi].astype(self._dtype, copy=False)
                blocks.append(np.moveaxis(part, 0, self._places[0]))
        axis = self._axis_of(blocks[0].ndim)
        return np.concatenate(blocks, axis=axis)

    def _as_array(self) -> np.ndarray:
        """``np.asarray`` over the results of all elements, each as f gave it."""
        call = self._call
        raw: list[Any] = []
        for lo, (hi, column) in sorted(self._odd.items(), key=lambda item: item[0]):
            raw.extend(self._unstack(len(raw), lo))
            raw.extend(column.unstack() if isinstance(column, Stack) else column)
            assert len(raw) == hi
        raw.extend(self._unstack(len(raw), call.count))
        try:
            whole = np.asarray(raw)
        except ValueError as error:
            raise _ragged(call, raw, error) from error
        whole = whole.reshape(*call.grid, *whole.shape[1:])
        places = result_places(call.axis, whole.ndim)
        return np.ascontiguousarray(np.moveaxis(whole, range(len(call.grid)), places))

    def _unstack(self, lo: int, hi: int) -> list[Any]:
        """Results ``lo:hi`` of those that have gone to their rows."""
        if lo == hi:
            return []
        rows = self._rows
        if rows is None:  # a file behind `out`
            rows = np.moveaxis(np.asarray(self._fill[...]), self._places, range(len(self._places)))
        flat = rows.reshape(self._call.count, *self._shape)[lo:hi]
        return Stack(self._kind, flat.astype(self._dtype, copy=False)).unstack()


def _kept(column: Column) -> Column:
    """The column in memory of its own: the stack may lie in a slot."""
    return Stack(column.kind, column.array.copy()) if isinstance(column, Stack) else column


def _merged(rows: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """`rows` with its mapped axes made one, where that needs no copy."""
    if len(grid) == 1:
        return rows
    live = [(n, step) for n, step in zip(grid, rows.strides, strict=False) if n > 1]
    if any(outer != inner * n for (_, outer), (n, inner) in pairwise(live)):
        return rows
    step = live[-1][1] if live else 0
    shape = (math.prod(grid), *rows.shape[len(grid) :])
    return np.lib.stride_tricks.as_strided(rows, shape, (step, *rows.strides[len(grid) :]))


def _closure(func: Any) -> Iterator[Any]:
    """What a function has captured."""
    for cell in getattr(func, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            yield cell.cell_contents


def _arrays_within(values: Iterable[Any]) -> Iterator[np.ndarray]:
    """Arrays among some values, and in the lists and tuples among them."""
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, list | tuple):
            yield from _arrays_within(value)


def _ragged(call: Call, raw: list[Any], error: ValueError) -> ValueError:
    shapes = [np.shape(one) if isinstance(one, np.ndarray | np.generic) else None for one in raw]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            return ValueError(
                f"results cannot be stacked: shape {shapes[0]} {call.name(0)}, but {shape} {call.name(index)}; "
                "return one shape for all elements"
            )
    return ValueError(f"results cannot be stacked to one array: {error}")
