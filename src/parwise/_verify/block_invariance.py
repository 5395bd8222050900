"""Whether a block function gives the same bits whatever the blocks are."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from .._core.call import Call
from .._core.indexing import Halo
from .._core.input_array import InputArray
from .._core.kernel import Kernel
from .._core.results import Results, Stack
from .difference import Difference, array_difference


def to_nan(values: np.ndarray) -> bool:
    """Make all NaN, which spreads through whatever it touches, also in sums that go on for ever."""
    if values.dtype.kind in "fc":
        values[...] = np.nan
        return True
    return False


def to_large(values: np.ndarray) -> bool:
    """Make all large, or as large as can be."""
    if values.dtype.kind in "fc":
        values[...] = 1e3 * (1 + abs(values.ravel()).max()) if values.size else 0
    elif values.dtype.kind in "iu":
        values[...] = np.iinfo(values.dtype).max
    elif values.dtype.kind == "b":
        np.logical_not(values, out=values)
    else:
        return False
    return True


def sprinkle(values: np.ndarray) -> bool:
    """Put NaN of both signs, infinities, zeros of both signs and subnormal numbers among the others."""
    if values.dtype.kind not in "fc" or not values.size:
        return False
    tiny = np.finfo(values.dtype).smallest_subnormal
    special = np.array([np.nan, -0.0, tiny, -np.nan, 3 * tiny, 0.0, np.inf, -tiny, -np.inf], values.dtype)
    result_axes = np.arange(0, values.size, 3)
    # `flat` also takes arrays that are not contiguous.
    values.flat[result_axes] = special[result_axes // 3 % special.size]
    return True


# Elements that are looked at, and the lengths of the blocks that they are cut into.
WINDOW = 24
LENGTHS = (1, 2, 7)
# A halo that is looked for is no deeper than this.
DEEPEST = 2048


class TimeBudget:
    """Seconds that looking may take.

    Parameters
    ----------
    seconds : float
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds

    def allows(self, seconds: float) -> bool:
        """Whether there is so much time left."""
        return time.perf_counter() + seconds < self._end


#: Changes values, and says whether it could.
Change = Callable[[np.ndarray], bool]


class BlockInvariance:
    """Tries a block function on blocks that are not those of the plan.

    Windows of some elements are computed at once and in blocks of hostile
    lengths; and what lies beyond the halo is changed, which must not matter.

    Parameters
    ----------
    call : Call
    budget : TimeBudget
        How long that may take; the first tests are made in any case.
    ends : callable
        Says whether the function comes to an end on changed values, which it
        need not do.
    """

    def __init__(self, call: Call, budget: TimeBudget, ends: Callable[[list[np.ndarray], int], bool]) -> None:
        self._call = call
        self._budget = budget
        self._ends = ends
        self._count = call.count
        self._depth = call.halo.depth if call.halo else 0
        bounds = call.bounds or [(0, 0)]
        # Around a cut far from both ends, which a recursion may start from.
        cut = bounds[len(bounds) // 2][0]
        if abs(2 * cut - self._count) > self._count // 2:
            cut = self._count // 2
        self._middle = self._window(cut - WINDOW // 2)
        # NumPy adds up the rows of a Fortran-ordered block otherwise where it has only one row, which no plan has
        # unless it is asked for.
        ones = any(hi - lo == 1 for lo, hi in bounds)
        self._lengths = LENGTHS if ones else LENGTHS[1:]

    def _window(self, lo: int) -> tuple[int, int]:
        lo = max(0, min(lo, self._count - WINDOW))
        return lo, min(self._count, lo + WINDOW)

    def find(self) -> Difference | None:
        """What is wrong, if anything is seen to be."""
        if self._count < 2:
            return None
        # Made-up values are not the user's: what they give rise to is not to be heard of.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._looks_too_far() or self._depends_on_length()

    def _finding(self, seen: str, window: tuple[int, int], depth: int | None) -> Difference:
        where = self._call.name(*window)
        if depth is not None:
            text = f"the function looks further than depth={self._depth}, {where}: {seen}. depth={depth} would do"
            return Difference("halo", text, window[0], depth)
        text = (
            f"the function's bits depend on the length or the start of its blocks, {where}: {seen}. Means over "
            "the block, running sums, recursive filters, FFTs and matrix products do that. The result is that of the "
            "blocks that parwise.plan shows; with verify=None it is taken as it is"
        )
        return Difference("block", text, window[0])

    def _enough(self, wrong: Callable[[int], bool]) -> int | None:
        """The least depth for which something is not `wrong` any more."""
        bad, step = self._depth, 1
        while wrong(good := bad + step):
            # Recursions look to one side only: without room on both nothing can be said.
            if good > DEEPEST or not self._has_room(2 * good):
                return None
            bad, step = good, 2 * step
        while good - bad > 1:
            middle = (good + bad) // 2
            if wrong(middle):
                bad = middle
            else:
                good = middle
        return good

    # Blocks of other lengths.

    def _depends_on_length(self) -> Difference | None:
        for window in dict.fromkeys([self._middle, self._window(0), self._window(self._count)]):
            if window != self._middle and not self._budget.allows(0.0):
                return None
            seen = self._length_matters(window, self._call.halo)
            if seen is not None:
                return self._finding(seen, window, self._deeper(window) if self._depth else None)
        return None

    def _deeper(self, window: tuple[int, int]) -> int | None:
        """A halo with which the length of blocks does not matter."""

        def wrong(depth: int) -> bool:
            return self._length_matters(window, self._halo(depth)) is not None

        return self._enough(wrong) if self._has_room(2 * self._depth) else None

    def _length_matters(self, window: tuple[int, int], halo: Halo | None) -> str | None:
        """How blocks of hostile lengths differ from one large one, if they do."""
        lo, hi = window
        whole = self._compute(lo, hi, halo)
        if whole is None:
            return None
        for length in self._lengths:
            for first in (lo + length, lo + length + length // 2):  # also shifted
                cuts = [lo, *range(first, hi - length + 1, length), hi]
                parts = [self._compute(a, b, halo) for a, b in pairwise(cuts)]
                told = self._told(whole, parts)
                if told is not None:
                    return f"blocks of {length} give other bits than one of {hi - lo} ({told})"
        return None

    def _told(self, whole: list[np.ndarray], parts: list[list[np.ndarray] | None]) -> str | None:
        """How a whole window differs from its parts; they say nothing if the function raises for one."""
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        for k, array in enumerate(whole):
            joined = np.concatenate([part[k] for part in found], axis=self._call.axis[0])
            told = array_difference(array, joined)
            if told is not None:
                return told[1]
        return None

    # What lies beyond the halo.

    def _looks_too_far(self) -> Difference | None:
        told = self._influence(self._depth)
        if told is None:
            return None
        enough = self._enough(lambda depth: self._influence(depth) is not None)
        return self._finding(f"values {self._depth + 1} away change bits ({told})", self._middle, enough)

    def _has_room(self, depth: int) -> bool:
        """Whether something lies so far away from the middle window, on both sides."""
        lo, hi = self._middle
        return lo > depth and hi + depth < self._count

    def _influence(self, depth: int) -> str | None:
        """How results change with what lies `depth` + 1 elements away, if they do."""
        lo, hi = self._middle
        halo = self._halo(depth + 1)
        before = self._compute(lo, hi, halo)
        for change in (to_nan, to_large):
            after = None if before is None else self._compute(lo, hi, halo, change)
            told = None if before is None else self._told(before, [after])
            if told is not None:
                return told
        return None

    def _halo(self, depth: int) -> Halo:
        return Halo(depth, None, 0, self._count, self._call.axis[0])

    def _compute(self, lo: int, hi: int, halo: Halo | None, change: Change | None = None) -> list[np.ndarray] | None:
        """What the function gives for a block; None if it raises.

        Parameters
        ----------
        lo, hi : int
        halo : Halo or None
        change : callable
            Changes the outermost elements of the halo.
        """
        call = self._call
        runs = []
        for one in call.inputs:
            source = InputArray(one.source, one.axes, True)
            if halo is not None:
                source.set_halo(halo)
            run = source.private(lo, hi)
            if change is not None and halo is not None and not self._change_ends(run, one.axes[0], halo, change):
                return None
            runs.append(run)
        if change is not None and halo is not None:
            start, stop = halo.extent(lo, hi)
            if not self._ends(runs, stop - start):
                return None
        kernel = Kernel(call.func, call.args, call.kwargs, True, halo=halo)
        results = kernel.run(runs, lo, hi).results_or_interrupt()
        return None if results is None else _copies(results)

    def _change_ends(self, run: np.ndarray, axis: int, halo: Halo, change: Change) -> bool:
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


def _copies(results: Results) -> list[np.ndarray]:
    return [column.array.copy() for column in results.columns if isinstance(column, Stack)]
