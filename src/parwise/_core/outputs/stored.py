"""Arrays in files that workers write their results to, where a task covers whole chunks."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..call import Call
from ..indexing import Runs
from ..inputs.foreign import UnreadableError, library_of
from ..inputs.recipes import Recipe, recipe_of
from ..results import Column, Results, Stack
from .overlap import overlaps
from .sink import FileSink, Written, runs_of


class FileOutput:
    """An array in `out` that other processes write whole chunks to; h5py's files have one writer, the caller.

    Parameters
    ----------
    axis : int or None
        The mapped axis of blocks; None for elements.
    """

    def __init__(self, recipe: Recipe, axes: tuple[int, ...], grid: tuple[int, ...], axis: int | None) -> None:
        self._recipe, self._axes, self._grid, self._axis = recipe, axes, grid, axis
        self._sink: FileSink | None = None
        self._runs: Runs | None = None

    @classmethod
    def of(cls, call: Call) -> list[FileOutput]:
        """All arrays in the `out` of a call; an empty list if the caller has to write one of them."""
        found: list[FileOutput] = []
        if call.block_grid is not None:  # a chunk may have elements of several blocks
            return found
        for out in call.out or ():
            recipe = None if library_of(out) != "zarr" else recipe_of(out)
            axes = call.result_axes(len(out.shape))
            fits = tuple(out.shape[axis] for axis in axes) == call.grid and out.dtype.kind in "?biufc"
            if recipe is None or not fits or runs_of(out, axes, call.grid) is None or overlaps(out, call):
                return []
            found.append(cls(recipe, axes, call.grid, axes[0] if call.vectorized else None))
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return FileOutput, (self._recipe, self._axes, self._grid, self._axis)

    def takes(self, column: Column, lo: int, hi: int) -> bool:
        """True if results of the elements ``lo:hi`` fit whole chunks of it."""
        sink = self._open()
        if not isinstance(column, Stack) or (column.kind == "block") != (self._axis is not None):
            return False
        rows = self._rows(column, hi - lo)
        return rows is not None and sink.covers(lo, hi) and sink.fits(rows)

    def write(self, column: Stack, lo: int, hi: int) -> Stack:
        """Write results; return what is sent in their place."""
        rows = self._rows(column, hi - lo)
        assert rows is not None
        self._open().write(lo, rows)
        return Stack(Written(column.kind, column.array.shape), np.empty(0, column.array.dtype))

    def _rows(self, column: Stack, count: int) -> np.ndarray | None:
        """The results stacked along the first axis; None if a block has another length."""
        array = column.array
        if self._axis is not None:
            if array.ndim <= self._axis or array.shape[self._axis] != count:
                return None
            array = np.moveaxis(array, self._axis, 0)
        return array if len(array) == count else None

    def _open(self) -> FileSink:
        if self._sink is None:
            out = self._recipe.open()
            self._sink = FileSink(out, self._axes, self._grid, np.dtype(out.dtype), 0)
        return self._sink


def store(outputs: list[FileOutput], results: Results, lo: int, hi: int) -> Results:
    """Write the results of the elements ``lo:hi``, if there is a place for all of them; return what is to be sent."""
    if len(outputs) != len(results.columns):
        return results
    try:
        pairs = list(zip(outputs, results.columns, strict=True))
        if not all(out.takes(column, lo, hi) for out, column in pairs):
            return results
        return Results([out.write(column, lo, hi) for out, column in pairs], results.wrap)  # type: ignore[arg-type]
    except (OSError, UnreadableError, RuntimeError, ValueError):  # the caller writes them, or is told the same
        return results
