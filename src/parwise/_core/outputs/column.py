"""One array of the result, filled task by task; and the values of gaps."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ..call import Call, result_axes
from ..indexing import Task, boxes
from ..layout import address_of
from ..results import SCALARS, Column, Stack, owned_column, unstacked
from .casts import loss_by_cast, may_cut, read_back
from .gaps import gap_in, gap_value
from .overlap import overlaps
from .sink import FileSink, Written, as_stack, write_whole


class OutputColumn:
    """One array of the result.

    Results like the first are written to the array at once. If any is different,
    it is kept as it is, and the dtype and shape follow from all at the end.

    Parameters
    ----------
    task : Task
        The task of the first results.
    first : Column
        These results.
    out : array or None
        The user's array to fill.
    """

    def __init__(self, call: Call, task: Task, first: Column, out: Any) -> None:
        self._call = call
        self._out = out
        self._block = call.bounds is not None
        # Results unlike the first, by the start of their task: indices, and column.
        self._unlike: dict[int, tuple[np.ndarray, Column]] = {}
        self._kind: Any = None
        self._dtype = first.array.dtype if isinstance(first, Stack) else np.dtype(object)
        self._array: Any = None
        self._axes: tuple[int, ...] = ()
        self._shape: tuple[int, ...] = ()
        self._rows: np.ndarray | None = None
        self._may_cut = False
        #: Where results go that belong to a file.
        self.sink: FileSink | None = None
        if isinstance(first, Stack) and isinstance(first.kind, Written):
            first = as_stack(first)
        if isinstance(first, Stack) and (not self._block or self._keeps_length(task, first.array)):
            self._allocate(first)

    def _axes_of(self, ndim: int) -> tuple[int, ...]:
        """Positions of the mapped axes in a block of `ndim` dimensions."""
        for axis in self._call.axis:
            if not -ndim <= axis < ndim:
                raise ValueError(
                    f"a block function must keep the mapped axis {axis}, but its result has {ndim} dimension(s); "
                    "return an array with that axis, or leave out vectorized=True if func takes one element"
                )
        return tuple(axis % ndim for axis in self._call.axis)

    def _keeps_length(self, task: Task, block: np.ndarray) -> bool:
        """True if the first result is as long as its block, so that rows of the array are known for all."""
        if self._call.block_grid is not None:  # this was checked when the halo was cut off
            return True
        axis = self._axes_of(block.ndim)[0]
        count = self._call.count
        fits = self._out is None or (len(self._out.shape) == block.ndim and self._out.shape[axis] == count)
        return fits and block.shape[axis] == len(task)

    def _allocate(self, first: Stack) -> None:
        """Allocate the array by the dtype and shape of the first results."""
        call = self._call
        grid = call.grid
        twice = min(2, len(call.bounds) if call.bounds is not None else call.count)
        if self._block:
            self._axes = self._axes_of(first.array.ndim)
            self._shape = _without(first.array.shape, self._axes)
            dtype = np.concatenate([np.empty(0, first.array.dtype)] * twice).dtype
        else:
            self._shape = first.array.shape[1:]
            self._axes = call.result_axes(len(grid) + len(self._shape))
            dtype = first.array.dtype
            # In a list, results of other dtypes may become another one.
            if call.form != "raw" and not (dtype.isnative and dtype.kind in "?biufc"):
                dtype = np.asarray([np.zeros(1, dtype)] * twice).dtype
        self._kind = first.kind
        self._fill = self._out
        if self._out is not None:
            check_out(self._out, dtype, self._full_shape())
            self._may_cut = may_cut(dtype, self._out)
        if self._out is None or overlaps(self._out, call):
            self._fill = np.empty(self._full_shape(), dtype)
        self._array = self._fill
        if isinstance(self._fill, np.ndarray):
            rows = self._fill.view(np.ndarray)
            if self._axes != (0,):
                rows = np.moveaxis(rows, self._axes, range(len(grid)))
                rows = rows if self._block else _merged(rows, grid)
            self._rows = rows
        else:
            self.sink = self._make_sink()

    def _make_sink(self) -> FileSink:
        call, out = self._call, self._out
        return FileSink(out, call.result_axes(len(out.shape)), call.grid, self._dtype, call.held_bytes)

    def _full_shape(self) -> tuple[int, ...]:
        shape = list(self._shape)
        for axis, length in sorted(zip(self._axes, self._call.grid, strict=True)):
            shape.insert(axis, length)
        return tuple(shape)

    def rows_for(self, lo: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray | None:
        """Rows of the final array, if it holds results of `dtype` and `shape` unchanged."""
        rows = self._rows
        if rows is None or self._block or dtype != rows.dtype or rows.shape[1:] != shape:
            return None
        return rows[lo : lo + count]

    @property
    def target(self) -> tuple[np.ndarray | None, Any]:
        """Memory for the results of all elements, one behind another, and their kind; None if they may not fit."""
        rows = self._rows
        known = self._kind in (np.ndarray, "block") or self._kind in SCALARS
        if rows is None or not known or rows.dtype != self._dtype:
            return None, self._kind
        plain = rows.ndim == 1 + len(self._shape) and rows.dtype.kind in "?biufcmMSU" and rows.dtype.metadata is None
        block = self._kind == "block" and self._axes != (0,)
        return rows if plain and not block and rows.flags.c_contiguous and rows.flags.writeable else None, self._kind

    @property
    def like(self) -> Stack | None:
        """No results, of the kind that goes to the array at once; None if none does."""
        if self._kind is None:
            return None
        shape = list(self._shape)
        for axis in sorted(self._axes) if self._block else (0,):
            shape.insert(axis, 0)
        return Stack(self._kind, np.empty(shape, self._dtype))

    def holds(self, task: Task) -> bool:
        """True if the results of a task that was added are in the array already."""
        return self._kind is not None and task.lo not in self._unlike

    def add(self, task: Task, column: Column, indices: np.ndarray | None = None) -> None:
        """Take one column of a task's results: those of all its elements, or of `indices`."""
        if isinstance(column, Stack) and isinstance(column.kind, Written):
            self._take_written(task, column)
            return
        if not self._fits(task, column):
            self._unlike[task.lo] = (np.arange(task.lo, task.hi) if indices is None else indices, owned_column(column))
            return
        assert isinstance(column, Stack)
        stack = np.moveaxis(column.array, self._axes[0], 0) if self._block else column.array
        rows = self._rows
        if indices is not None:
            self._scatter(indices, stack)
        elif self.sink is not None:
            self.sink.put(task.lo, stack)
        elif rows is not None and rows.ndim == 1 + len(self._shape):
            own = rows[task.lo : task.hi]
            # Most are there already. may_share_memory would release the GIL, and a
            # small call would wait until another thread releases it.
            if own.strides != stack.strides or address_of(own) != address_of(stack):
                own[...] = stack
        else:
            at = 0
            for index, count in boxes(task.lo, task.hi, self._call.grid):
                self._write(index, stack[at : at + count])
                at += count

    def _take_written(self, task: Task, column: Stack) -> None:
        """Take note of results that another process has written to `out`; those unlike the first are needed again."""
        like = as_stack(column)
        if self.sink is not None and self._fits(task, like):
            self.sink.note(task.lo, task.hi)
            return
        rows = read_back(self._make_sink().read_rows(task.lo, task.hi), like.array.dtype)
        if self._block:
            rows = np.moveaxis(rows, 0, self._axes_of(rows.ndim)[0])
        self._unlike[task.lo] = (np.arange(task.lo, task.hi), Stack(like.kind, rows))

    def _scatter(self, indices: np.ndarray, stack: np.ndarray) -> None:
        """Write the results of single elements to the array."""
        rows = self._rows
        if self.sink is not None:
            self.sink.put_each(indices, stack)
        elif rows is not None and rows.ndim == 1 + len(self._shape):
            rows[indices] = stack
        else:
            for at, index in enumerate(indices.tolist()):
                for box, _ in boxes(index, index + 1, self._call.grid):
                    self._write(box, stack[at : at + 1])

    def skip(self, gaps: np.ndarray) -> None:
        """Take note of elements without a result: the chunks of a file that they are in wait for nothing else."""
        self._fill_gaps(gaps)

    def _fill_gaps(self, gaps: np.ndarray) -> None:
        if self.sink is not None:
            self.sink.fill(gaps, gap_in(self._out, self._dtype)[1])

    def flush(self) -> None:
        """Write what is held, after an error too."""
        if self.sink is not None:
            self.sink.flush()

    def _fits(self, task: Task, column: Column) -> bool:
        if self._kind is None or not isinstance(column, Stack) or column.kind != self._kind:
            return False
        if self._may_cut and loss_by_cast(column.array, self._out.dtype):
            return False  # kept, for the error at the end
        shape = column.array.shape
        if self._block:
            axes = self._axes_of(len(shape))
            fits = axes == self._axes and (len(axes) > 1 or shape[axes[0]] == len(task))
            return fits and column.array.dtype == self._dtype and _without(shape, axes) == self._shape
        return column.array.dtype == self._dtype and shape[1:] == self._shape

    def _write(self, index: tuple[slice, ...], part: np.ndarray) -> None:
        """Write a box of results to the array."""
        assert self._rows is not None
        view = self._rows[index]
        view[...] = part.reshape(view.shape)

    @property
    def _uniform(self) -> bool:
        """True if all results so far are like the first."""
        return self._kind is not None and not self._unlike

    def unchanged(self, gaps: np.ndarray) -> Column:
        """The results of all elements as the function returned them; no value in `gaps`."""
        if not self._uniform:
            return self._listed(gaps)
        assert self._rows is not None  # raw results go to no file
        return Stack(self._kind, self._rows.astype(self._dtype, copy=False))

    def finish(self, gaps: np.ndarray) -> Any:
        """Return the array, of a dtype and shape that hold all results and `gaps`."""
        if self._uniform:
            if self._out is None:
                return self._with_gaps(gaps) if len(gaps) else self._array
            if self._fill is not self._out:
                write_whole(self._out, self._fill)
            if self.sink is None and len(gaps):
                self.sink = self._make_sink()
                self._fill_gaps(gaps)
            self.flush()
            return self._out
        self.flush()
        whole = self._concatenated(gaps) if self._block else self._as_array(gaps)
        if self._out is None:
            return whole
        check_out(self._out, whole.dtype, whole.shape)
        write_whole(self._out, whole)
        return self._out

    def _with_gaps(self, gaps: np.ndarray) -> np.ndarray:
        """Write gaps to the array, cast to a dtype that can hold them."""
        grid = self._call.grid
        array: np.ndarray = self._array
        index = np.unravel_index(gaps, grid)
        dtype, value = gap_value(array.dtype)
        if dtype != array.dtype:
            # The memory of a gap may hold no valid value.
            np.moveaxis(array, self._axes, range(len(grid)))[index] = np.zeros((), array.dtype)
            array = array.astype(dtype)
        np.moveaxis(array, self._axes, range(len(grid)))[index] = value
        return array

    def _concatenated(self, gaps: np.ndarray) -> np.ndarray:
        """Concatenate all blocks; a missing one is a gap as long as the block."""
        missing = set(gaps.tolist())
        blocks: dict[int, np.ndarray] = {}
        bounds, rows = self._call.bounds or [], self._written_rows()
        for lo, hi in bounds:
            if lo in self._unlike:
                column = self._unlike[lo][1]
                assert isinstance(column, Stack)
                blocks[lo] = column.array
            elif lo not in missing:
                part = read_back(rows[lo:hi], self._dtype)
                blocks[lo] = np.moveaxis(part, 0, self._axes[0])
        like = next(iter(blocks.values()))
        axis = self._axes_of(like.ndim)[0]
        dtype, value = gap_value(like.dtype)

        def gap(length: int) -> np.ndarray:
            return np.full((*like.shape[:axis], length, *like.shape[axis + 1 :]), value, dtype)

        return np.concatenate([blocks[lo] if lo in blocks else gap(hi - lo) for lo, hi in bounds], axis=axis)

    def _as_array(self, gaps: np.ndarray) -> np.ndarray:
        """``np.asarray`` of the results of all elements, each as the function returned it."""
        call = self._call
        every = self._listed(gaps)
        found = np.delete(np.arange(call.count), gaps)
        raw = [every[index] for index in found.tolist()] if len(gaps) else every
        try:
            whole = np.asarray(raw)
        except ValueError as error:
            raise _ragged(call, raw, found, error) from error
        if len(gaps):
            dtype, value = gap_value(whole.dtype)
            if self._out is not None and np.can_cast(whole.dtype, self._out.dtype, "same_kind"):
                dtype, value = gap_in(self._out, whole.dtype)
            full = np.full((call.count, *whole.shape[1:]), value, dtype)
            full[found] = whole
            whole = full
        whole = whole.reshape(*call.grid, *whole.shape[1:])
        axes = result_axes(call.axis, whole.ndim)
        return np.ascontiguousarray(np.moveaxis(whole, range(len(call.grid)), axes))

    def _listed(self, gaps: np.ndarray) -> list[Any]:
        """The single results of all elements, with None in `gaps`."""
        every: list[Any] = [None] * self._call.count
        rest = np.ones(self._call.count, bool)
        rest[gaps] = False
        for indices, column in self._unlike.values():
            rest[indices] = False
            _spread(every, indices, column)
        if rest.any():
            _spread(every, np.flatnonzero(rest), self._stacked(rest))
        return every

    def _written_rows(self) -> Any:
        """All that was written to the array, with the mapped axes first; a file is read. None if nothing was."""
        return self._rows if self.sink is None else self.sink.read()

    def _stacked(self, chosen: np.ndarray) -> Stack:
        """The `chosen` results among those written to the array."""
        flat = self._written_rows().reshape(self._call.count, *self._shape)[chosen]
        return Stack(self._kind, read_back(flat, self._dtype))


def check_out(out: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise if `out` cannot hold results of `dtype` and `shape`."""
    if tuple(out.shape) != shape:
        raise ValueError(f"out has shape {tuple(out.shape)}, but the result has {shape}; pass out=np.empty({shape})")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(
            f"results of dtype {dtype} cannot be stored in out of dtype {out.dtype} by same_kind casting; "
            f"pass an out of dtype {dtype}, or cast in func"
        )


def _spread(every: list[Any], indices: np.ndarray, column: Column) -> None:
    """Store the single results of a column at `indices` of a list."""
    for index, value in zip(indices.tolist(), unstacked(column), strict=True):
        every[index] = value


def _without(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for axis, n in enumerate(shape) if axis not in axes)


def _merged(rows: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """`rows` with its mapped axes merged to one, if that needs no copy."""
    if len(grid) == 1:
        return rows
    live = [(n, step) for n, step in zip(grid, rows.strides, strict=False) if n > 1]
    if any(outer != inner * n for (_, outer), (n, inner) in pairwise(live)):
        return rows
    return rows.reshape(math.prod(grid), *rows.shape[len(grid) :])


def _ragged(call: Call, raw: list[Any], indices: np.ndarray, error: ValueError) -> ValueError:
    shapes = [np.shape(one) if isinstance(one, np.ndarray | np.generic) else None for one in raw]
    names = indices.tolist()
    for at, shape in enumerate(shapes):
        if shape != shapes[0]:
            return ValueError(
                f"results cannot be stacked: shape {shapes[0]} {call.name(names[0])}, but {shape} "
                f"{call.name(names[at])}; return one shape for all elements, or use parallel_map, which "
                "returns a list"
            )
    return ValueError(f"results cannot be stacked to one array: {error}; use parallel_map, which returns a list")
