"""Where an array lies in the caller's memory, and the pieces of it that another process copies."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..indexing import boxes
from ..layout import Layout


class Pieces(NamedTuple):
    """Runs of bytes that lie in one piece both in the array and in its copy.

    Attributes
    ----------
    ours, theirs : ndarray of int64
        Where each begins: in the copy, from its first item on, and in the caller's memory, as addresses.
    nbytes : int
        Bytes of each.
    """

    ours: np.ndarray
    theirs: np.ndarray
    nbytes: int

    def moved(self, ours: int, theirs: int) -> Pieces:
        """The same pieces of another copy, and elsewhere in the caller's memory."""
        return Pieces(self.ours + ours, self.theirs + theirs, self.nbytes)


class Place(NamedTuple):
    """Where the elements of an array, or its blocks, lie in the caller's memory.

    Attributes
    ----------
    address : int
        Address of the first element, or of the array for blocks.
    grid, steps : tuple of int
        Lengths of the mapped axes, those made one that can be, and their strides in bytes; empty for blocks.
    strides : tuple of int
        Strides of one element; of the whole array for blocks.
    itemsize : int
    axes : tuple of int
        The mapped axes of blocks.
    """

    address: int
    grid: tuple[int, ...]
    steps: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    axes: tuple[int, ...] = (0,)

    def at(self, first: tuple[int, ...]) -> int:
        """Address of an element, or of the block with that first index along each mapped axis."""
        if not self.grid:
            return self.address + sum(at * self.strides[axis] for at, axis in zip(first, self.axes, strict=True))
        (lo,) = first
        if len(self.grid) == 1:
            return self.address + lo * self.steps[0]
        index = np.unravel_index(lo, self.grid)
        return self.address + sum(int(i) * step for i, step in zip(index, self.steps, strict=True))

    def piece_bytes(self, copy: Layout) -> int:
        """Bytes of a piece of a copy of that layout, about."""
        length = min(copy.shape[0], self.grid[-1]) if self.grid else 0
        shape, theirs = (
            ((length, *copy.shape[1:]), (self.steps[-1], *self.strides)) if self.grid else (copy.shape, self.strides)
        )
        axes = [(abs(own), abs(their), n) for n, own, their in zip(shape, copy.strides, theirs, strict=True)]
        return _joined(axes, self.itemsize)[0]

    def pieces(self, first: tuple[int, ...], hi: int, copy: Layout) -> Iterator[Pieces]:
        """The pieces of elements from the first up to `hi`, or of a block, for a copy of that layout."""
        if not self.grid:
            yield pieces_of(copy.shape, copy.strides, self.strides, self.itemsize).moved(0, self.at(first))
            return
        (lo,) = first
        if len(self.grid) == 1:
            shape = (hi - lo, *copy.shape[1:])
            found = pieces_of(shape, copy.strides, (*self.steps, *self.strides), self.itemsize)
            yield found.moved(0, self.at(first))
            return
        pitch, *inner = copy.strides
        at = 0
        for index, count in boxes(lo, hi, self.grid):
            bounds = [part.indices(n)[:2] for part, n in zip(index, self.grid, strict=True)]
            lengths = [stop - start for start, stop in bounds]
            apart = [pitch * math.prod(lengths[d + 1 :]) for d in range(len(lengths))]
            address = self.address + sum(start * step for (start, _), step in zip(bounds, self.steps, strict=True))
            shape, ours, theirs = (*lengths, *copy.shape[1:]), (*apart, *inner), (*self.steps, *self.strides)
            yield pieces_of(shape, ours, theirs, self.itemsize).moved(at * pitch, address)
            at += count


@functools.lru_cache(maxsize=16)
def pieces_of(shape: tuple[int, ...], ours: tuple[int, ...], theirs: tuple[int, ...], itemsize: int) -> Pieces:
    """The pieces of an array at address 0 with the strides `theirs`, copied to memory with the strides `ours`.

    Examples
    --------
    >>> pieces_of((2, 3), (64, 8), (100, 8), 8)
    Pieces(ours=array([ 0, 64]), theirs=array([  0, 100]), nbytes=24)
    """
    if 0 in shape or not itemsize:
        return Pieces(np.empty(0, np.int64), np.empty(0, np.int64), itemsize)
    start = address = 0
    axes = []
    for n, own, their in zip(shape, ours, theirs, strict=True):
        if n > 1 and own < 0 and their < 0:  # the same bytes from the other end
            start, address = start + own * (n - 1), address + their * (n - 1)
            own, their = -own, -their
        axes.append((own, their, n))
    nbytes, axes = _joined(axes, itemsize)
    starts, places = np.array([start]), np.array([address])
    for own, their, n in axes:
        along = np.arange(n)[:, None]
        starts, places = (starts + along * own).ravel(), (places + along * their).ravel()
    return Pieces(starts, places, nbytes)


def _joined(axes: list[tuple[int, int, int]], itemsize: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Bytes of a piece, and the axes along which pieces lie, innermost first: two strides and a length each."""
    axes = sorted(one for one in axes if one[2] > 1 and (one[0] or one[1]))
    nbytes = itemsize
    while axes and axes[0][0] == axes[0][1] == nbytes:
        nbytes *= axes.pop(0)[2]
    return nbytes, axes
