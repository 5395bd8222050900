"""A file behind `out`: results are held until whole chunks of it are complete, and each chunk is written once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..indexing import Runs, boxes, chunk_runs, sized_runs
from ..inputs.foreign import access, chunk_ends
from ..results import Stack
from .casts import check_uncut

#: Bytes that are written at once, if chunks are smaller: zarr compresses several chunks at a time.
WRITE_BYTES = 2**23


class Written(NamedTuple):
    """In the place of the kind of a stack: its results, of this kind and shape, have been written to where they belong.

    The stack holds none of them.
    """

    kind: Any
    shape: tuple[int, ...]


def as_stack(column: Stack) -> Stack:
    """A stack of the kind, dtype and shape of results that were written; its values mean nothing."""
    return Stack(column.kind.kind, np.broadcast_to(np.zeros((), column.array.dtype), column.kind.shape))


class _Held(NamedTuple):
    """Results of a run of elements, and the state of each."""

    rows: np.ndarray
    states: np.ndarray


_MISSING, _HERE, _WRITTEN = range(3)


class FileSink:
    """Takes results of elements in any order, and writes them to an array in a file, by whole chunks.

    Elements come in C order of the mapped axes. Results are held for a run of elements that covers whole chunks, until
    it is complete: one row of chunks along the faster axes. To write a part of a chunk, a file is read, unpacked, and
    packed again, for each part.

    Parameters
    ----------
    out : array_like
        It is written by ``out[slices] = block``.
    axes : tuple of int
        Positions of the mapped axes in `out`.
    grid : tuple of int
        Their lengths.
    dtype : dtype
        Dtype of the results.
    most_bytes : int
        A run of more bytes is written in parts.

    Attributes
    ----------
    nbytes, nbytes_elsewhere : int
        Bytes that have been written, by this process and by others.
    most_held : int
        The most bytes that were held at a time.
    """

    def __init__(
        self, out: Any, axes: tuple[int, ...], grid: tuple[int, ...], dtype: np.dtype[Any], most_bytes: int
    ) -> None:
        self._out, self._axes, self._grid = out, axes, grid
        self._shape = tuple(int(n) for axis, n in enumerate(out.shape) if axis not in axes)
        self._dtype = own = stored_dtype(out, dtype)
        row_bytes = math.prod(self._shape) * own.itemsize
        self._shortest = runs_of(out, axes, grid)
        self._runs = self._shortest and sized_runs(grid, self._shortest, *_lengths(row_bytes, most_bytes))
        # Runs that are not complete, by their first element.
        self._held: dict[int, _Held] = {}
        self.nbytes = self.nbytes_elsewhere = self.most_held = 0

    def put(self, lo: int, rows: np.ndarray) -> None:
        """Take the results of elements from `lo` on, stacked along the first axis; their memory is free afterwards."""
        at, hi = lo, lo + len(rows)
        while at < hi:
            start, stop = (lo, hi) if self._runs is None else self._runs.around(at)
            end = min(stop, hi)
            part = rows[at - lo : end - lo]
            if end - at == stop - start:
                self.write(at, part)
            else:
                self._hold(start, stop, at, part)
            at = end

    def put_each(self, indices: np.ndarray, rows: np.ndarray) -> None:
        """Take the results of some elements, in increasing order."""
        for first, stop in _consecutive(indices):
            self.put(int(indices[first]), rows[first:stop])

    def fill(self, indices: np.ndarray, value: Any) -> None:
        """Take one value as the result of some elements, in increasing order."""
        for first, stop in _consecutive(indices):
            self.put(int(indices[first]), np.full((stop - first, *self._shape), value, self._dtype))

    def flush(self) -> None:
        """Write all that is held: parts of chunks, if the call has ended before its end."""
        while self._held:
            start = min(self._held)
            self._write_held(start, self._held.pop(start), slice(None))

    def settle(self, lo: int, hi: int) -> None:
        """Write what is held of the elements ``lo:hi``; it is not written again when its run is complete."""
        for start, held in self._held.items():
            self._write_held(start, held, slice(max(0, lo - start), max(0, hi - start)))

    def _write_held(self, start: int, held: _Held, part: slice) -> None:
        indices = np.flatnonzero(held.states[part] == _HERE) + (part.start or 0)
        for first, stop in _consecutive(indices):
            self.write(start + int(indices[first]), held.rows[indices[first] : indices[stop - 1] + 1])
        held.states[indices] = _WRITTEN

    def read(self) -> np.ndarray:
        """All that was written, with the mapped axes first."""
        self.flush()
        with access(self._out):
            return np.moveaxis(np.asarray(self._out[...]), self._axes, range(len(self._axes)))

    def _hold(self, start: int, stop: int, at: int, part: np.ndarray) -> None:
        held = self._held.get(start)
        if held is None:
            length = stop - start
            held = _Held(np.empty((length, *self._shape), self._dtype), np.full(length, _MISSING, np.uint8))
            self._held[start] = held
            self.most_held = max(self.most_held, sum(one.rows.nbytes for one in self._held.values()))
        held.rows[at - start : at - start + len(part)] = part
        held.states[at - start : at - start + len(part)] = _HERE
        if held.states.all():
            del self._held[start]
            self._write_held(start, held, slice(None))

    def covers(self, lo: int, hi: int) -> bool:
        """True if the elements ``lo:hi`` take whole chunks."""
        return self._shortest is not None and self._shortest.are_whole(lo, hi)

    def fits(self, rows: np.ndarray) -> bool:
        """True if it holds such results, perhaps cast."""
        return rows.shape[1:] == self._shape and np.can_cast(rows.dtype, self._dtype, "same_kind")

    def note(self, lo: int, hi: int) -> None:
        """Take note that another process has written the results of the elements ``lo:hi``."""
        self.nbytes_elsewhere += (hi - lo) * math.prod(self._shape) * self._dtype.itemsize

    def read_rows(self, lo: int, hi: int) -> np.ndarray:
        """What was written for the elements ``lo:hi``."""
        return self.read().reshape(-1, *self._shape)[lo:hi]

    def write(self, lo: int, rows: np.ndarray) -> None:
        """Write the results of consecutive elements."""
        rows = rows.astype(self._dtype, copy=False)
        at = 0
        for index, count in boxes(lo, lo + len(rows), self._grid):
            region: list[slice] = [slice(None)] * (len(index) + len(self._shape))
            lengths = []
            for axis, part, n in zip(self._axes, index, self._grid, strict=True):
                region[axis] = slice(*part.indices(n))
                lengths.append(len(range(n)[part]))
            block = rows[at : at + count].reshape(*lengths, *self._shape)
            with access(self._out):
                self._out[tuple(region)] = np.moveaxis(block, range(len(index)), self._axes)
            self.nbytes += block.nbytes
            at += count


def stored_dtype(out: Any, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to which results of `dtype` are cast before they are written to an array.

    HDF5 makes 2**31 - 1 of larger integers, where NumPy wraps around, and no complex numbers of others.
    """
    kinds = "?biufcmMO" if isinstance(out, np.ndarray) else "?biufcmM"  # HDF5 has objects in the place of text
    return np.dtype(out.dtype) if isinstance(out.dtype, np.dtype) and out.dtype.kind in kinds else dtype


def write_whole(out: Any, whole: np.ndarray) -> None:
    """Write all results at once; raise a ValueError if text among them would be cut."""
    check_uncut(whole, out)
    if isinstance(out, np.ndarray):
        out[...] = whole
        return
    with access(out):
        out[...] = whole.astype(stored_dtype(out, whole.dtype), copy=False)


def runs_of(out: Any, axes: tuple[int, ...], grid: tuple[int, ...]) -> Runs | None:
    """The shortest runs of elements that take whole chunks of an array, or whole shards; None if it tells of none."""
    ends = [chunk_ends(out, axis, shards=True) for axis in axes]
    if any(one is None for one in ends):
        return None
    return chunk_runs(grid, [one for one in ends if one is not None])


def _lengths(row_bytes: int, most_bytes: int) -> tuple[int, int]:
    """Elements of a run that is long enough, and of one that is not cut."""
    return min(WRITE_BYTES, most_bytes) // max(1, row_bytes), most_bytes // max(1, row_bytes)


def _consecutive(indices: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where runs of consecutive indices begin and end."""
    if len(indices):
        gaps = np.flatnonzero(np.diff(indices) != 1) + 1
        yield from pairwise([0, *gaps.tolist(), len(indices)])
