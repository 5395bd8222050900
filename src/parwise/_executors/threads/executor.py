"""An executor with threads of its own, which end soon."""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from ..._system.interpreter import DeferredInterrupt

# A thread waits for so long for another call: a function may keep something for each thread, as a connection.
LINGER_SECONDS = 0.1


class Threads(Executor):
    """Threads of one call; the calling thread does the work where none can be started, as runners see to it.

    `ThreadPoolExecutor` raises an error instead, from the moment that the main thread has ended. It also looks at
    `time.monotonic`, which a test may have replaced. A thread ends soon when nothing is left to do, so that none is
    waited for at exit: an iterator of results may be left half-way.

    Parameters
    ----------
    count : int
        Threads at a time.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._items: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._threads: list[threading.Thread] = []
        # Threads that wait for a call, by the locks on which they do so.
        self._idle: list[Any] = []
        self._running = 0
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call of a function, without keywords."""
        future: Future[Any] = Future()
        with DeferredInterrupt(), self._lock:
            self._items.append((future, function, args))
            if self._idle:
                self._idle.pop().release()
            elif self._running < self._count:
                with contextlib.suppress(RuntimeError):
                    self._start()
        return future

    def _start(self) -> None:
        self._threads = [one for one in self._threads if one.is_alive()]
        # Without `daemon` it would ask for the current thread, which `threading` may not know.
        thread = threading.Thread(target=self._serve, name=f"parwise_{self._running}", daemon=False)
        thread.start()
        self._threads.append(thread)
        self._running += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait until the threads have made all calls."""
        with self._lock:
            self._closed = True
            self._wake_all()
        for thread in self._threads if wait else ():
            thread.join()

    def _wake_all(self) -> None:
        while self._idle:
            self._idle.pop().release()

    def _serve(self) -> None:
        wake = _thread.allocate_lock()
        wake.acquire()
        while True:
            with self._lock:
                item = self._items.popleft() if self._items else None
                if item is None and self._closed:
                    self._running -= 1
                    return
                if item is None:
                    self._idle.append(wake)
            if item is None:
                if not self._is_wanted(wake):
                    return
                continue
            future, function, args = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args))
                except BaseException as error:
                    future.set_exception(error)
            del item, future, function, args

    def _is_wanted(self, wake: Any) -> bool:
        """Wait for a call; False if none comes for a while."""
        if wake.acquire(timeout=LINGER_SECONDS):
            return True
        with self._lock:
            if wake in self._idle:
                self._idle.remove(wake)
                self._running -= 1
                return False
        wake.acquire()  # a call has come just now
        return True
