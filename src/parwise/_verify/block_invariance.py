"""Block invariance: a block function returns the same bits for every division into blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from .._clock import perf_counter
from .._core.call import Call
from .._core.indexing import Halo
from .._core.inputs.arrays import InputArray
from .._core.kernel import Kernel
from .._core.layout import Layout
from .._core.results import Results, Stack
from .difference import Difference, array_difference


def to_nan(values: np.ndarray) -> bool:
    """Set all values to NaN, which no sum or product can lose; False if the dtype has none."""
    if values.dtype.kind in "fc":
        values[...] = np.nan
        return True
    return False


def to_large(values: np.ndarray) -> bool:
    """Set all values to large ones, and reverse booleans; False if the dtype has no numbers."""
    if values.dtype.kind in "fc":
        values[...] = 1e3 * (1 + abs(values.ravel()).max()) if values.size else 0
    elif values.dtype.kind in "iu":
        values[...] = np.iinfo(values.dtype).max
    elif values.dtype.kind == "b":
        np.logical_not(values, out=values)
    else:
        return False
    return True


def insert_special(values: np.ndarray) -> bool:
    """Set every third value to a special one; False if the dtype is not floating-point or there are no values.

    Examples
    --------
    >>> values = np.ones(7)
    >>> insert_special(values), values[:4]
    (True, array([nan,  1.,  1., -0.]))
    """
    if values.dtype.kind not in "fc" or not values.size:
        return False
    tiny = np.finfo(values.dtype).smallest_subnormal
    special = np.array([np.nan, -0.0, tiny, -np.nan, 3 * tiny, 0.0, np.inf, -tiny, -np.inf], values.dtype)
    positions = np.arange(0, values.size, 3)
    # `flat` also takes arrays that are not contiguous.
    values.flat[positions] = special[positions // 3 % special.size]
    return True


# Elements of a window, and lengths of the blocks that it is divided into.
WINDOW = 24
LENGTHS = (1, 2, 7)
# Largest depth of a halo that is tried.
MAX_DEPTH = 2048


class TimeBudget:
    """Time limit of an audit, counted from now."""

    def __init__(self, seconds: float) -> None:
        self._end = perf_counter() + seconds

    def allows(self, seconds: float) -> bool:
        """True if `seconds` from now are within the limit."""
        return perf_counter() + seconds < self._end


#: Changes values in place; returns True if it could.
Change = Callable[[np.ndarray], bool]


class BlockInvariance:
    """Calls a block function on blocks that differ from those of the plan.

    Windows of `WINDOW` elements are computed as one block and as several
    blocks of `LENGTHS`. Values beyond the halo are changed. Neither may change
    the bits of results. The first comparisons ignore `budget`.

    Parameters
    ----------
    terminates : callable
        Takes changed arguments and their number of elements; returns True if
        the function returns within a timeout. On changed values it may not.
    """

    def __init__(self, call: Call, budget: TimeBudget, terminates: Callable[[list[np.ndarray], int], bool]) -> None:
        self._call = call
        self._budget = budget
        self._terminates = terminates
        self._count = call.count
        self._halo_of_call = call.halo.sides[0] if call.halo else None
        self._depth = self._halo_of_call.depth if self._halo_of_call else 0
        bounds = call.bounds or [(0, 0)]
        # Around a border between two blocks, far from both ends of the axis: a recursion may start at either.
        cut = bounds[len(bounds) // 2][0]
        if abs(2 * cut - self._count) > self._count // 2:
            cut = self._count // 2
        self._middle = self._window(cut - WINDOW // 2)
        # NumPy adds the rows of a Fortran-ordered block in a different order if there is only one row. No plan has
        # such blocks, unless the user asks for them.
        self._lengths = LENGTHS if any(hi - lo == 1 for lo, hi in bounds) else LENGTHS[1:]

    def _window(self, lo: int) -> tuple[int, int]:
        lo = max(0, min(lo, self._count - WINDOW))
        return lo, min(self._count, lo + WINDOW)

    def find(self) -> Difference | None:
        """Return a difference that a change of values beyond the halo makes, or of the length of blocks, if any."""
        if self._count < 2:
            return None
        # The user must not see warnings about values that are not theirs.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._halo_difference() or self._block_difference()

    def _difference(self, detail: str, window: tuple[int, int], depth: int | None) -> Difference:
        where = self._call.name(*window)
        if depth is not None:
            text = (
                f"the function looks further than depth={self._depth}, {where}: {detail}. depth={depth} is sufficient"
            )
            return Difference("halo", text, window[0], depth)
        text = (
            f"the function's bits depend on the length or the start of its blocks, {where}: {detail}. "
            "Means over the block, running sums, recursive filters, FFTs and matrix products do that. "
            "The result is that of the blocks that parwise.plan shows; pass verify=None to accept it"
        )
        return Difference("block", text, window[0])

    def _smallest_depth(self, differs: Callable[[int], bool]) -> int | None:
        """Smallest depth for which `differs` returns False; None if there is none up to `MAX_DEPTH`."""
        too_small, step = self._depth, 1
        while differs(enough := too_small + step):
            # A recursion reads values on one side only, so no depth can be found without room on both sides.
            if enough > MAX_DEPTH or not self._has_room(2 * enough):
                return None
            too_small, step = enough, 2 * step
        while enough - too_small > 1:
            middle = (enough + too_small) // 2
            if differs(middle):
                too_small = middle
            else:
                enough = middle
        return enough

    # Blocks of different lengths.

    def _block_difference(self) -> Difference | None:
        """Difference between one block and several, in the middle or at an end of the axis."""
        for window in dict.fromkeys([self._middle, self._window(0), self._window(self._count)]):
            if window != self._middle and not self._budget.allows(0.0):
                return None
            detail = self._length_difference(window, self._halo_of_call)
            if detail is not None:
                return self._difference(detail, window, self._sufficient_depth(window) if self._depth else None)
        return None

    def _sufficient_depth(self, window: tuple[int, int]) -> int | None:
        """Smallest depth with which the length of blocks does not change bits."""

        def differs(depth: int) -> bool:
            return self._length_difference(window, self._halo(depth)) is not None

        return self._smallest_depth(differs) if self._has_room(2 * self._depth) else None

    def _length_difference(self, window: tuple[int, int], halo: Halo | None) -> str | None:
        """Text of the difference between blocks of `LENGTHS` and one block of the whole window."""
        lo, hi = window
        whole = self._compute(lo, hi, halo)
        if whole is None:
            return None
        for length in self._lengths:
            for first in (lo + length, lo + length + length // 2):  # also with another start
                cuts = [lo, *range(first, hi - length + 1, length), hi]
                parts = [self._compute(a, b, halo) for a, b in pairwise(cuts)]
                text = self._joined_difference(whole, parts)
                if text is not None:
                    return f"blocks of {length} have different bits than one of {hi - lo} ({text})"
        return None

    def _joined_difference(self, whole: list[np.ndarray], parts: list[list[np.ndarray] | None]) -> str | None:
        """Text of the difference between a whole window and its parts; None too if the function raised for a part."""
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        for k, array in enumerate(whole):
            joined = np.concatenate([part[k] for part in found], axis=self._call.axis[0])
            text = array_difference(array, joined)
            if text is not None:
                return text[1]
        return None

    # Values beyond the halo.

    def _halo_difference(self) -> Difference | None:
        """Difference that a change of values beyond the halo makes."""
        text = self._far_difference(self._depth)
        if text is None:
            return None
        smallest = self._smallest_depth(lambda depth: self._far_difference(depth) is not None)
        return self._difference(f"values {self._depth + 1} away change bits ({text})", self._middle, smallest)

    def _has_room(self, depth: int) -> bool:
        """True if there are elements more than `depth` away from the middle window, on both sides."""
        lo, hi = self._middle
        return lo > depth and hi + depth < self._count

    def _far_difference(self, depth: int) -> str | None:
        """Text of the difference that a change of values `depth` + 1 elements away makes."""
        lo, hi = self._middle
        halo = self._halo(depth + 1)
        before = self._compute(lo, hi, halo)
        for change in (to_nan, to_large):
            after = None if before is None else self._compute(lo, hi, halo, change)
            text = None if before is None else self._joined_difference(before, [after])
            if text is not None:
                return text
        return None

    def _halo(self, depth: int) -> Halo:
        return Halo(depth, None, 0, self._count, self._call.axis[0])

    def _compute(self, lo: int, hi: int, halo: Halo | None, change: Change | None = None) -> list[np.ndarray] | None:
        """Results of a block, with the outermost elements of its halo changed; None if it raises or that fails."""
        call = self._call
        runs = []
        for one in call.inputs:
            source = InputArray(one.source, one.axes, True)
            if halo is not None:
                source.set_halo(halo)
            run = source.private(lo, hi)
            if change is not None and not _changes_alone(source.block_layout(lo, hi), one.axes[0]):
                return None
            if change is not None and halo is not None and not self._change_outermost(run, one.axes[0], halo, change):
                return None
            runs.append(run)
        if change is not None and halo is not None:
            start, stop = halo.extent(lo, hi)
            if not self._terminates(runs, stop - start):
                return None
        kernel = Kernel(call.func, call.args, call.kwargs, True, halo=halo)
        results = kernel.run(runs, lo, hi).results_or_interrupt()
        return None if results is None else _copies(results)

    def _change_outermost(self, run: np.ndarray, axis: int, halo: Halo, change: Change) -> bool:
        """Change the outermost elements of the halo; False if their dtype does not allow it."""
        lo, hi = self._middle
        along = (slice(None),) * axis
        writeable, run.flags.writeable = run.flags.writeable, True
        changed = True
        if lo >= halo.depth:
            changed &= change(run[(*along, slice(0, 1))])
        if hi + halo.depth <= self._count:
            changed &= change(run[(*along, slice(-1, None))])
        run.flags.writeable = writeable
        return changed


def _changes_alone(layout: Layout, axis: int) -> bool:
    """True if to change one element along an axis of a copy changes no other."""
    return not layout.overlaps and (layout.strides[axis] != 0 or layout.shape[axis] < 2)


def _copies(results: Results) -> list[np.ndarray]:
    return [column.array.copy() for column in results.columns if isinstance(column, Stack)]
