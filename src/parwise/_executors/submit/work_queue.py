"""The queue of submitted calls."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..._core.call import Call, Naming
from ..._core.indexing import Task
from ..._core.inputs.items import ENDLESS
from ..._system.surroundings import CallerState
from ..._workers.pickling.sent_definitions import Definitions
from ..._workers.worker.calls import BATCH_SECONDS

# Calls that wait are shared out evenly: a batch is this part of a worker's share of them.
SHARES = 2
# A worker has a second batch while it computes one, if the calls in it are shorter than this.
AHEAD_SECONDS = 0.0005
# With more short calls than these for each worker the manager pauses: it and the threads that submit calls would else
# hand the GIL to each other for each of them, which takes 10 to 25 us of 60. A pause is 1 ms, or so long for each call.
MANY = 4
PAUSE_SECONDS = 0.001
PAUSE_SHARE = 2e-5
# Bytes of the calls in a batch of several, at most.
BATCH_BYTES = 2**17


@dataclass(slots=True, eq=False)
class WorkItem:
    """One submitted call; `parts` are those of its `definitions` that a worker needs first."""

    future: Future[Any]
    packed: bytes
    name: str
    definitions: Definitions | None
    parts: Sequence[int]
    state: CallerState

    def goes_with(self, first: WorkItem) -> bool:
        """True if the call may be in one batch with `first`: a worker sets one state, and keeps few definitions."""
        plain = not (self.parts or first.parts)
        return self.state is first.state and (plain or self.definitions is first.definitions)


class WorkQueue(Naming):
    """The queue of submitted calls, first in, first out: items and tasks of a job in one.

    A task is a batch of calls that take `BATCH_SECONDS` together, by the pace of those before; one call where they are
    longer, or few, so that no call waits at one worker while another is free.

    Attributes
    ----------
    room : int
        Bytes that the calls in a batch of several may take.
    """

    count = expected = ENDLESS
    error: BaseException | None = None
    pace: float | None = None
    remedy = "Without the pool the same call can be made in this process"

    def __init__(self) -> None:
        self.room = BATCH_BYTES
        self._waiting: deque[WorkItem] = deque()
        self._returned: deque[Task] = deque()
        self._taken: dict[int, WorkItem] = {}
        self._next = 0
        # A signal handler, or a generator that garbage collection ends, may come back here.
        self._lock = threading.RLock()
        # True while waiting calls may not begin.
        self.shut = False
        # State that the workers have and cannot change, see `CallerState`.
        self.fixed: tuple[Any, ...] = ()

    def add(self, item: WorkItem) -> bool:
        """Append a call; return True if none waited: who takes calls may have gone to sleep."""
        with self._lock:
            self._waiting.append(item)
            return len(self._waiting) == 1

    @property
    def waiting(self) -> bool:
        """True if a call has not begun."""
        return bool(self._waiting)

    @property
    def open(self) -> bool:
        """True if a call has begun and has no result yet."""
        return bool(self._taken)

    @property
    def empty(self) -> bool:
        """True if no call can begin."""
        return not self._returned and (self.shut or not self._waiting or self.outdated)

    @property
    def outdated(self) -> bool:
        """True if the next call needs new workers: a module was reloaded before, or the program has another user."""
        with self._lock:
            return bool(self._waiting) and self._waiting[0].state.fixed != self.fixed

    def state_at(self, index: int) -> CallerState:
        """What surrounds a call that has begun."""
        return self._taken[index].state

    def update(self) -> CallerState | None:
        """Expect workers as the next call needs them; return what surrounds it."""
        with self._lock:
            state = self._waiting[0].state if self._waiting else None
            self.fixed = self.fixed if state is None else state.fixed
        return state

    @property
    def queue_ahead(self) -> bool:
        """True if a worker should hold a second batch while it computes one."""
        with self._lock:
            short = self.pace is not None and self.pace < AHEAD_SECONDS
            return short and bool(self._waiting) and not self._returned and len(self._waiting[0].packed) <= self.room

    def pause(self, workers: int) -> float:
        """Seconds for which calls and results may gather, where there are many short ones; else 0."""
        calls = len(self._taken) + len(self._waiting)
        many = self.pace is not None and self.pace < AHEAD_SECONDS and calls > MANY * workers
        return min(PAUSE_SECONDS, calls * PAUSE_SHARE) if many else 0.0

    def next_task(self, workers: int = 1) -> Task | None:
        """The next calls, or None."""
        with self._lock:
            if self._returned:
                return self._returned.popleft()
            if self.shut or self.outdated:
                return None
            lo = self._next
            self._take(lo + self._batch_length(workers))
            return Task(lo, self._next) if self._next > lo else None

    def _take(self, stop: int) -> None:
        """Take waiting calls that one worker can make in one go, up to number `stop`."""
        room, first = self.room, None
        while self._waiting and self._next < stop:
            item = self._waiting[0]
            room -= len(item.packed)
            if item.state.fixed != self.fixed:  # the one before it was cancelled
                break
            if first is not None and (room < 0 or not item.goes_with(first)):
                break
            self._waiting.popleft()
            if item.future.set_running_or_notify_cancel():
                if first is None:
                    first = item
                self._taken[self._next] = item
                self._next += 1

    def _batch_length(self, workers: int) -> int:
        if self.pace is None:
            return 1
        return max(1, min(int(BATCH_SECONDS / self.pace), len(self._waiting) // (SHARES * workers)))

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Take back calls that their worker has not begun; they are the next, in the order in which they came."""
        with self._lock:
            self._returned.extend(task for task in tasks if len(task))
            self._returned = deque(sorted(self._returned, key=lambda task: task.lo))

    def lose(self, tasks: Iterable[Task]) -> None:
        """Take back calls whose worker has ended before it began them."""
        self.give_back(tasks)

    def item(self, index: int) -> WorkItem:
        """A call that has begun."""
        return self._taken[index]

    def is_open(self, index: int) -> bool:
        """True if a call has begun and has no result yet."""
        return index in self._taken

    def close(self, index: int) -> WorkItem | None:
        """Remove a call that has its result, and return it; None if it was removed before."""
        with self._lock:
            return self._taken.pop(index, None)

    def close_all(self) -> list[WorkItem]:
        """Remove all calls without a result, and return them."""
        with self._lock:
            begun, waiting = list(self._taken.values()), list(self._waiting)
            self._taken.clear()
            self._waiting.clear()
            self._returned.clear()
        return begun + [item for item in waiting if item.future.set_running_or_notify_cancel()]

    def cancel(self) -> None:
        """Cancel the calls that have not begun."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        with contextlib.ExitStack() as rest:  # a callback that raises, as `sys.exit` does, leaves none out
            for item in reversed(waiting):
                rest.callback(item.future.set_running_or_notify_cancel)
                rest.callback(item.future.cancel)

    def count_now(self) -> tuple[int, int]:
        """Numbers of calls that have begun, and that wait."""
        return len(self._taken), len(self._waiting)

    def name(self, call: Call, index: int, stop: int | None = None) -> str:
        """Names of submitted calls in errors."""
        item = self._taken.get(index)
        return f"in a call of {item.name}" if item is not None else "in a call"

    def items(self, k: int, lo: int, hi: int) -> list[bytes]:
        """Pickled calls ``lo:hi``, the items that a worker receives."""
        return [self._taken[index].packed for index in range(lo, hi)]

    def release(self, lo: int, hi: int) -> None:
        """Do nothing: calls are removed by `close`."""

    def measure(self, calls: int, seconds: float) -> None:
        """Note how long calls took: longer ones count at once, shorter ones by half, since the next may be another."""
        pace = seconds / calls
        self.pace = pace if self.pace is None else max(pace, 0.5 * (pace + self.pace))

    def cut(self, index: int) -> None:
        """Do nothing: no call depends on another one."""
