"""Index arithmetic: cutting a range into blocks, and a flat range into boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

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
