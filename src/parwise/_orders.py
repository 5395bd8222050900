"""Single calls of functions: a queue of them, and a job without an end whose tasks they are."""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._call import Call
from ._items import ENDLESS, Column
from ._job import Job
from ._kernel import Outcome
from ._namespace import restore
from ._options import Settings
from ._parcel import pack_error, unpack_error
from ._split import Task
from .errors import WorkerDiedError


@dataclass(slots=True, eq=False)
class Order:
    """One call that somebody waits for.

    Attributes
    ----------
    future : Future
        Gets the result.
    packed : bytes
        The function and its arguments.
    name : str
        Of the function.
    """

    future: Future[Any]
    packed: bytes
    name: str


def perform(packed: bytes) -> tuple[bool, Any]:
    """In a worker: make the call, and tell whether it raised nothing, and the result or the packed error."""
    try:
        func, args, kwargs = pickle.loads(packed)
        restore()
        return True, func(*args, **kwargs)
    except BaseException as error:
        return False, pack_error(error)


class Orders:
    """What is to be done, first come first served: the feed and the plan of a job in one.

    Each call is a task of its own, since nobody knows how long it takes, and
    none waits at a worker while another one is free.
    """

    count = ENDLESS
    error: BaseException | None = None
    queue_ahead = False
    pace: float | None = None
    remedy = "Without the pool the same call can be made in this process"

    def __init__(self) -> None:
        self._waiting: deque[Order] = deque()
        self._returned: deque[Task] = deque()
        self._taken: dict[int, Order] = {}
        self._next = 0
        # A signal's handler, or what the collector ends, may come back here.
        self._lock = threading.RLock()
        # Whether new ones have to wait.
        self.shut = False

    def add(self, order: Order) -> None:
        """Have one more call made."""
        with self._lock:
            self._waiting.append(order)

    @property
    def waiting(self) -> bool:
        """Whether any call has not begun."""
        return bool(self._waiting)

    @property
    def open(self) -> bool:
        """Whether any call has begun that has no result yet."""
        return bool(self._taken)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to begin with."""
        return not self._returned and (self.shut or not self._waiting)

    def take(self, workers: int = 1) -> Task | None:
        """The next call to make, if there is one."""
        with self._lock:
            if self._returned:
                return self._returned.popleft()
            while self._waiting and not self.shut:
                order = self._waiting.popleft()
                if order.future.set_running_or_notify_cancel():
                    self._taken[self._next] = order
                    self._next += 1
                    return Task(self._next - 1, self._next)
            return None

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Have calls made again, whose worker ended before it came to them."""
        with self._lock:
            self._returned.extend(tasks)

    def close(self, index: int) -> Order | None:
        """The call of that number, whose result is there; None if that was known before."""
        with self._lock:
            return self._taken.pop(index, None)

    def close_all(self) -> list[Order]:
        """All calls without a result, which none of them will have."""
        with self._lock:
            begun, waiting = list(self._taken.values()), list(self._waiting)
            self._taken.clear()
            self._waiting.clear()
            self._returned.clear()
        return begun + [order for order in waiting if order.future.set_running_or_notify_cancel()]

    def cancel(self) -> None:
        """Cancel the calls that have not begun."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for order in waiting:
            order.future.cancel()
            order.future.set_running_or_notify_cancel()

    def count_now(self) -> tuple[int, int]:
        """How many calls have begun, and how many wait."""
        return len(self._taken), len(self._waiting)

    def name(self, index: int) -> str:
        """How an error names a call."""
        order = self._taken.get(index)
        return f"in a call of {order.name}" if order is not None else "in a call"

    def column(self, k: int, lo: int, hi: int) -> np.ndarray:
        """What the worker gets."""
        return np.fromiter((self._taken[index].packed for index in range(lo, hi)), object, hi - lo)

    def drop(self, lo: int, hi: int) -> None:
        """Calls are let go of as they are closed."""

    def measure(self, task: Task, seconds: float) -> None:
        """The next call may be of another function."""

    def cut(self, index: int) -> None:
        """No call depends on another one."""


class Service(Job):
    """A job without an end, whose results go to futures."""

    def __init__(self, orders: Orders, workers: int) -> None:
        settings = Settings(given_workers=workers, isolate=True, verify=False, ignore=True)
        feed: Any = orders
        columns: Any = (Column(feed, 0),)
        call = Call(perform, columns, (), {}, False, (0,), (ENDLESS,), None, None, None, None, settings, feed)
        super().__init__(call)
        self._orders = orders
        self.open()
        self.plan = feed

    def accept(self, task: Task, outcome: Outcome, who: object = None) -> None:
        """Take the result of a call."""
        order = self._orders.close(task.lo)
        assert order is not None
        self.repeat()  # before whoever waits for the result goes on
        if outcome.error is not None:  # a result that cannot be pickled
            order.future.set_exception(outcome.error)
        else:
            assert outcome.results is not None
            done, value = outcome.results.columns[0][0]  # type: ignore[index]
            if done:
                order.future.set_result(value)
            else:
                order.future.set_exception(unpack_error(value))
        self.transcript.close(task.lo, task.hi)

    def repeat(self) -> None:
        """Show what calls have said, which are in no order."""
        self.transcript.repeat(self.limit, everything=True)

    def skip(self, task: Task, error: BaseException) -> None:
        """Its worker died."""
        order = self._orders.close(task.lo)
        if order is not None:
            if isinstance(error, WorkerDiedError):
                error.index = None
            order.future.set_exception(error)
        self.transcript.close(task.lo, task.hi)
