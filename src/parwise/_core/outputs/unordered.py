"""Results as they come, for `parallel_imap` with ``ordered=False``."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ..call import Call
from ..indexing import Task
from ..results import Results, unstacked
from .output import Output


class UnorderedOutput(Output):
    """The results one after another, as they come."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._results: deque[Any] = deque()
        #: Number of results that were taken.
        self.taken = 0

    def is_ready(self, limit: float) -> bool:
        """True if a result is there, of whichever element."""
        return bool(self._results)

    def ends_at(self, limit: float) -> bool:
        """False: which results are missing is known to the runner alone."""
        return False

    def pop(self) -> Any:
        """Remove and return a result."""
        self.taken += 1
        return self._results.popleft()

    def add(self, task: Task, results: Results, indices: np.ndarray | None = None) -> None:
        """Keep the results of `task`."""
        (column,) = results.columns
        self._results.extend(unstacked(column))

    def skip(self, gaps: np.ndarray) -> None:
        """Put a None for each element without a result."""
        self._results.extend([None] * len(gaps))

    def finish(self, gaps: np.ndarray) -> list[Any]:
        """Return nothing: all has been taken."""
        return []
