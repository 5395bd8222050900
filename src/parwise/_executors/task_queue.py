"""Which elements are computed next, and how many of them make one task."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from .._core.call import Call
from .._core.indexing import Task
from .._core.input_items import ENDLESS, LOOK_AHEAD

# Each hand-over takes 0.1 to 0.2 ms of a CPU that a worker could use: tasks of
# 10 ms cost 5 % of a call of 0.3 s.
TASK_SECONDS = 0.040
# Near the end tasks shrink, so that workers finish together: each is that part
# of a worker's share of what is left (with a third, 0.2 s of work took 2 %
# longer), but not below what its hand-over costs.
SHARES = 2
LEAST_SECONDS = 0.001
# A second task waits at a worker only if its turn comes soon: a long one is
# better kept for whoever is free first.
QUEUE_SECONDS = 0.050


class TaskQueue:
    """Hands out what is left to compute, lowest index first.

    Parameters
    ----------
    call : Call
    capacity : int
        Elements that fit one task.
    start : int, optional
        The first element, if those before it are computed already.

    Notes
    -----
    Several threads may draw from it. What is handed out once is never handed
    out again unless it is given back.
    """

    def __init__(self, call: Call, capacity: int, start: int = 0) -> None:
        self._capacity = capacity
        self._run_end = min((one.run_end for one in call.inputs if one.run_end), default=None)
        self._feed = call.feed
        self._blocks = None if call.bounds is None else deque(Task(*bounds) for bounds in call.bounds)
        self._next = start
        self._stop = call.count
        self._returned: list[Task] = []
        self._transfer_seconds = call.transfer_seconds
        self._lock = threading.Lock()
        self._pace: float | None = None
        self._samples = 0
        self._measured, self._seconds = 0, 0.0

    def next_task(self, seconds: float = TASK_SECONDS, workers: int = 1) -> Task | None:
        """The next task, about `seconds` long if that is known, or None.

        Parameters
        ----------
        seconds : float
            Time it should take. Blocks are what they are.
        workers : int
            How many share what is left.
        """
        with self._lock:
            if self._returned:
                return self._returned.pop(0)
            if self._blocks is not None:
                return self._blocks.popleft() if self._blocks else None
            lo = self._next
            hi = self._fill(min(lo + self._size(lo, seconds, workers), self._stop), lo + 1)
            if lo >= hi:
                return None
            self._next = hi
            return Task(lo, hi)

    def _fill(self, hi: int, least: int) -> int:
        """Have the items before `hi` ready, some more for other workers, and tell how many of them there are.

        Those before `least` in any case, if there are so many.
        """
        if self._feed is None:
            return hi
        found = self._feed.fill(hi + LOOK_AHEAD, least)
        self._stop = min(self._stop, self._feed.count)
        return min(hi, self._stop, found)

    def _size(self, lo: int, seconds: float, workers: int) -> int:
        """Elements of the next task."""
        if self._pace is None:
            return 1
        size = self._capacity
        if self._pace > 0:
            size = min(size, int(seconds / self._pace))
            if workers > 1:
                fair = (self._stop - lo) // (SHARES * workers)
                size = min(size, max(fair, int(LEAST_SECONDS / self._pace)))
        if self._run_end:
            size = min(size, self._run_end - lo % self._run_end)
        return max(1, size)

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Take back tasks whose results are lost or do not count."""
        with self._lock:
            self._returned.extend(tasks)
            self._returned.sort(key=lambda task: task.lo)

    def restrict(self, task: Task) -> None:
        """Hand out `task` and nothing else."""
        with self._lock:
            self._next = self._stop
            self._blocks = None if self._blocks is None else deque()
            self._returned = [task]

    def cut(self, index: int) -> None:
        """Hand out nothing from `index` on: an error there ends the call."""
        with self._lock:
            self._returned = [task for task in self._returned if task.lo < index]
            if self._blocks is not None:
                self._blocks = deque(task for task in self._blocks if task.lo < index)
            self._stop = min(self._stop, index)

    def measure(self, task: Task, seconds: float) -> None:
        """Learn from a finished task how long an element takes."""
        pace = seconds / max(1, len(task))
        with self._lock:
            self._samples += 1
            self._measured += len(task)
            self._seconds += seconds
            # The very first call is slow (imports, caches), so the second one
            # replaces it. From then on half the weight goes to the newest:
            # uneven work changes quickly.
            self._pace = pace if self._pace is None or self._samples == 2 else 0.5 * (self._pace + pace)

    @property
    def pace(self) -> float | None:
        """Seconds that an element takes, if any has been measured yet."""
        return self._pace

    @property
    def seconds_left(self) -> float:
        """Time that one process would need for what has not been handed out, without what handing it out costs."""
        with self._lock:
            if self._blocks is not None:
                left = self._stop - self._blocks[0].lo if self._blocks else 0
            else:
                # What ends who knows when is taken to go on for as long as it has.
                stop = self._stop if self._stop < ENDLESS else 2 * self._next
                left = max(0, stop - self._next)
            pace = self._pace or 0.0
            if (
                transfer_seconds := self._transfer_seconds()
            ):  # which one hiccup of the machine must not seem to be worth
                pace = max(0.0, min(pace, self._seconds / max(1, self._measured)) - transfer_seconds)
            return (left + sum(map(len, self._returned))) * pace

    @property
    def queue_ahead(self) -> bool:
        """Whether a worker should hold a second task while it computes one."""
        with self._lock:
            if self._pace is None:
                return False
            length = len(self._blocks[0]) if self._blocks else 1
            return self._pace * length < QUEUE_SECONDS

    @property
    def empty(self) -> bool:
        """Whether all has been handed out."""
        with self._lock:
            self._fill(self._next, self._next + 1)
            left = bool(self._blocks) if self._blocks is not None else self._next < self._stop
            return not left and not self._returned
