"""Index arithmetic: tasks, blocks, their halos, and boxes of a grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .checks import check_int

# OpenBLAS packs matrices in panels of a few dozen rows; cuts at multiples of
# 192 gave gemm's bits in every case tried, cuts at 7 rows in 88 % of them.
BLAS_ROWS = 192
# Where the user leaves `chunk` open: this many blocks, if they are large
# enough to be worth a task and small enough to hold in memory twice.
BLOCKS = 64
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Task:
    """A run of elements, or one block, that is computed in one place."""

    lo: int
    hi: int

    def __len__(self) -> int:
        return self.hi - self.lo


def block_length(count: int, row_bytes: int, depth: int = 0) -> int:
    """Elements per block, for a block function whose ``chunk`` is open.

    It depends on the array and the halo's `depth` alone, so that the same call
    gives the same blocks on every machine.

    Examples
    --------
    >>> block_length(100, 8), block_length(100_000, 8)
    (192, 1728)
    """
    # Of what is computed, halos are not to be more than a fifth.
    fair = max(-(-count // BLOCKS), 8 * depth)
    affordable = BLOCK_BYTES // max(1, row_bytes)
    if affordable < BLAS_ROWS:  # rows so large that BLAS_ROWS of them are too much
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
        How many grid points it has.

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


#: What stands beyond the ends of the array, in the words of `numpy.pad` ("nearest" is its "edge").
BOUNDARIES = ("reflect", "symmetric", "nearest", "wrap", "constant")


class Halo(NamedTuple):
    """How far blocks reach into their neighbours, and what they find beyond the array.

    Attributes
    ----------
    depth : int
        Elements on each side; 0 for none.
    boundary : str or None
        One of `BOUNDARIES`; None if blocks are shorter at the ends of the array.
    value : object
        For "constant"; None is the dtype's zero.
    length : int
        Length of the mapped axis.
    axis : int
        That axis, as given: a negative one counts from the end of a result's axes.
    """

    depth: int
    boundary: str | None
    value: Any
    length: int
    axis: int

    def extent(self, lo: int, hi: int) -> tuple[int, int]:
        """What the block ``lo:hi`` sees: from where to where, possibly beyond the array."""
        if self.boundary is None or not self.length:
            return max(0, lo - self.depth), min(self.length, hi + self.depth)
        return lo - self.depth, hi + self.depth

    def inside(self, lo: int, hi: int) -> tuple[int, int]:
        """The part of that which lies in the array."""
        start, stop = self.extent(lo, hi)
        return max(0, start), min(self.length, stop)

    def outside(self, lo: int, hi: int) -> Iterator[range]:
        """The parts of that which do not."""
        start, stop = self.extent(lo, hi)
        if start < 0:
            yield range(start, 0)
        if stop > self.length:
            yield range(self.length, stop)

    def sources(self, beyond: range) -> np.ndarray:
        """Which elements stand beyond the array, as `numpy.pad` has it."""
        places = np.arange(beyond.start, beyond.stop)
        n = self.length
        if self.boundary == "nearest":
            return places.clip(0, n - 1)
        if self.boundary == "wrap":
            return places % n
        if self.boundary == "symmetric":
            places %= 2 * n
            return np.minimum(places, 2 * n - 1 - places)
        period = max(1, 2 * n - 2)
        places %= period
        return np.minimum(places, period - places) if n > 1 else places

    def trim(self, result: np.ndarray, lo: int, hi: int) -> np.ndarray:
        """The part of a block function's result that belongs to ``lo:hi``.

        Raises
        ------
        ValueError
            If the result is not as long as what the function was given.
        """
        start, stop = self.extent(lo, hi)
        axis = self.axis
        if not -result.ndim <= axis < result.ndim or result.shape[axis] != stop - start:
            raise ValueError(
                f"with depth={self.depth} a block function must keep the length of axis {axis}: "
                f"it was given {stop - start} along it and returned an array of shape {result.shape}"
            )
        return result[(slice(None),) * (axis % result.ndim) + (slice(lo - start, hi - start),)]


def checked_halo(depth: Any, boundary: Any, vectorized: bool) -> tuple[int, str | None, Any]:
    """Depth, boundary and constant, if they make sense."""
    depth = check_int("depth", depth, 0)
    if not vectorized:
        if depth:
            raise ValueError(
                f"depth={depth} is for block functions: an element has no neighbours; pass vectorized=True"
            )
        if boundary is not None:
            raise ValueError(f"boundary={boundary!r} is for block functions; pass vectorized=True and depth")
    value: Any = None
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
    """Whether an array of `dtype` can hold `value`."""
    if value is None:
        return True
    if not np.can_cast(np.min_scalar_type(value), dtype, "same_kind"):
        return False
    try:
        np.full(1, value, dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _hint(boundary: Any) -> str:
    same = {"edge": "nearest", "periodic": "wrap", "mirror": "reflect", "none": None}
    if not isinstance(boundary, str) or boundary not in same:
        return ""
    return f"; boundary={same[boundary]!r} is what you mean"
