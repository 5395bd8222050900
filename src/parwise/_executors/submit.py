"""`Pool.submit`: the queue of submitted calls, the job that computes them, and the thread that manages the workers."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from .._core.call import Call, Naming
from .._core.indexing import Task
from .._core.inputs.items import ENDLESS, ItemColumn
from .._core.kernel import Outcome
from .._core.settings import Settings
from .._system.interpreter import DeferredInterrupt
from .._system.surroundings import CallerState
from .._workers.encoding import unpack_error
from .._workers.pickling.sent_definitions import Definitions
from .._workers.pool.worker_pool import WorkerPool
from .._workers.session import perform, read_state_again
from ..errors import ParwiseError, WorkerDiedError
from .dispatcher import Dispatcher
from .job import Job


@dataclass(slots=True, eq=False)
class WorkItem:
    """One submitted call; `parts` are those of its `definitions` that a worker needs first."""

    future: Future[Any]
    packed: bytes
    name: str
    definitions: Definitions
    parts: list[int]
    state: CallerState


class WorkQueue(Naming):
    """The queue of submitted calls, first in, first out: items and tasks of a job in one.

    Each call is a task of its own, since its time is not known, and no call
    waits at one worker while another is free.
    """

    count = expected = ENDLESS
    error: BaseException | None = None
    queue_ahead = False
    pace: float | None = None
    remedy = "Without the pool the same call can be made in this process"

    def __init__(self) -> None:
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

    def add(self, item: WorkItem) -> None:
        """Append a call."""
        with self._lock:
            self._waiting.append(item)

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

    def next_task(self, workers: int = 1, capacity: int | None = None) -> Task | None:
        """The next call, or None."""
        with self._lock:
            if self._returned:
                return self._returned.popleft()
            while self._waiting and not self.shut and not self.outdated:
                item = self._waiting.popleft()
                if item.future.set_running_or_notify_cancel():
                    self._taken[self._next] = item
                    self._next += 1
                    return Task(self._next - 1, self._next)
            return None

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Take back calls whose worker ended before it began them."""
        with self._lock:
            self._returned.extend(tasks)

    def item(self, index: int) -> WorkItem:
        """A call that has begun."""
        return self._taken[index]

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
        for item in waiting:
            item.future.cancel()
            item.future.set_running_or_notify_cancel()

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

    def measure(self, task: Task, seconds: float) -> None:
        """Do nothing: the next call may be of another function."""

    def cut(self, index: int) -> None:
        """Do nothing: no call depends on another one."""


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
        self.state = items.update()
        self.open()
        self.queue = feed

    def needed_parts(self, task: Task) -> tuple[Definitions, list[int]]:
        """The parts of definitions that a call needs."""
        item = self._items.item(task.lo)
        return item.definitions, item.parts

    def accept(self, task: Task, outcome: Outcome, who: object = None) -> None:
        """Hand the result of a call to its future."""
        item = self._items.close(task.lo)
        assert item is not None
        self.repeat()  # before a thread that waits for the result goes on
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

    def state_for(self, task: Task) -> CallerState | None:
        """What surrounded a call when it was submitted."""
        return self._items.state_at(task.lo)

    def repeat(self) -> None:
        """Replay the output of calls, which have no order."""
        self.output_replay.repeat(self.limit, everything=True)

    def skip(self, task: Task, error: BaseException) -> None:
        """Hand the death of its worker to the future of a call."""
        item = self._items.close(task.lo)
        if item is not None:
            if isinstance(error, WorkerDiedError):
                error.index = None
            item.future.set_exception(error)
        self.output_replay.close(task.lo, task.hi)


# Workers keep the session of the manager for so long after the last call: the next one then takes 0.2 ms, otherwise
# 1 ms.
LINGER_SECONDS = 0.1


class PoolFuture(Future[Any]):
    """A future that refuses to be waited for by the thread that sets its result."""

    def __init__(self, manager: ManagerThread) -> None:
        super().__init__()
        self._manager = manager

    def result(self, timeout: float | None = None) -> Any:
        """Return the result of the call, or raise its exception."""
        if not self.done():
            self._manager.check_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception of the call, or None."""
        if not self.done():
            self._manager.check_wait()
        return super().exception(timeout)


class ManagerThread:
    """Accepts submitted calls, and runs a thread that dispatches them as long as there are any."""

    def __init__(self, pool: WorkerPool, workers: int) -> None:
        self._pool = pool
        self._workers = workers
        self._items = WorkQueue()
        # State of the latest submitted call.
        self._state: CallerState | None = None
        # Entered directly and not through the condition, which an interrupt could leave locked.
        self._lock = threading.RLock()
        self._change = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        # Set when that thread is about to end: an interrupted `join` takes it for ended.
        self._over = threading.Event()
        # True while that thread uses the workers; other calls that want them; True once the pool is closed, or killed.
        self._dispatching = False
        self._wanted: set[object] = set()
        self._closing = self._killing = False

    @property
    def busy(self) -> bool:
        """True if a call has no result yet."""
        return self._items.open or self._items.waiting

    @property
    def count(self) -> tuple[int, int]:
        """Numbers of calls that have begun, and that wait."""
        return self._items.count_now()

    def state(self) -> CallerState:
        """State of the calling thread; the same object as long as nothing changes."""
        self._state = state = read_state_again(self._state, idle=not self.busy)
        return state

    def submit(self, item: WorkItem) -> None:
        """Append a call; it begins as soon as a worker is free."""
        with DeferredInterrupt(), self._lock:
            if self._thread is None:
                # Not a daemon: at exit Python waits for submitted calls, as for other executors.
                over = threading.Event()
                thread = threading.Thread(target=self._run, args=(over,), name="parwise-manager")
                thread.start()
                self._thread, self._over = thread, over
            self._items.add(item)
        self._pool.wake()

    def check_wait(self) -> None:
        """Raise a RuntimeError in the manager's own thread, which cannot wait for itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a callback of one of the pool's own futures cannot wait for its workers")

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Reserve the workers for a mapped call: submitted calls that have begun finish first, the others wait."""
        self.check_wait()
        call = object()
        try:
            try:
                with self._lock:
                    self._wanted.add(call)
                    self._items.shut = True
                self._pool.wake()
                with self._lock:
                    self._change.wait_for(lambda: not self._dispatching)
                yield
            finally:
                self._end_turn(call)
        finally:
            self._end_turn(call)  # again, if an interrupt came during it

    def _end_turn(self, call: object) -> None:
        with self._lock:
            self._wanted.discard(call)
            self._items.shut = bool(self._wanted)
            self._change.notify_all()

    def close(self, wait: bool, cancel: bool, kill: bool) -> None:
        """End the workers once calls have their results; may be called again, to wait or to end them sooner.

        Parameters
        ----------
        wait : bool
            True to wait until they have ended.
        cancel : bool
            True to cancel calls that have not begun.
        kill : bool
            True to kill workers that are computing.
        """
        if self._pool.owned_by_parent:  # a forked child: locks may be held by threads that it has not
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
        """The manager thread."""
        try:
            while self._take_turn():
                try:
                    with self._pool.lock:
                        self._dispatch()
                except BaseException as error:
                    for item in self._items.close_all():
                        item.future.set_exception(error)
                finally:
                    with self._lock:
                        self._dispatching = False
                        self._change.notify_all()
            if self._closing:
                with self._pool.lock:
                    self._pool.stop()
        finally:
            over.set()

    def _take_turn(self) -> bool:
        """Wait until no mapped call wants the workers; return True if submitted calls are left."""
        with self._lock:
            self._change.wait_for(lambda: not self._wanted)
            self._dispatching = self.busy
            if not self._dispatching:
                self._thread = None
            return self._dispatching

    def _dispatch(self) -> None:
        """Dispatch submitted calls until none is left, or a mapped call wants the workers."""
        items = self._items
        job = SubmitJob(items, self._workers)
        with Dispatcher(job, self._pool) as dispatcher:
            dispatcher.start()
            while not (items.empty and not items.open and (self._wanted or self._closing or items.outdated)):
                if self._killing:
                    raise ParwiseError("the pool was left by an interrupt, which ended its workers")
                dispatcher.assign_tasks()
                idle = not self.busy
                dispatcher.step(LINGER_SECONDS if idle else None)
                job.repeat()
                if idle and not self.busy:
                    return
