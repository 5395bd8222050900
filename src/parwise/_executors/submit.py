"""Single calls of functions: a queue of them, and a job without an end whose tasks they are."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.call import Call, Naming
from .._core.indexing import Task
from .._core.input_items import ENDLESS, ItemColumn
from .._core.kernel import Outcome
from .._core.settings import Settings
from .._system.interpreter import DeferredInterrupt
from .._workers.encoding import unpack_error
from .._workers.session import perform
from .._workers.worker_pool import WorkerPool
from ..errors import ParwiseError, WorkerDiedError
from .dispatcher import Dispatcher
from .job import Job


@dataclass(slots=True, eq=False)
class WorkItem:
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


class WorkQueue(Naming):
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
        self._waiting: deque[WorkItem] = deque()
        self._returned: deque[Task] = deque()
        self._taken: dict[int, WorkItem] = {}
        self._next = 0
        # A signal's handler, or what the collector ends, may come back here.
        self._lock = threading.RLock()
        # Whether new ones have to wait.
        self.shut = False

    def add(self, item: WorkItem) -> None:
        """Have one more call made."""
        with self._lock:
            self._waiting.append(item)

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

    def next_task(self, workers: int = 1) -> Task | None:
        """The next call to make, if there is one."""
        with self._lock:
            if self._returned:
                return self._returned.popleft()
            while self._waiting and not self.shut:
                item = self._waiting.popleft()
                if item.future.set_running_or_notify_cancel():
                    self._taken[self._next] = item
                    self._next += 1
                    return Task(self._next - 1, self._next)
            return None

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Have calls made again, whose worker ended before it came to them."""
        with self._lock:
            self._returned.extend(tasks)

    def close(self, index: int) -> WorkItem | None:
        """The call of that number, whose result is there; None if that was known before."""
        with self._lock:
            return self._taken.pop(index, None)

    def close_all(self) -> list[WorkItem]:
        """All calls without a result, which none of them will have."""
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
        for item in waiting:
            item.future.cancel()
            item.future.set_running_or_notify_cancel()

    def count_now(self) -> tuple[int, int]:
        """How many calls have begun, and how many wait."""
        return len(self._taken), len(self._waiting)

    def name(self, call: Call, index: int, stop: int | None = None) -> str:
        """How errors name a call."""
        item = self._taken.get(index)
        return f"in a call of {item.name}" if item is not None else "in a call"

    def column(self, k: int, lo: int, hi: int) -> np.ndarray:
        """What the worker gets."""
        return np.fromiter((self._taken[index].packed for index in range(lo, hi)), object, hi - lo)

    def drop(self, lo: int, hi: int) -> None:
        """Calls are let go of as they are closed."""

    def measure(self, task: Task, seconds: float) -> None:
        """The next call may be of another function."""

    def cut(self, index: int) -> None:
        """No call depends on another one."""


class SubmitJob(Job):
    """A job without an end, whose results go to futures."""

    def __init__(self, items: WorkQueue, workers: int) -> None:
        settings = Settings(workers=workers, isolate=True, verify=False, ignore=True)
        feed: Any = items
        columns: Any = (ItemColumn(feed, 0),)
        grid = (ENDLESS,)
        call = Call(perform, columns, (), {}, False, (0,), grid, None, None, None, None, settings, feed, "list", items)
        super().__init__(call)
        self._items = items
        self.open()
        self.queue = feed

    def accept(self, task: Task, outcome: Outcome, who: object = None) -> None:
        """Take the result of a call."""
        item = self._items.close(task.lo)
        assert item is not None
        self.repeat()  # before whoever waits for the result goes on
        if outcome.error is not None:  # a result that cannot be pickled
            item.future.set_exception(outcome.error)
        else:
            assert outcome.results is not None
            done, value = outcome.results.columns[0][0]  # type: ignore[index]
            if done:
                item.future.set_result(value)
            else:
                item.future.set_exception(unpack_error(value))
        self.output_replay.close(task.lo, task.hi)

    def repeat(self) -> None:
        """Show what calls have said, which are in no order."""
        self.output_replay.repeat(self.limit, everything=True)

    def skip(self, task: Task, error: BaseException) -> None:
        """Its worker died."""
        item = self._items.close(task.lo)
        if item is not None:
            if isinstance(error, WorkerDiedError):
                error.index = None
            item.future.set_exception(error)
        self.output_replay.close(task.lo, task.hi)


# After the last call workers keep what they know of the manager for so long: the
# next one takes 0.2 ms then, and 1 ms otherwise.
LINGER_SECONDS = 0.1


class PoolFuture(Future[Any]):
    """A future that does not let the thread wait which is to bring its result.

    Parameters
    ----------
    manager : ManagerThread
    """

    def __init__(self, manager: ManagerThread) -> None:
        super().__init__()
        self._manager = manager

    def result(self, timeout: float | None = None) -> Any:
        """What the call returned, or raised."""
        if not self.done():
            self._manager.check_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised."""
        if not self.done():
            self._manager.check_wait()
        return super().exception(timeout)


class ManagerThread:
    """Takes calls, and has a thread of its own lead the workers as long as there are any.

    Parameters
    ----------
    pool : WorkerPool
    workers : int
    """

    def __init__(self, pool: WorkerPool, workers: int) -> None:
        self._pool = pool
        self._workers = workers
        self._items = WorkQueue()
        # Entered by itself and not through the condition, which an interrupt could leave locked.
        self._lock = threading.RLock()
        self._change = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        # Set once that thread is about to end: an interrupted `join` takes it for ended.
        self._over = threading.Event()
        # Whether that thread has the workers now, which calls want them, and whether all is to end.
        self._leading = False
        self._wanted: set[object] = set()
        self._closing = self._killing = False

    @property
    def busy(self) -> bool:
        """Whether calls have no result yet."""
        return self._items.open or self._items.waiting

    @property
    def count(self) -> tuple[int, int]:
        """How many calls have begun, and how many wait."""
        return self._items.count_now()

    def submit(self, item: WorkItem) -> None:
        """Have a call made as soon as a worker is free."""
        with DeferredInterrupt(), self._lock:
            if self._thread is None:
                # Not a daemon: at its end Python waits for what has been asked for, as for other executors.
                over = threading.Event()
                thread = threading.Thread(target=self._run, args=(over,), name="parwise-manager")
                thread.start()
                self._thread, self._over = thread, over
            self._items.add(item)
        self._pool.wake()

    def check_wait(self) -> None:
        """Refuse to wait in the thread that would have to bring what is waited for."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a callback of one of the pool's own futures cannot wait for its workers")

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Have the workers for another kind of call: what has begun comes to its end first, and the rest waits."""
        self.check_wait()
        call = object()
        try:
            try:
                with self._lock:
                    self._wanted.add(call)
                    self._items.shut = True
                self._pool.wake()
                with self._lock:
                    self._change.wait_for(lambda: not self._leading)
                yield
            finally:
                self._end_turn(call)
        finally:
            self._end_turn(call)  # again, in case that an interrupt came in the midst of it

    def _end_turn(self, call: object) -> None:
        with self._lock:
            self._wanted.discard(call)
            self._items.shut = bool(self._wanted)
            self._change.notify_all()

    def close(self, wait: bool, cancel: bool, kill: bool) -> None:
        """End the workers, once calls have their results; may be said again, to wait or to have it sooner.

        Parameters
        ----------
        wait : bool
            Whether to wait for that.
        cancel : bool
            Whether calls that have not begun are left out.
        kill : bool
            Whether workers are ended in the midst of theirs.
        """
        if self._pool.owned_by_parent:  # locks may be held by threads that are not there
            return
        if cancel:
            self._items.cancel()
        with self._lock:
            self._closing, self._killing = True, self._killing or kill
            thread, over = self._thread, self._over
        if thread is None:
            with self.turn(), self._pool.lock:
                self._pool.stop()
            return
        self._pool.wake()
        if wait:
            self.check_wait()
            over.wait()
            thread.join()

    def _run(self, over: threading.Event) -> None:
        """In the manager's own thread."""
        try:
            while self._take_turn():
                try:
                    with self._pool.lock:
                        self._lead()
                except BaseException as error:
                    for item in self._items.close_all():
                        item.future.set_exception(error)
                finally:
                    with self._lock:
                        self._leading = False
                        self._change.notify_all()
            if self._closing:
                with self._pool.lock:
                    self._pool.stop()
        finally:
            over.set()

    def _take_turn(self) -> bool:
        """Wait until no other call wants the workers, and tell whether there is anything to do."""
        with self._lock:
            self._change.wait_for(lambda: not self._wanted)
            self._leading = self.busy
            if not self._leading:
                self._thread = None
            return self._leading

    def _lead(self) -> None:
        """Lead the workers until there is nothing to do, or somebody else wants them."""
        items = self._items
        service = SubmitJob(items, self._workers)
        with Dispatcher(service, self._pool) as dispatcher:
            dispatcher.start()
            while not (items.empty and not items.open and (self._wanted or self._closing)):
                if self._killing:
                    raise ParwiseError("the pool was left by an interrupt, which ended its workers")
                dispatcher.assign_tasks()
                idle = not self.busy
                dispatcher.step(LINGER_SECONDS if idle else None)
                service.repeat()
                if idle and not self.busy:
                    return
