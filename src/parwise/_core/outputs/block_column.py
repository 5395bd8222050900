"""One array of the result of a block function along several axes, filled block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..call import Call
from ..indexing import Task
from ..inputs.block_grid import BlockGrid
from ..results import Column, Stack
from .column import OutputColumn
from .gaps import gap_value


class BlockGridColumn(OutputColumn):
    """One array of the result; its elements are numbered block by block, as in `BlockGrid`."""

    def __init__(self, call: Call, blocks: BlockGrid, task: Task, first: Column, out: Any) -> None:
        self._blocks = blocks
        super().__init__(call, task, first, out)

    def _index(self, lo: int, hi: int) -> tuple[slice, ...]:
        return tuple(slice(*part) for part in self._blocks.box(lo, hi))

    def _rows_of(self, block: np.ndarray) -> np.ndarray:
        """A result with the mapped axes first."""
        return np.moveaxis(block, self._axes_of(block.ndim), range(len(self._call.axis)))

    def add(self, task: Task, column: Column, indices: np.ndarray | None = None) -> None:
        """Take one column of a block's results."""
        if not self._fits(task, column):
            super().add(task, column, indices)  # kept as it is
            return
        assert isinstance(column, Stack)
        rows = self._rows_of(column.array)
        if self.sink is not None:
            self.sink.put_each(self._blocks.in_order(task.lo, task.hi), rows.reshape(-1, *self._shape))
        else:
            assert self._rows is not None
            self._rows[self._index(task.lo, task.hi)] = rows

    def skip(self, gaps: np.ndarray) -> None:
        """Take note of blocks without a result."""
        super().skip(self._in_order(gaps))

    def finish(self, gaps: np.ndarray) -> Any:
        """Return the array, of a dtype and shape that hold all results and `gaps`."""
        return super().finish(self._in_order(gaps))

    def _in_order(self, gaps: np.ndarray) -> np.ndarray:
        """Numbers in C order of the elements of some blocks."""
        parts, at = [np.empty(0, np.intp)], 0
        while at < len(gaps):
            lo = int(gaps[at])
            parts.append(self._blocks.in_order(lo, lo))
            at += len(parts[-1])
        return np.sort(np.concatenate(parts))

    def _concatenated(self, gaps: np.ndarray) -> np.ndarray:
        """All blocks in one array, of the dtype that `numpy.concatenate` would make of them; or gaps."""
        bounds = self._call.bounds or []
        blocks = {lo: column.array for lo, (_, column) in self._unlike.items() if isinstance(column, Stack)}
        missing = set(gaps.tolist())
        written = [lo for lo, hi in bounds if lo not in blocks and int(self._blocks.in_order(lo, hi)[0]) not in missing]
        rows = self._written_rows()
        blocks |= {lo: self._written(rows, lo) for lo in written}
        like = next(iter(blocks.values()))
        self._check_alike(blocks)
        own = np.concatenate([np.empty(0, one.dtype) for one in blocks.values()]).dtype
        dtype, value = gap_value(own) if len(gaps) else (own, 0)
        axes = self._axes_of(like.ndim)
        shape = list(like.shape)
        for axis, length in zip(axes, self._call.grid, strict=True):
            shape[axis] = length
        whole = np.full(shape, value, dtype) if len(gaps) else np.empty(shape, dtype)
        rows = np.moveaxis(whole, axes, range(len(axes)))
        for lo, block in blocks.items():
            rows[self._index(lo, lo)] = self._rows_of(block)
        return whole

    def _written(self, rows: np.ndarray, lo: int) -> np.ndarray:
        """A result that was written to the array, whose rows are given."""
        part = rows[self._index(lo, lo)].astype(self._dtype, copy=False)
        return np.moveaxis(part, range(len(self._axes)), self._axes)

    def _check_alike(self, blocks: dict[int, np.ndarray]) -> None:
        """Raise a ValueError if results differ in their shape along axes that are not mapped."""
        bounds = dict(self._call.bounds or [])
        first, shape = min(blocks), None
        for lo in sorted(blocks):
            found = self._rows_of(blocks[lo]).shape[len(self._call.axis) :]
            shape = found if shape is None else shape
            if found != shape:
                raise ValueError(
                    f"results cannot be put together: shape {blocks[first].shape} "
                    f"{self._call.name(first, bounds[first])}, but {blocks[lo].shape} "
                    f"{self._call.name(lo, bounds[lo])}; they may differ along the mapped axes only"
                )
