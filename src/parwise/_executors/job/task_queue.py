"""The queue of elements that are left to compute."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ..._core.call import Call
from ..._core.indexing import Runs, Task
from ..._core.inputs.items import ENDLESS, LOOK_AHEAD
from .task_length import LEAST_SECONDS, TASK_SECONDS, TaskLength

# A second task waits at a worker only if it is shorter than this: a long one is kept for the first free worker.
QUEUE_SECONDS = 0.050


class TaskQueue:
    """Hands out tasks, lowest index first.

    Parameters
    ----------
    capacity : int
        Elements that fit one task.
    start : int, optional
        The first element, if those before it are computed already.
    transfer_seconds : callable, optional
        Better knowledge than the call's of the seconds to send an element.

    Notes
    -----
    Several threads may take tasks. A task is handed out once, and again only if it is given back. Those that were with
    a worker that has ended are for workers alone.
    """

    def __init__(
        self, call: Call, capacity: int, start: int = 0, transfer_seconds: Callable[[], float] | None = None
    ) -> None:
        #: Elements that fit one task.
        self.capacity = capacity
        self._run_end = min((one.run_end for one in call.inputs if one.run_end), default=None)
        self._stream = call.stream
        self._call = call
        #: Index up to which elements may be handed out for now.
        self.limit = ENDLESS
        self._blocks = None if call.bounds is None else deque(Task(*bounds) for bounds in call.bounds)
        self._first = 0 if self._stream is None else self._stream.first
        self._next = max(start, self._first)
        self._stop = call.count
        # Runs of elements behind that up to `_stop`, if others were computed by an earlier call.
        self._later: deque[tuple[int, int]] = deque()
        # No task from there on counts.
        self._cut: float = ENDLESS
        self._returned: list[Task] = []
        # Tasks of workers that have ended, and the first elements of all such tasks so far.
        self._lost: list[Task] = []
        self._dangerous: set[int] = set()
        self._transfer_seconds = transfer_seconds or call.transfer_seconds
        self._lock = threading.Lock()
        # Runs of elements that take whole chunks of files, and how many elements such tasks have at most.
        self._runs: Runs | None = None
        self._run_capacity = 0
        self._run_seconds = 0.0
        #: How long elements take, and tasks should be.
        self.length = TaskLength()

    def keep(self, runs: Sequence[tuple[int, int]]) -> None:
        """Hand out only elements, or blocks, in some runs: sorted, apart from each other, at least one."""
        (self._next, self._stop), *later = runs
        self._first = self._next
        self._later = deque(later)
        if self._blocks is not None:
            starts = [lo for lo, _ in runs]
            kept = [task for task in self._blocks if task.lo < runs[max(0, bisect_right(starts, task.lo) - 1)][1]]
            self._blocks = deque(task for task in kept if task.lo >= self._first)

    def next_task(
        self,
        seconds: float = TASK_SECONDS,
        workers: int = 1,
        look_ahead: int = LOOK_AHEAD,
        lost: bool = False,
        last: bool = False,
        capacity: int | None = None,
    ) -> Task | None:
        """The next task, or None. Its items are taken from their stream.

        Parameters
        ----------
        seconds : float
            Length of the task, if the time of an element is known. The length of blocks is fixed.
        workers : int
            Workers that share the rest.
        look_ahead : int
            Number of items of a stream that are read for other workers.
        lost : bool
            True if the task may be one that was with a worker that has ended.
        last : bool
            True to take the task from the end of what is left; not of a stream.
        capacity : int, optional
            Elements that fit this task, if not the capacity of the queue.
        """
        stream = self._stream
        while True:
            if stream is not None and not (self._returned or (lost and self._lost)):
                lo = self._next
                # Not under the lock: an iterator may be slow.
                stream.read(min(lo + self._size(lo, seconds, workers, capacity) + look_ahead, self._end), lo + 1)
            task = self._take(seconds, workers, lost, last, capacity)
            # Another thread may have taken all that this one has read.
            if task is not None or stream is None or not stream.readable or self._next >= self._end:
                return task

    def _take(self, seconds: float, workers: int, lost: bool, last: bool, capacity: int | None) -> Task | None:
        """Hand out the next task, as far as its items have been read."""
        with self._lock:
            if lost and self._lost:
                return self._take_returned(self._lost, capacity or self.capacity)
            if self._returned:
                return self._take_returned(self._returned, capacity or self.capacity)
            if self._blocks is not None:
                return self._take_block(last)
            if last:
                return self._take_last(seconds, workers, capacity)
            if self._next >= self._stop and self._later:
                self._next, self._stop = self._later.popleft()
            lo = self._next
            # The first one alone: its results are compared with a worker's.
            hi = min(lo + (self._size(lo, seconds, workers, capacity) if lo != self._first else 1), self._end)
            if self._runs is not None and lo != self._first and lo < hi:
                hi = self._aligned(self._runs, lo, hi)
            if self._stream is not None:
                hi = min(hi, self._stream.read_to)
                self._stream.take(lo, hi)
            if lo >= hi:
                return None
            self._next = hi
            return Task(lo, hi)

    def align(self, runs: Runs | None, capacity: int, seconds: float = math.inf) -> None:
        """Let tasks of up to `capacity` elements take whole runs, which their workers read from files; None ends it.

        Only if runs are known to take less than so many `seconds`.
        """
        with self._lock:
            self._runs, self._run_capacity, self._run_seconds = runs, capacity, seconds

    def _takes_runs(self, lo: int) -> bool:
        """True if a task that begins at `lo` takes whole runs; the first task of all is one element."""
        runs = self._runs
        if runs is None or lo == self._first or runs.around(lo)[0] < lo:
            return False
        return self._run_seconds == math.inf or (
            self.pace is not None and self.pace * runs.longest <= self._run_seconds
        )

    def _aligned(self, runs: Runs, lo: int, hi: int) -> int:
        """Where a task from `lo` on ends, which would end at `hi`."""
        if not self._takes_runs(lo):
            return min(hi, runs.around(lo)[1])
        start, stop = runs.around(hi - 1)
        return start if lo < start and hi < stop else min(stop, self._end)

    def _take_block(self, last: bool) -> Task | None:
        """Hand out the first block left, or the last one unless it is the first of all."""
        blocks = self._blocks
        if not blocks or (last and blocks[-1].lo == self._first):
            return None
        return blocks.pop() if last else blocks.popleft()

    def _take_last(self, seconds: float, workers: int, capacity: int | None) -> Task | None:
        """Hand out the last task of those left; not across the end of a run, nor the first element."""
        alone = not self._later
        lo, hi = (self._next + (self._next == self._first), self._stop) if alone else self._later[-1]
        if lo >= hi:
            return None
        begin = hi - self._size(lo, seconds, workers, capacity)
        if self._run_end:
            begin = max(begin, (hi - 1) // self._run_end * self._run_end)
        begin = max(lo, begin)
        if alone:
            self._stop = begin
        else:
            self._later.pop()
            self._later.extend([(lo, begin)] if begin > lo else [])
        return Task(begin, hi)

    def _take_returned(self, returned: list[Task], capacity: int) -> Task:
        """Hand out the first task that was given back, or as much of it as fits."""
        task = returned.pop(0)
        if self._blocks is None and len(task) > capacity and not self._takes_runs(task.lo):
            rest = Task(task.lo + capacity, task.hi)
            returned.insert(0, rest)
            if returned is self._lost:
                self._dangerous.add(rest.lo)
            task = Task(task.lo, rest.lo)
        return task

    def next_unread(self, seconds: float) -> Task | None:
        """The next task, if all its items are unread and may be read one by one, as they are computed.

        Only for the thread that reads. The task may end sooner, which `advance` must tell.
        """
        stream = self._stream
        if stream is None or not stream.lazy:
            return None
        with self._lock:
            lo = self._next
            if self._returned or stream.read_to > lo or lo >= self._end:
                return None
            return Task(lo, min(lo + self._size(lo, seconds, 1), self._end))

    @property
    def next(self) -> int:
        """The lowest element that has not been handed out, but for tasks that were given back."""
        return self._next

    def advance(self, index: int) -> None:
        """Go on behind the items of a stream before `index`, which have been read and computed."""
        assert self._stream is not None
        with self._lock:
            self._next = self._stream.read_to = index

    @property
    def _end(self) -> int:
        """Index up to which elements may be handed out, as far as is known."""
        return min(self.limit, self._known_stop)

    @property
    def _known_stop(self) -> int:
        return self._stop if self._stream is None else min(self._stop, self._stream.count)

    def _size(self, lo: int, seconds: float, workers: int, capacity: int | None = None) -> int:
        """Elements of the next task."""
        most = self._run_capacity if self._takes_runs(lo) else capacity or self.capacity
        size = self.length.elements(most, seconds, workers, min(self._call.expected, self._stop) - lo)
        if self._run_end:
            size = min(size, self._run_end - lo % self._run_end)
        return max(1, size)

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Take back tasks whose results do not count."""
        self._take_back(self._returned, tasks)

    def lose(self, tasks: Iterable[Task]) -> None:
        """Take back tasks of a worker that has ended; no other process than a worker gets them again."""
        tasks = list(tasks)
        self._dangerous.update(task.lo for task in tasks)
        self._take_back(self._lost, tasks)

    def _take_back(self, returned: list[Task], tasks: Iterable[Task]) -> None:
        with self._lock:
            returned.extend(task for task in tasks if task.lo < self._cut)
            returned.sort(key=lambda task: task.lo)

    @property
    def has_lost(self) -> bool:
        """True if tasks of dead workers are left, which only other workers may compute."""
        return bool(self._lost)

    def is_for_workers(self, task: Task) -> bool:
        """True if a task was with a worker that has ended: the function may end this process too."""
        return task.lo in self._dangerous

    def resume(self, task: Task) -> None:
        """Take back a task that nobody has begun, where nothing else is left; it may be handed out in parts."""
        with self._lock:
            if self._blocks is None:
                self._next, self._stop = task.lo, max(task.lo, min(task.hi, int(self._cut)))
            elif task.lo < self._cut:
                self._blocks.append(task)

    def restrict(self, task: Task) -> None:
        """Hand out `task` and nothing else."""
        with self._lock:
            self._next = self._stop
            self._later.clear()
            self._blocks = None if self._blocks is None else deque()
            self._returned = [task]

    def cut(self, index: int) -> None:
        """Hand out nothing from `index` on: an error there ends the call."""
        with self._lock:
            self._cut, self._stop = min(self._cut, index), min(self._stop, index)
            self._drop_from(index)

    def _drop_from(self, index: int) -> None:
        for tasks in (self._returned, self._lost):
            tasks[:] = [task for task in tasks if task.lo < index]
        if self._blocks is not None:
            self._blocks = deque(task for task in self._blocks if task.lo < index)
        self._later = deque((lo, min(hi, index)) for lo, hi in self._later if lo < index)

    def measure(self, task: Task, seconds: float) -> None:
        """Update the time of an element from a finished task."""
        with self._lock:
            self.length.measure(len(task), seconds)

    @property
    def pace(self) -> float | None:
        """Seconds of an element, if one has been measured."""
        return self.length.pace

    def expect_pace(self, seconds: float) -> None:
        """Plan with the seconds that elements took in an earlier call, until one is measured."""
        self.length.pace = seconds

    @property
    def mean_pace(self) -> float | None:
        """Mean seconds of the elements measured, if there are any."""
        return self.length.mean_pace

    @property
    def seconds_left(self) -> float:
        """Seconds that one process needs for the rest, less the seconds that transferring it to workers takes."""
        pace, transfer_seconds = self.length.pace or 0.0, self._transfer_seconds()
        if transfer_seconds:  # the mean: one slow moment of the machine must not make a transfer seem worth it
            mean = self.mean_pace
            pace = max(0.0, min(pace, pace if mean is None else mean) - transfer_seconds)
        return self.count_left * pace

    @property
    def count_left(self) -> int:
        """Elements that have not been handed out, or were given back."""
        with self._lock:
            left = sum(map(len, self._returned)) + sum(map(len, self._lost))
            if self._blocks is not None:
                return left + (self._blocks[-1].hi - self._blocks[0].lo if self._blocks else 0)
            if self._stream is None:  # in few steps: each look between two tasks asks for it
                left += max(0, self._stop - self._next)
            else:
                stop = min(self._known_stop, max(self._call.expected, self._next + 1))
                # An iterator of unknown length is assumed to be half done.
                left += max(0, (stop if stop < ENDLESS else 2 * self._next) - self._next)
            return left + sum(hi - lo for lo, hi in self._later) if self._later else left

    @property
    def queue_ahead(self) -> bool:
        """True if a worker should hold a second task while it computes one."""
        with self._lock:
            length = len(self._blocks[0]) if self._blocks else 1
            return self.pace is not None and self.pace * length < QUEUE_SECONDS

    @property
    def slow(self) -> bool:
        """True unless elements are known to take less time than it takes to hand one over."""
        return self.pace is None or self.pace > LEAST_SECONDS

    @property
    def empty(self) -> bool:
        """True if all elements have been handed out; may read an item to find out."""
        if self._stream is not None:
            self._stream.read(min(self._next + 1, self._end))
        return self.seems_empty

    @property
    def seems_empty(self) -> bool:
        """True if all elements have been handed out, as far as is known."""
        with self._lock:
            left = bool(self._blocks) if self._blocks is not None else self._next < self._known_stop or self._later
            return not (left or self._returned or self._lost)
