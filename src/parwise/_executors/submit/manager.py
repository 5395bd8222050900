"""The thread that manages the workers of submitted calls, and their futures."""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..._system.interpreter import DeferredInterrupt
from ..._system.surroundings import CallerState
from ..._workers.pool.worker_pool import WorkerPool
from ..._workers.session import read_state_again
from ...errors import ParwiseError
from .call_dispatcher import CallDispatcher
from .submit_job import SubmitJob
from .work_queue import BATCH_BYTES, WorkItem, WorkQueue

# Workers keep the session of the manager for so long after the last call: the next one then takes 0.2 ms, otherwise
# 1 ms.
LINGER_SECONDS = 0.1


class PoolFuture(Future[Any]):
    """A future that refuses to be waited for where its result never comes, and whose callbacks end no thread."""

    def __init__(self, manager: ManagerThread) -> None:
        super().__init__()
        self._manager = manager

    def complete(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Make the call in this thread."""
        self.set_running_or_notify_cancel()
        try:
            self.set_result(fn(*args, **kwargs))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # as a worker does
            self.set_exception(error)

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

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Have `fn` called with the future once it is done; what it raises is logged."""
        super().add_done_callback(partial(self._manager.call_back, fn))


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
            if self._items.add(item):  # else the manager looks again before it sleeps, or a free worker wakes it
                self._pool.wake()

    def check_wait(self) -> None:
        """Raise a RuntimeError in the manager's own thread, which cannot wait for itself, and in a forked child."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a callback of one of the pool's own futures cannot wait for its workers; wait in another "
                "thread, or after the callback"
            )
        if self._pool.owned_by_parent:
            raise RuntimeError(
                "the result of this call comes to the process that this one was forked from; wait for it there, or "
                "make a Pool of its own here"
            )

    def call_back(self, fn: Callable[[Future[Any]], object], future: Future[Any]) -> None:
        """Call a callback; one that would end the manager's thread raises an error, which `concurrent` logs."""
        try:
            fn(future)
        except Exception:
            raise
        except BaseException as error:
            if threading.current_thread() is not self._thread or self._pool.owned_by_parent:
                raise
            raise RuntimeError(
                f"a callback of a future of a Pool raised {type(error).__name__}, which ends no program from there"
            ) from error

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
        try:
            if cancel:
                self._items.cancel()
        finally:
            self._close(wait, kill)

    def _close(self, wait: bool, kill: bool) -> None:
        with self._lock:
            self._closing, self._killing = True, self._killing or kill
            thread, over = self._thread, self._over
        if thread is None:
            self._end_idle(wait)
            return
        self._pool.wake()
        if wait:
            self.check_wait()
            over.wait()
            thread.join()

    def _end_idle(self, wait: bool) -> None:
        """End workers that compute no submitted call."""
        if self._pool.finalizes and not (wait or self._killing):
            # Nobody waits for the finalizer: not who shuts down the pool so, nor a garbage collection, which may come
            # while this thread holds a lock of `threading`. At exit the pool itself waits.
            with contextlib.suppress(RuntimeError):  # no new thread: Python is being torn down
                _thread.start_new_thread(self._end_now, ())
                return
        self._end_now()

    def _end_now(self) -> None:
        with self.turn(), self._pool.lock:
            self._end_workers()

    def _end_workers(self) -> None:
        if self._killing:
            self._pool.stop()
        else:
            self._pool.end()

    def _run(self, over: threading.Event) -> None:
        """The manager thread."""
        try:
            while self._take_turn():
                try:
                    with self._pool.lock:
                        self._dispatch()
                except BaseException as error:
                    with contextlib.ExitStack() as rest:  # what one of them raises leaves none out
                        for item in reversed(self._items.close_all()):
                            rest.callback(item.future.set_exception, error)
                finally:
                    with self._lock:
                        self._dispatching = False
                        self._change.notify_all()
            if self._closing:
                with self._pool.lock:
                    self._end_workers()
        finally:
            with self._lock:
                if self._over is over:  # an error has ended it: the next call needs another one
                    self._thread = None
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
        items.room = min(BATCH_BYTES, self._pool.slot_bytes)
        job = SubmitJob(items, self._workers)
        with CallDispatcher(job, self._pool) as dispatcher:
            dispatcher.start()
            self._drive(job, dispatcher)

    def _drive(self, job: SubmitJob, dispatcher: CallDispatcher) -> None:
        items = self._items
        # Until workers have told the end of their batches, though all results may have been read from their logs: a
        # worker that seems to be at work gets no finalizer.
        while not (
            items.empty and not items.open and dispatcher.idle and (self._wanted or self._closing or items.outdated)
        ):
            if self._killing:
                raise ParwiseError("the call has no result: an interrupt (Ctrl-C) left the pool, and ended its workers")
            dispatcher.assign_tasks()
            idle = not self.busy
            dispatcher.step(LINGER_SECONDS if idle else None)
            job.repeat()
            if idle and not self.busy and dispatcher.idle:
                return
