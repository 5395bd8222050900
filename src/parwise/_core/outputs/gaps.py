"""Gaps: the elements of a call without a result, the warning that tells of them, and their values."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import GapWarning, user_level
from ..call import Call
from ..indexing import Task
from ..messages.notes import name_with_item

# Number of indices that the text of the warning names, and of exceptions that the warning holds.
MOST_NAMED = 20
MOST_ERRORS = 1000


class Gaps:
    """The gaps of one call: elements without a result."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._found: list[np.ndarray] = []
        # Index, name in errors, and reason of the first gap.
        self._first: tuple[int, str, BaseException] | None = None
        self._errors: dict[int, BaseException] = {}
        self._lock = threading.Lock()

    def add(
        self, task: Task, gaps: np.ndarray, error: BaseException, failures: Sequence[BaseException] = ()
    ) -> np.ndarray:
        """Note gaps in `task`, and return all elements that they cover.

        `error` is the reason of the first one, and `failures` are the reasons of as many as are known.
        """
        first = int(gaps[0])
        known = dict(zip(gaps.tolist(), failures or [error], strict=False))
        # Now, as long as the item is there.
        name = "" if self._first and first > self._first[0] else name_with_item(self._call, first, task.hi)
        if self._call.vectorized:
            gaps = np.arange(task.lo, task.hi)
        with self._lock:
            self._found.append(gaps)
            if len(self._errors) < MOST_ERRORS:
                self._errors.update(known)
            if self._first is None or first < self._first[0]:
                self._first = first, name, error
        return gaps

    def remaining(self, task: Task, gaps: np.ndarray | None) -> np.ndarray | None:
        """Indices in `task` that are not `gaps`; None if there are no gaps."""
        if gaps is None:
            return None
        every = np.arange(task.lo, task.hi)
        return every[~np.isin(every, gaps)]

    @property
    def indices(self) -> np.ndarray:
        """The indices of all gaps, in order; along several axes blocks are numbered one after another."""
        if not self._found:
            return np.empty(0, np.intp)
        # Not np.unique, which imports numpy.ma: 0.1 s.
        every = np.sort(np.concatenate(self._found))
        return every[np.diff(every, prepend=-1) > 0]

    def warn(self) -> None:
        """Warn the user of gaps, if there are any."""
        if self._first is None:
            return
        call, naming = self._call, self._call.naming
        _, name, error = self._first
        gaps = self.indices
        if call.block_grid is not None:
            gaps = gaps[np.lexsort(call.places(gaps)[::-1])]
        indices = naming.public_indices(call, gaps)
        named = ", ".join(map(str, indices[:MOST_NAMED]))
        more = ", ..." if len(indices) > MOST_NAMED else ""
        what = "in blocks that cover" if call.vectorized else "for"
        within = "" if naming.variable is None else f" of variable {naming.variable!r}"
        try:
            reason = f"{type(error).__name__}: {error}"
        except Exception:
            reason = type(error).__name__
        warning = GapWarning(
            f"no result {what} {len(indices)} of {call.count} elements{within}, which are gaps now: {named}{more}. "
            f"The first one, {name}: {reason}"
        )
        warning.indices, warning.labels, warning.variable = indices, naming.labels(call, gaps), naming.variable
        places = np.array(sorted(self._errors))
        keys = naming.public_indices(call, places)
        warning.errors = dict(zip(keys, map(self._errors.__getitem__, places.tolist()), strict=True))
        warnings.warn(warning, stacklevel=user_level())


def gap_value(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], Any]:
    """The dtype of results with gaps, and the value of a gap.

    Examples
    --------
    >>> import numpy as np
    >>> for one in ("f4", "i2", "M8[D]", "?", "U3"):
    ...     print(one, *gap_value(np.dtype(one)))
    f4 float32 nan
    i2 float64 nan
    M8[D] datetime64[D] NaT
    ? object None
    U3 object None
    """
    if dtype.kind in "fc":
        return dtype, np.nan
    if dtype.kind in "iu":
        return np.dtype(np.float64), np.nan
    if dtype.kind in "mM":
        return dtype, np.array("NaT", dtype)[()]  # with its unit: NumPy deprecates NaT without one
    return np.dtype(object), None


def gap_in(out: Any, dtype: np.dtype[Any]) -> tuple[np.dtype[Any], Any]:
    """The same for results of `dtype` that go to the array `out`; objects have the gap that the results have."""
    return (out.dtype, gap_value(dtype)[1]) if out.dtype == object else gap_value(out.dtype)
