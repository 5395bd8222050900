"""Whether a block function gives the same bits whatever the blocks are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from ._call import Call
from ._halo import Halo
from ._hostile import to_large, to_nan
from ._input import Input
from ._kernel import Kernel
from ._results import Results, Stack
from ._verify import Finding, array_difference

# Elements that are looked at, and the lengths of the blocks that they are cut into.
WINDOW = 24
LENGTHS = (1, 2, 7)
# A halo that is looked for is no deeper than this.
DEEPEST = 2048


class Invariance:
    """Tries a block function on blocks that are not those of the plan.

    A window around a cut is computed at once and in blocks of hostile lengths;
    and what lies beyond the halo is changed, which must not matter.

    Parameters
    ----------
    call : Call
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._count = call.count
        self._depth = call.halo.depth if call.halo else 0
        bounds = call.bounds or [(0, 0)]
        # Far from both ends, which a recursion may start from.
        cut = bounds[len(bounds) // 2][0]
        if abs(2 * cut - self._count) > self._count // 2:
            cut = self._count // 2
        lo = max(0, min(cut - WINDOW // 2, self._count - WINDOW))
        self._lo, self._hi = lo, min(self._count, lo + WINDOW)
        self._where = call.name(self._lo, self._hi)
        # NumPy adds up the rows of a Fortran-ordered block otherwise where it has only one row, which no plan has
        # unless it is asked for.
        ones = any(hi - lo == 1 for lo, hi in call.bounds or ())
        self._lengths = LENGTHS if ones else LENGTHS[1:]

    def find(self) -> Finding | None:
        """What is wrong, if anything is seen to be."""
        if self._hi - self._lo < 2:
            return None
        # Made-up values are not the user's: what they give rise to is not to be heard of.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._looks_too_far() or self._depends_on_length()

    # Blocks of other lengths.

    def _depends_on_length(self) -> Finding | None:
        lo, hi = self._lo, self._hi
        whole = self._compute(lo, hi)
        if whole is None:
            return None
        for length in self._lengths:
            for first in sorted({lo + length, lo + 1}):  # from the window's start, and shifted
                cuts = [lo, *range(first, hi, length), hi]
                parts = [self._compute(a, b) for a, b in pairwise(cuts) if a < b]
                told = None if None in parts else self._told(whole, parts)
                if told is not None:
                    return self._block_finding(f"blocks of {length} give other bits than one of {hi - lo} ({told})")
        return None

    def _told(self, whole: list[np.ndarray], parts: list[Any]) -> str | None:
        """How the whole window differs from its parts."""
        for k, array in enumerate(whole):
            pieces = [part[k] for part in parts]
            try:
                joined = np.concatenate(pieces, axis=self._call.axis[0])
            except ValueError as error:
                return str(error)
            told = array_difference(array, joined)
            if told is not None:
                return told[1]
        return None

    def _block_finding(self, seen: str) -> Finding:
        text = (
            f"the function's bits depend on the length or the start of its blocks, {self._where}: {seen}. Means over "
            "the block, running sums, recursive filters, FFTs and matrix products do that. The result is that of the "
            "blocks that parwise.plan shows; with verify=None it is taken as it is"
        )
        return Finding("block", text, self._lo)

    # What lies beyond the halo.

    def _looks_too_far(self) -> Finding | None:
        told = self._influence(self._depth)
        if told is None:
            return None
        enough = self._enough()
        if enough is None:
            return self._block_finding(f"values {self._depth + 1} away change bits ({told})")
        return Finding(
            "halo",
            f"the function looks further than depth={self._depth}: values {self._depth + 1} away change bits "
            f"({told}), {self._where}. depth={enough} would do",
            self._lo,
            enough,
        )

    def _enough(self) -> int | None:
        """The least depth beyond which nothing is seen to matter."""
        bad, step = self._depth, 1
        while True:
            good = bad + step
            if good > DEEPEST or not self._has_room(good):
                return None
            if self._influence(good) is None:
                break
            bad, step = good, 2 * step
        while good - bad > 1:
            middle = (good + bad) // 2
            if self._influence(middle) is None:
                good = middle
            else:
                bad = middle
        return good

    def _has_room(self, depth: int) -> bool:
        """Whether something lies so far away from the window, on both sides: recursions look to one only."""
        return self._lo > depth and self._hi + depth < self._count

    def _influence(self, depth: int) -> str | None:
        """How results change with what lies `depth` + 1 elements away, if they do."""
        halo = Halo(depth + 1, None, 0, self._count, self._call.axis[0])
        lo, hi = self._lo, self._hi
        before = self._compute(lo, hi, halo)
        if before is None:
            return None
        for change in (to_nan, to_large):
            after = self._compute(lo, hi, halo, change)
            if after is not None:
                return self._told(before, [after])
        return None

    def _compute(
        self, lo: int, hi: int, halo: Halo | None = None, change: Callable[[np.ndarray], bool] | None = None
    ) -> list[np.ndarray] | None:
        """What the function gives for a block; None if that says nothing.

        Parameters
        ----------
        lo, hi : int
        halo : Halo, optional
            In the place of the call's own.
        change : callable
            Changes the outermost elements of the halo, and says whether it could.
        """
        call = self._call
        halo = halo or call.halo
        runs = []
        for one in call.inputs:
            source = Input(one.source, one.axes, True)
            if halo is not None:
                source.reach(halo)
            run = source.private(lo, hi)
            if change is not None and halo is not None and not self._change_ends(run, one.axes[0], halo, change):
                return None
            runs.append(run)
        kernel = Kernel(call.func, call.args, call.kwargs, True, halo=halo)
        results = kernel.run(runs, lo, hi).results
        return None if results is None else _copies(results)

    def _change_ends(self, run: np.ndarray, axis: int, halo: Halo, change: Callable[[np.ndarray], bool]) -> bool:
        lo, hi = self._lo, self._hi
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
