"""Single calls of functions, taken from any thread and computed by the workers of one pool."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from ._crew import Crew
from ._interrupt import Uninterrupted
from ._orders import Order, Orders, Service
from ._pool import WorkerPool
from .errors import ParwiseError

# After the last call workers keep what they know of the desk for so long: the
# next one takes 0.2 ms then, and 1 ms otherwise.
LINGER_SECONDS = 0.1


class Answer(Future[Any]):
    """A future that does not let the thread wait which is to bring its result.

    Parameters
    ----------
    desk : Desk
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def result(self, timeout: float | None = None) -> Any:
        """What the call returned, or raised."""
        if not self.done():
            self._desk.check_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised."""
        if not self.done():
            self._desk.check_wait()
        return super().exception(timeout)


class Desk:
    """Takes calls, and has a thread of its own lead the workers as long as there are any.

    Parameters
    ----------
    pool : WorkerPool
    workers : int
    """

    def __init__(self, pool: WorkerPool, workers: int) -> None:
        self._pool = pool
        self._workers = workers
        self._orders = Orders()
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
        return self._orders.open or self._orders.waiting

    @property
    def count(self) -> tuple[int, int]:
        """How many calls have begun, and how many wait."""
        return self._orders.count_now()

    def submit(self, order: Order) -> None:
        """Have a call made as soon as a worker is free."""
        with Uninterrupted(), self._lock:
            if self._thread is None:
                # Not a daemon: at its end Python waits for what has been asked for, as for other executors.
                over = threading.Event()
                thread = threading.Thread(target=self._run, args=(over,), name="parwise-desk")
                thread.start()
                self._thread, self._over = thread, over
            self._orders.add(order)
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
                    self._orders.shut = True
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
            self._orders.shut = bool(self._wanted)
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
        if self._pool.foreign:  # locks may be held by threads that are not there
            return
        if cancel:
            self._orders.cancel()
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
        """In the desk's own thread."""
        try:
            while self._take_turn():
                try:
                    with self._pool.lock:
                        self._lead()
                except BaseException as error:
                    for order in self._orders.close_all():
                        order.future.set_exception(error)
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
        orders = self._orders
        service = Service(orders, self._workers)
        with Crew(service, self._pool) as crew:
            crew.start()
            while not (orders.empty and not orders.open and (self._wanted or self._closing)):
                if self._killing:
                    raise ParwiseError("the pool was left by an interrupt, which ended its workers")
                crew.supply()
                idle = not self.busy
                crew.step(LINGER_SECONDS if idle else None)
                service.repeat()
                if idle and not self.busy:
                    return
