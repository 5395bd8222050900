"""Elements without a result, where errors are to be ignored."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np

from ._call import Call
from ._split import Task
from .errors import user_level

# So many indices are named in the warning.
NAMED = 20


def gap_value(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], Any]:
    """The dtype of results with gaps, and what stands in a gap.

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
        return dtype, np.array("NaT", dtype)[()]  # of that unit: NumPy is giving up the generic one
    return np.dtype(object), None


class Gaps:
    """The gaps of one call.

    Parameters
    ----------
    call : Call
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._found: list[np.ndarray] = []
        # Index, end of its task, and reason of the first one.
        self._first: tuple[int, int, BaseException] | None = None
        self._lock = threading.Lock()

    def add(self, task: Task, gaps: np.ndarray, error: BaseException) -> None:
        """Note gaps in `task`; `error` is the reason of the first of them."""
        first = int(gaps[0])
        if self._call.vectorized:
            gaps = np.arange(task.lo, task.hi)
        with self._lock:
            self._found.append(gaps)
            if self._first is None or first < self._first[0]:
                self._first = first, task.hi, error

    def others(self, task: Task, gaps: np.ndarray | None) -> np.ndarray | None:
        """Indices of the results of `task` if it has gaps."""
        if gaps is None:
            return None
        every = np.arange(task.lo, task.hi)
        return every[~np.isin(every, gaps)]

    @property
    def indices(self) -> np.ndarray:
        """All gaps, in order."""
        if not self._found:
            return np.empty(0, np.intp)
        # Not np.unique, which imports numpy.ma: 0.1 s.
        every = np.sort(np.concatenate(self._found))
        return every[np.diff(every, prepend=-1) > 0]

    def warn(self) -> None:
        """Tell the user of the gaps, if there are any."""
        if self._first is None:
            return
        call, indices = self._call, self.indices
        index, stop, error = self._first
        named = ", ".join(str(call.public_index(int(one))) for one in indices[:NAMED])
        more = ", ..." if len(indices) > NAMED else ""
        what = "in blocks that cover" if call.vectorized else "for"
        try:
            reason = f"{type(error).__name__}: {error}"
        except Exception:
            reason = type(error).__name__
        warnings.warn(
            f"no result {what} {len(indices)} of {call.count} elements, which are gaps now: {named}{more}. "
            f"The first one, {call.name(index, stop)}: {reason}",
            RuntimeWarning,
            stacklevel=user_level(),
        )
