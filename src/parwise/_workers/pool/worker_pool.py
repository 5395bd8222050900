"""The caller's side of all workers: starts them, waits for their messages, ends them."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import threading
from abc import ABC, abstractmethod
from typing import Any

from ..._clock import monotonic
from ..._system.inheritance import read_inherited
from ..._system.interpreter import DeferredInterrupt
from ..._system.limits import LOOK_SECONDS, descriptors_allowed, own_bytes
from ..._system.module_watch import watch
from ...errors import NoWorkersError
from ..other_processes import is_stopped
from ..pickling.payload import Payload
from ..protocol import COOKIE_BYTES
from ..shared_memory import fitting_slot_bytes
from .worker_handle import WorkerHandle

# A worker with more memory of its own than this is replaced between two calls.
IDLE_BYTES = 2**29
# Descriptors that are left to the program where their number is limited.
LEFT_DESCRIPTORS = 128


class WorkerPool(ABC):
    """Worker processes, kept for later calls.

    One thread uses it at a time, the holder of `lock`.

    Parameters
    ----------
    slot_bytes : int, optional
        Size of a slot. The default is `fitting_slot_bytes`.
    variables : dict, optional
        Environment variables that processes start with, besides those of this
        one.
    initializer : Payload, optional
        From `pack_initializer`; each new worker runs it before any task.

    Attributes
    ----------
    MOST : int
        Workers that there may be.
    DESCRIPTORS : int
        Those that this process has of each worker.
    why : str, optional
        Why workers are not those that Linux has, if they are not.
    calls : iterator of int
        Numbers for calls.
    dirty : bool
        True while a call uses the workers. The next call that finds it True
        knows that the last one was interrupted, and starts new workers.
    """

    MOST = sys.maxsize
    DESCRIPTORS: int
    why: str | None = None
    finalizes = False  # True if workers call a function before they end

    def __init__(
        self,
        slot_bytes: int | None = None,
        variables: dict[str, str] | None = None,
        initializer: Payload | None = None,
    ) -> None:
        self._given_slot_bytes = slot_bytes
        self._variables = variables or {}
        self._initializer = initializer
        self.lock = threading.Lock()
        self.calls = itertools.count(1)
        self.workers: list[WorkerHandle] = []
        self.dirty = False
        self._owner = os.getpid()
        self._cookie = os.urandom(COOKIE_BYTES)
        self._keys = itertools.count(1)
        # What the workers have inherited from this process.
        self._inherited: tuple[Any, ...] | None = None
        self._checked = 0.0

    @functools.cached_property
    def slot_bytes(self) -> int:
        """Size of a slot; computed when first needed, since a small call never does."""
        return self._given_slot_bytes or fitting_slot_bytes()

    @property
    def running(self) -> bool:
        """True if a worker is up and has answered."""
        for worker in list(self.workers):
            if not worker.ready and not worker.assignments:
                self.poll_idle(worker)
        return any(worker.ready for worker in self.workers)

    def poll_idle(self, worker: WorkerHandle) -> None:
        """Read a message of a worker that has no part in the current call; drop it if it has ended."""
        try:
            if worker.over:
                self.drop(worker)
            else:
                worker.note_late_answer(worker.channel.receive()[0])
        except BlockingIOError:
            pass
        except (EOFError, OSError):
            self.drop(worker)

    @property
    def seems_warm(self) -> bool:
        """True if a worker is known to be up; any thread may ask, without the lock.

        Those that a short call has started, and that were not up when it ended, have answered meanwhile.
        """
        workers = tuple(self.workers)
        if not workers or any(worker.ready for worker in workers):
            return bool(workers)
        with DeferredInterrupt():
            if not self.lock.acquire(blocking=False):
                return False
            try:
                return self.running
            finally:
                self.lock.release()

    @property
    def owned_by_parent(self) -> bool:
        """True if this process inherited the pool by a fork, and so must not use it."""
        return self._owner != os.getpid()

    def start(self, workers: int, mark: bytes | None = None) -> list[WorkerHandle]:
        """Start workers until there are `workers`, and return without waiting.

        A worker that has called another function as `setup` than the one with `mark`, or that may hold a module which
        was reloaded since, is replaced; all of them are, with the fork server, if this process has other rights or
        limits than they have inherited. Messages sent to a worker that is not up yet wait in its socket.
        """
        inherited = read_inherited()
        if self.dirty or inherited != self._inherited:
            self.end()
        self._inherited, self.dirty = inherited, True
        self._prepare()
        self._receive_late_answers()
        watch.look()
        for worker in list(self.workers):
            if worker.reloads != watch.reloads or worker.mark not in (None, mark):
                self.retire(worker)
        if self._stands_still(workers):
            self.stop()
            self.dirty = True
        self._fill(workers)
        return sorted(self.workers, key=lambda worker: len(worker.taken_back))[:workers]  # late ones last

    def _fill(self, workers: int) -> None:
        """Start workers until there are so many, or as many as the system allows.

        Raises
        ------
        NoWorkersError
            If it allows none.
        """
        try:
            while len(self.workers) < workers:
                self.add_worker()
        except NoWorkersError:
            if not self.workers:
                self.dirty = False
                raise

    def add_worker(self) -> WorkerHandle:
        """Start one more worker, the last of `workers`.

        Raises
        ------
        NoWorkersError
            If there can be no more.
        """
        most = min(self.MOST, max(1, (descriptors_allowed() - LEFT_DESCRIPTORS) // self.DESCRIPTORS))
        if len(self.workers) >= most:
            raise NoWorkersError(f"no more than {most} workers have room for their descriptors; raise ulimit -n")
        try:
            return self._add_worker()
        except ImportError as error:
            raise NoWorkersError(f"this Python has no worker processes: {error}; use executor='threads'") from error
        except (OSError, MemoryError) as error:
            raise NoWorkersError(
                f"a worker process could not be started: {error}; it needs {self.DESCRIPTORS} descriptors (ulimit -n), "
                f"a process (ulimit -u) and some MB of memory"
            ) from error

    def _receive_late_answers(self) -> None:
        """Read late outcomes of earlier calls; drop workers that still compute them, are stopped or grown too large."""
        check = monotonic() - self._checked > LOOK_SECONDS
        if check:
            self._checked = monotonic()
        for worker in list(self.workers):
            if worker.over:
                self.drop(worker)
            elif check and worker.pid and (own_bytes(worker.pid) > IDLE_BYTES or is_stopped(worker.pid)):
                self.retire(worker)
            elif not worker.catch_up():
                worker.kill()
                self.drop(worker)

    def another(self, used: list[WorkerHandle]) -> WorkerHandle:
        """A worker besides those in use; a new one if there is none."""
        return next((one for one in self.workers if one not in used), None) or self.add_worker()

    def drop(self, worker: WorkerHandle) -> None:
        """Remove a worker from the pool, and close its handle; it writes no result any more."""
        with DeferredInterrupt():
            worker.revoke()
            self.workers.remove(worker)
            self._forget(worker)
            worker.close()

    def abandon(self) -> None:
        """Kill all workers; what starts them stays."""
        self._kill_workers()
        for worker in list(self.workers):
            self.drop(worker)

    def retire(self, worker: WorkerHandle) -> None:
        """End a worker that is at no work, before another one takes its place."""
        worker.kill()
        self.drop(worker)

    def end(self) -> None:
        """End all workers while none is at work for a call."""
        self.stop()

    # What each kind of workers has of its own.

    @abstractmethod
    def _prepare(self) -> None:
        """Make ready for a call: what has ended is replaced."""

    @abstractmethod
    def _stands_still(self, workers: int) -> bool:
        """True if what starts workers would not start those that are missing."""

    @abstractmethod
    def _add_worker(self) -> WorkerHandle:
        """Start a worker, and append it to `workers`."""

    @abstractmethod
    def _forget(self, worker: WorkerHandle) -> None:
        """Wait for nothing of a worker any more, which may have been registered in part."""

    @abstractmethod
    def wake(self) -> None:
        """Make another thread's `wait` return."""

    @abstractmethod
    def wait(self, timeout: float | None) -> list[tuple[str, WorkerHandle]]:
        """Wait at most `timeout` seconds for events of workers: "message", "death", or "refused" by the system."""

    @abstractmethod
    def why_refused(self, worker: WorkerHandle) -> NoWorkersError:
        """Why a worker could not be started."""

    @abstractmethod
    def look(self, workers: list[WorkerHandle], elapsed: float) -> None:
        """Look after what starts workers, if none of a call's `workers` is up; the last look was `elapsed` s ago."""

    @abstractmethod
    def exit_code(self, worker: WorkerHandle) -> int | None:
        """Exit code of a dead worker, or minus the signal; None if that cannot be known."""

    @abstractmethod
    def _kill_workers(self) -> None:
        """Kill all workers, those that are being started included."""

    @abstractmethod
    def stop(self) -> None:
        """Kill all workers and what starts them, and wait for its end."""
