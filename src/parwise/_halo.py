"""Blocks that see some of their neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ._checks import is_int

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
    if not is_int(depth):
        raise TypeError(f"depth must be an int, got {depth!r} of type {type(depth).__name__}")
    if depth < 0:
        raise ValueError(f"depth must not be negative, got {depth}")
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
    return int(depth), boundary, value


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
