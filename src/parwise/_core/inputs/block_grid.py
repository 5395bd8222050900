"""Blocks along several axes: where they lie, in which order they come, and copies of them with their halos."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..indexing import DtypesZero, Halo

#: Reads a part of an array, by start and stop along each mapped axis.
ReadSpans = Callable[[Sequence[tuple[int, int]]], np.ndarray]


class BlockGrid(NamedTuple):
    """The blocks of a call along several axes.

    Elements are numbered block by block, blocks in C order, and within a block in C order too: so a block is a run
    ``lo:hi`` of elements, as it is along one axis, and whoever counts elements need not know of axes.

    Attributes
    ----------
    sides : tuple of Halo
        The halo along each mapped axis, perhaps of depth 0.
    cuts : tuple of tuple of int
        Along each axis where blocks begin, and the length of the axis.

    Examples
    --------
    >>> sides = (Halo(1, None, 0, 5, 0), Halo(0, None, 0, 4, 1))
    >>> grid = BlockGrid(sides, ((0, 3, 5), (0, 2, 4)))
    >>> grid.bounds()
    [(0, 6), (6, 12), (12, 16), (16, 20)]
    >>> grid.box(12, 16), grid.extents(12, 16), grid.number(12), grid.position(15)
    (((3, 5), (0, 2)), ((2, 5), (0, 2)), 2, (4, 1))
    """

    sides: tuple[Halo, ...]
    cuts: tuple[tuple[int, ...], ...]

    def bounds(self) -> list[tuple[int, int]]:
        """The runs of elements that are blocks."""
        sizes = [math.prod(one) for one in itertools.product(*(np.diff(cut).tolist() for cut in self.cuts))]
        ends = list(itertools.accumulate(sizes, initial=0))
        return list(itertools.pairwise(ends))

    def _find(self, index: int) -> tuple[list[int], int]:
        """The number of a block along each axis, and how many elements of it come before element `index`."""
        numbers, before = [], 1
        for axis, cut in enumerate(self.cuts):
            row = before * math.prod(one[-1] for one in self.cuts[axis + 1 :])
            number = min(bisect_right(cut, index // max(1, row)), len(cut) - 1) - 1
            index -= cut[number] * row
            before *= cut[number + 1] - cut[number]
            numbers.append(number)
        return numbers, index

    def box(self, lo: int, hi: int) -> tuple[tuple[int, int], ...]:
        """Start and stop along each axis of the block ``lo:hi``, or of that which holds element `lo`."""
        return tuple((cut[k], cut[k + 1]) for cut, k in zip(self.cuts, self._find(lo)[0], strict=True))

    def extents(self, lo: int, hi: int) -> tuple[tuple[int, int], ...]:
        """The same with the halo, possibly beyond the array."""
        return tuple(side.extent(*part) for side, part in zip(self.sides, self.box(lo, hi), strict=True))

    def number(self, lo: int) -> int:
        """How many blocks come before the one from element `lo` on."""
        number = 0
        for cut, at in zip(self.cuts, self._find(lo)[0], strict=True):
            number = number * (len(cut) - 1) + at
        return number

    def position(self, index: int) -> tuple[int, ...]:
        """Index of an element along each axis."""
        numbers, within = self._find(index)
        position: list[int] = []
        for cut, k in reversed(list(zip(self.cuts, numbers, strict=True))):
            within, at = divmod(within, max(1, cut[k + 1] - cut[k]))
            position.append(cut[k] + at)
        return tuple(reversed(position))

    def positions(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Indices of many elements along each axis."""
        within, before, numbers = indices, np.ones_like(indices), []
        for axis, cut in enumerate(map(np.array, self.cuts)):
            row = before * math.prod(one[-1] for one in self.cuts[axis + 1 :])
            number = np.minimum(np.searchsorted(cut, within // np.maximum(row, 1), "right"), len(cut) - 1) - 1
            within, before = within - cut[number] * row, before * np.diff(cut)[number]
            numbers.append((cut[number], np.maximum(np.diff(cut)[number], 1)))
        found = []
        for first, length in reversed(numbers):
            within, at = np.divmod(within, length)
            found.append(first + at)
        return tuple(reversed(found))

    def in_order(self, lo: int, hi: int) -> np.ndarray:
        """Numbers of the elements of the block ``lo:hi``, as they are counted without blocks, in C order."""
        lengths = [cut[-1] for cut in self.cuts]
        return np.ravel_multi_index(np.ix_(*(np.arange(*part) for part in self.box(lo, hi))), lengths).ravel()

    def trim(self, result: np.ndarray, lo: int, hi: int) -> np.ndarray:
        """Cut the halo off a block function's result; raise a ValueError if its lengths are not the argument's."""
        index = [slice(None)] * result.ndim
        for side, part in zip(self.sides, self.box(lo, hi), strict=True):
            kept = side.kept(result, *part)
            index[side.axis] = kept
        return result[tuple(index)]


class _Part(NamedTuple):
    """A part of a block along one axis.

    Attributes
    ----------
    place : slice
        Where it lies in the block.
    sources : slice or ndarray
        Indices in the array of the elements that it holds.
    constant : bool
        True if it holds a constant instead.
    span : tuple of int
        Start and stop of these.
    """

    place: slice
    sources: slice | np.ndarray
    span: tuple[int, int]
    constant: bool = False


def _parts(side: Halo, lo: int, hi: int) -> Iterator[_Part]:
    """The parts of a block along one axis: what lies within the array comes first."""
    start, _ = side.extent(lo, hi)
    a, b = side.inside(lo, hi)
    yield _Part(slice(a - start, b - start), slice(a, b), (a, b))
    for beyond in side.outside(lo, hi):
        place = slice(beyond.start - start, beyond.stop - start)
        if side.boundary == "constant":
            yield _Part(place, slice(0), (0, 0), constant=True)
            continue
        sources = side.sources(beyond)
        yield _Part(place, sources, (int(sources.min()), int(sources.max()) + 1))


def copy_block(
    run: np.ndarray,
    sides: Sequence[Halo],
    box: Sequence[tuple[int, int]],
    axes: Sequence[int],
    read: ReadSpans,
) -> None:
    """Copy a block with its halo, in one read, and fill the halo beyond the array, one axis after another."""
    parts = [list(_parts(side, *part)) for side, part in zip(sides, box, strict=True)]
    inside = [one[0].span for one in parts]
    block = read(inside)
    for chosen in itertools.product(*parts):
        target = run[_at(axes, [one.place for one in chosen])]
        constants = [side.value for side, one in zip(sides, chosen, strict=True) if one.constant]
        if constants:  # the last axis was filled last
            target[...] = np.zeros((), run.dtype) if constants[-1] is DtypesZero else constants[-1]
            continue
        spans = [one.span for one in chosen]
        within = all(a <= lo and hi <= b for (a, b), (lo, hi) in zip(inside, spans, strict=True))
        held, part = inside if within else spans, block if within else read(spans)
        for axis, one, (first, _) in zip(axes, chosen, held, strict=True):
            found = one.sources
            own: Any = slice(found.start - first, found.stop - first) if isinstance(found, slice) else found - first
            part = part[_at([axis], [own])]
        target[...] = part


def _at(axes: Sequence[int], parts: Sequence[Any]) -> tuple[Any, ...]:
    """An index with `parts` along some axes."""
    index: list[Any] = [slice(None)] * (max(axes) + 1)
    for axis, part in zip(axes, parts, strict=True):
        index[axis] = part
    return tuple(index)
