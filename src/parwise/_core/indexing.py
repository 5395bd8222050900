"""Index arithmetic: tasks, bounds of blocks, halos, boxes of a grid."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .options.number_checks import check_int

# OpenBLAS packs matrices in panels of a few dozen rows; cuts at multiples of
# 192 gave gemm's bits in every case tried, cuts at 7 rows in 88 % of them.
BLAS_ROWS = 192
# The number of blocks without `chunk`, unless blocks would be too small to pay
# for a task, or too large to be held in memory twice.
BLOCKS = 64
BLOCK_BYTES = 64 * 2**20


class Task:
    """A run of elements, or one block, computed in one place."""

    # A dataclass takes 0.5 ms to define, in the caller and in the fork server.
    __slots__ = ("hi", "lo")

    def __init__(self, lo: int, hi: int) -> None:
        self.lo = lo
        self.hi = hi

    def __len__(self) -> int:
        return self.hi - self.lo

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and (self.lo, self.hi) == (other.lo, other.hi)

    def __hash__(self) -> int:
        return hash((self.lo, self.hi))

    def __repr__(self) -> str:
        return f"Task({self.lo}, {self.hi})"


def block_length(count: int, row_bytes: int, depth: int = 0, parts: int = BLOCKS) -> int:
    """Number of elements per block, for a block function without ``chunk``.

    It depends on the array and the halo's `depth` only: the same call has the
    same blocks on every machine. `parts` is the number of blocks along the axis.

    Examples
    --------
    >>> block_length(100, 8), block_length(100_000, 8)
    (192, 1728)
    """
    # Halos make at most a fifth of the elements that are computed.
    fair = max(-(-count // parts), 8 * depth)
    affordable = BLOCK_BYTES // max(1, row_bytes)
    if affordable < BLAS_ROWS:  # BLAS_ROWS of such large rows are too much
        return max(2, affordable)
    rows = max(1, -(-fair // BLAS_ROWS)) * BLAS_ROWS
    return min(rows, affordable // BLAS_ROWS * BLAS_ROWS)


def block_bounds(count: int, length: int) -> list[tuple[int, int]]:
    """Cut ``range(count)`` into blocks; a remainder of one joins its neighbour.

    Examples
    --------
    >>> block_bounds(7, 3)
    [(0, 3), (3, 7)]
    >>> block_bounds(8, 3)
    [(0, 3), (3, 6), (6, 8)]
    >>> block_bounds(0, 3)
    [(0, 0)]
    """
    starts = list(range(0, count, length)) or [0]
    if len(starts) > 1 and length > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))


def boxes(lo: int, hi: int, shape: tuple[int, ...]) -> Iterator[tuple[tuple[slice, ...], int]]:
    """Cover the flat range ``lo:hi`` of a C-ordered grid by rectangular boxes.

    Yields
    ------
    index : tuple of slice
        The box, one slice per grid axis.
    count : int
        Number of grid points in it.

    Examples
    --------
    >>> [count for _, count in boxes(2, 11, (3, 4))]
    [2, 4, 3]
    """
    if len(shape) == 1:
        yield (slice(lo, hi),), hi - lo
        return
    inner = prod(shape[1:])
    while lo < hi:
        row, start = divmod(lo, inner)
        if start == 0 and hi - lo >= inner:
            rows = (hi - lo) // inner
            yield (slice(row, row + rows), *(slice(None),) * (len(shape) - 1)), rows * inner
            lo += rows * inner
        else:
            stop = min(inner, start + hi - lo)
            for index, count in boxes(start, stop, shape[1:]):
                yield (slice(row, row + 1), *index), count
            lo += stop - start


class Runs(NamedTuple):
    """The elements of a grid in runs of consecutive ones, each of which takes whole chunks of an array in a file.

    Attributes
    ----------
    period : int
        After so many elements the ends repeat.
    ends : tuple of int
        Where runs end within one period.

    Examples
    --------
    >>> runs = Runs(10, (4, 8, 10))
    >>> runs.around(7), runs.around(12)
    ((4, 8), (10, 14))
    """

    period: int
    ends: tuple[int, ...]

    def around(self, index: int) -> tuple[int, int]:
        """Start and stop of the run that holds an element."""
        begin = index // self.period * self.period
        number = bisect_right(self.ends, index - begin)
        return begin + (self.ends[number - 1] if number else 0), begin + self.ends[number]

    def are_whole(self, lo: int, hi: int) -> bool:
        """True if the elements ``lo:hi`` are whole runs."""
        return self.around(lo)[0] == lo and self.around(hi - 1)[1] == hi

    @property
    def longest(self) -> int:
        """Elements of the longest run."""
        return max(end - start for start, end in zip((0, *self.ends), self.ends, strict=False))


def chunk_runs(grid: tuple[int, ...], ends: Sequence[Sequence[int]]) -> Runs:
    """The shortest runs that take whole chunks; `ends` are those of chunks along each axis of the grid.

    Elements are in C order, so a run takes a whole row of chunks along the faster axes.

    Examples
    --------
    >>> chunk_runs((4, 6), [[2, 4], [3, 6]])
    Runs(period=24, ends=(12, 24))
    >>> chunk_runs((2, 6), [[1, 2], [3, 6]])
    Runs(period=6, ends=(3, 6))
    """
    level = next((k for k, n in enumerate(grid) if len(ends[k]) < n), len(grid) - 1)
    inner = prod(grid[level + 1 :])
    return Runs(grid[level] * inner, tuple(end * inner for end in ends[level]))


def sized_runs(grid: tuple[int, ...], runs: Runs, wanted: int, most: int) -> Runs:
    """Join runs up to `wanted` elements, and cut those of more than `most`.

    Examples
    --------
    >>> sized_runs((2, 6), Runs(6, (3, 6)), 12, 100)
    Runs(period=12, ends=(12,))
    >>> sized_runs((9,), Runs(9, (2, 4, 6, 8, 9)), 5, 100).ends
    (4, 9)
    >>> sized_runs((9,), Runs(9, (6, 9)), 1, 4).ends
    (4, 6, 9)
    """
    count = prod(grid)
    if runs.period <= wanted:
        length = max(1, wanted // runs.period) * runs.period
        return Runs(count, (*range(length, count, length), count))
    joined, start, before = list[int](), 0, 0
    for end in runs.ends:
        if end - start > wanted and before > start:
            joined.append(before)
            start = before
        before = end
    # Whole rows of the grid, so that a part is one box.
    row = next((prod(grid[k:]) for k in range(len(grid)) if prod(grid[k:]) <= most), 1)
    most = max(1, most // row * row)
    cut, start = list[int](), 0
    for end in (*joined, before):
        cut += [*range(start + most, end, most), end]
        start = end
    return Runs(runs.period, tuple(cut))


#: Ways to fill a halo beyond the ends of the array, named as in `numpy.pad` ("nearest" is its "edge").
BOUNDARIES = ("reflect", "symmetric", "nearest", "wrap", "constant")


class DtypesZero:
    """Stands for the constant beyond an array that was not given: None is a value of arrays of objects."""


class Halo(NamedTuple):
    """Depth to which blocks see into their neighbours, and the values beyond the array.

    Attributes
    ----------
    depth : int
        Number of elements on each side; 0 for none.
    boundary : str or None
        One of `BOUNDARIES`; None if the halo ends with the array.
    value : object
        The constant of "constant", or `DtypesZero`.
    length : int
        Length of the mapped axis.
    axis : int
        The mapped axis as given: a negative one counts from the end of a result's axes.
    """

    depth: int
    boundary: str | None
    value: Any
    length: int
    axis: int

    def extent(self, lo: int, hi: int) -> tuple[int, int]:
        """Start and stop of the block ``lo:hi`` with its halo, possibly beyond the array."""
        if self.boundary is None or not self.length:
            return max(0, lo - self.depth), min(self.length, hi + self.depth)
        return lo - self.depth, hi + self.depth

    def inside(self, lo: int, hi: int) -> tuple[int, int]:
        """Start and stop of the part of `extent` within the array."""
        start, stop = self.extent(lo, hi)
        return max(0, start), min(self.length, stop)

    def outside(self, lo: int, hi: int) -> Iterator[range]:
        """Yield the parts of `extent` beyond the array."""
        start, stop = self.extent(lo, hi)
        if start < 0:
            yield range(start, 0)
        if stop > self.length:
            yield range(self.length, stop)

    def sources(self, beyond: range) -> np.ndarray:
        """Indices of the elements whose values fill `beyond`, as in `numpy.pad`."""
        indices = np.arange(beyond.start, beyond.stop)
        n = self.length
        if self.boundary == "nearest":
            return indices.clip(0, n - 1)
        if self.boundary == "wrap":
            return indices % n
        if self.boundary == "symmetric":
            indices %= 2 * n
            return np.minimum(indices, 2 * n - 1 - indices)
        period = max(1, 2 * n - 2)
        indices %= period
        return np.minimum(indices, period - indices) if n > 1 else indices

    @property
    def sides(self) -> tuple[Halo, ...]:
        """The halo along each mapped axis, as in `BlockGrid`."""
        return (self,)

    def box(self, lo: int, hi: int) -> tuple[tuple[int, int], ...]:
        """Start and stop of the block ``lo:hi`` along each mapped axis, as in `BlockGrid`."""
        return ((lo, hi),)

    def extents(self, lo: int, hi: int) -> tuple[tuple[int, int], ...]:
        """The same with the halo, possibly beyond the array."""
        return (self.extent(lo, hi),)

    def kept(self, result: np.ndarray, lo: int, hi: int) -> slice:
        """The part of a block function's result without the halo; raise a ValueError if its length is not right."""
        start, stop = self.extent(lo, hi)
        if not -result.ndim <= self.axis < result.ndim or result.shape[self.axis] != stop - start:
            with_what = f"with depth={self.depth}" if self.depth else "along several axes"
            raise ValueError(
                f"{with_what} a block function must keep the length of axis {self.axis}: it got "
                f"{stop - start} elements along it and returned an array of shape {result.shape}"
            )
        return slice(lo - start, hi - start)

    def trim(self, result: np.ndarray, lo: int, hi: int) -> np.ndarray:
        """Cut the halo off a block function's result; raise a ValueError if its length is not the argument's."""
        kept = self.kept(result, lo, hi)
        return result[(slice(None),) * (self.axis % result.ndim) + (kept,)]


def checked_halo(depth: Any, boundary: Any, vectorized: bool) -> tuple[int, str | None, Any]:
    """Check the depth and boundary of a halo; return depth, boundary and constant."""
    depth = check_int("depth", depth, 0)
    if not vectorized:
        if depth:
            raise ValueError(
                f"depth={depth} is for block functions, as a single element has no neighbours; pass "
                "vectorized=True if func takes blocks"
            )
        if boundary is not None:
            raise ValueError(f"boundary={boundary!r} is for block functions; pass vectorized=True and depth")
    value: Any = DtypesZero
    boundary = "wrap" if isinstance(boundary, str) and boundary == "periodic" else boundary  # Dask's word
    if isinstance(boundary, tuple) and len(boundary) == 2 and boundary[0] == "constant":
        boundary, value = boundary
        if np.ndim(value):
            raise ValueError(f"the constant beyond the array must be a scalar, got one of shape {np.shape(value)}")
    if boundary is not None and not (isinstance(boundary, str) and boundary in BOUNDARIES):
        raise ValueError(
            f"boundary must be None, one of {', '.join(map(repr, BOUNDARIES))} or ('constant', value), "
            f"got {boundary!r}{_hint(boundary)}"
        )
    return depth, boundary, value


def fits(value: Any, dtype: np.dtype[Any]) -> bool:
    """True if an array of `dtype` can hold `value`."""
    if value is DtypesZero:
        return True
    if not np.can_cast(np.min_scalar_type(value), dtype, "same_kind"):
        return False
    try:
        np.full(1, value, dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _hint(boundary: Any) -> str:
    same = {"edge": "nearest", "mirror": "reflect", "none": None}
    if not isinstance(boundary, str) or boundary not in same:
        return ""
    return f"; boundary={same[boundary]!r} is what you mean"
