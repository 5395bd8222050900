"""Workers that are processes of their own, on each system that has Python."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from multiprocessing import connection
from typing import Any

from ..._clock import monotonic, sleep
from ..._system.inheritance import tracker_fd
from ..._system.interpreter import DeferredInterrupt, find_python, select
from ...errors import NoWorkersError
from ..descriptors import low_numbers_taken
from ..other_processes import has_children
from ..pickling.payload import Payload
from ..pool.primitives import why_portable
from ..pool.worker_handle import DYING_SECONDS, WorkerHandle
from ..pool.worker_pool import WorkerPool
from .wire import PIPES

# A killed worker is waited for so long; most take some ms to give back their memory.
ENDING_SECONDS = 0.1
_POLL_SECONDS = 0.001


class PortablePool(WorkerPool):
    """Worker processes, each started by itself.

    Parameters
    ----------
    slot_bytes, variables, initializer
        As in `WorkerPool`.
    """

    exiting = False  # True once the interpreter ends: nothing would end a process that is started then
    MOST = 60 if PIPES else sys.maxsize  # Windows waits for 63 handles at most
    DESCRIPTORS = 2  # a connection, and one that the mapping of shared memory keeps

    def __init__(
        self,
        slot_bytes: int | None = None,
        variables: dict[str, str] | None = None,
        initializer: Payload | None = None,
    ) -> None:
        super().__init__(slot_bytes, variables, initializer)
        self.why = why_portable() or "asked for"
        # Killed workers that have not ended yet.
        self._dying: list[subprocess.Popen[bytes]] = []
        # Ends of a pipe by which another thread ends a `wait`.
        self._wake: tuple[Any, Any] | None = None
        self._woken = False
        self._waking = threading.Lock()

    def _prepare(self) -> None:
        self._bury(0)

    def _stands_still(self, workers: int) -> bool:
        return False

    def _bury(self, seconds: float) -> None:
        """Wait for killed workers, so long for each."""
        for process in list(self._dying):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                if not _has_left(process.pid, seconds):
                    self._dying.remove(process)

    def _add_worker(self) -> WorkerHandle:
        find_python()  # before anything is opened
        if PortablePool.exiting:
            raise NoWorkersError("the interpreter is ending, and starts no worker processes any more")
        from .worker import PortableWorker  # where Python lacks shared memory it cannot be imported

        with DeferredInterrupt(), low_numbers_taken():
            if self._wake is None:
                self._wake = connection.Pipe(duplex=False)
                atexit.register(self._end_at_exit)
            worker = None
            try:
                worker = PortableWorker(next(self._keys), self.slot_bytes, self._cookie, self._variables)
                self.workers.append(worker)
                worker.introduce()
                if self._initializer is not None:
                    worker.share_tracker(tracker_fd())
                    self._initializer.send([worker.channel], "initialize", 0)
            except BaseException:
                if worker is not None:
                    self.drop(worker)
                if not self.workers:
                    self.stop()
                raise
            return worker

    def _forget(self, worker: WorkerHandle) -> None:
        worker.kill()
        process: subprocess.Popen[bytes] | None = getattr(worker, "process", None)
        if process is not None:
            self._dying.append(process)
            self._bury(ENDING_SECONDS)

    def wake(self) -> None:
        """As in `WorkerPool`."""
        with DeferredInterrupt(), self._waking:  # or the flag and the pipe would differ
            if self._wake is not None and not self._woken:
                self._woken = True
                self._wake[1].send_bytes(b"w")

    def wait(self, timeout: float | None) -> list[tuple[str, WorkerHandle]]:
        """As in `WorkerPool`."""
        for worker in self.workers:
            with contextlib.suppress(ConnectionError):  # it is dead
                worker.channel.flush()
        assert self._wake is not None
        wake = self._wake[0]
        owners = {worker.channel.fileno(): worker for worker in self.workers}
        found = (_wait_for_pipes if PIPES else _wait_for_sockets)(wake, list(self.workers), timeout)
        if wake.fileno() in found:
            with DeferredInterrupt(), self._waking:
                wake.recv_bytes()
                self._woken = False
        events = [("message", owners[one]) for one in found if one in owners]
        # A connection does not close while a process lives that the function has forked.
        return events + [("death", worker) for worker in self.workers if worker.over]

    def why_refused(self, worker: WorkerHandle) -> NoWorkersError:
        """As in `WorkerPool`; no worker is refused later than at its start."""
        return NoWorkersError("a worker process could not be started")

    def look(self, workers: list[WorkerHandle], elapsed: float) -> None:
        """Do nothing: workers start themselves."""

    def exit_code(self, worker: WorkerHandle) -> int | None:
        """As in `WorkerPool`."""
        code = worker.collect_exit()
        if code is not None and code >= 0 and not any(one.was_up for one in (worker, *self.workers)):
            raise NoWorkersError(
                f"a worker process ended with exit code {code} before it was up; is NumPy importable in a new "
                "interpreter? Its output tells why"
            )
        return code

    def _kill_workers(self) -> None:
        for worker in self.workers:
            worker.kill()

    def stop(self) -> None:
        """As in `WorkerPool`."""
        if self.owned_by_parent:
            return
        with DeferredInterrupt():
            self._kill_workers()
            for worker in list(self.workers):
                self.drop(worker)
            self._bury(DYING_SECONDS)
            with self._waking:
                wake, self._wake, self._woken = self._wake, None, False
                for end in wake or ():
                    end.close()
            atexit.unregister(self._end_at_exit)
        self.dirty = False

    def _end_at_exit(self) -> None:
        _note_exit()
        self.end()


@atexit.register
def _note_exit() -> None:
    PortablePool.exiting = True


def _has_left(worker: int, seconds: float) -> bool:
    """Wait for what an ended worker has started; True if some lives on.

    It has been killed with the worker. Process 1 of a container, or one that adopts orphans, would keep zombies.
    """
    if not hasattr(os, "killpg"):
        return False
    deadline = monotonic() + seconds
    while has_children(worker, os.WNOHANG):
        if monotonic() >= deadline:
            return True
        sleep(_POLL_SECONDS)
    return False


def _wait_for_sockets(wake: Any, workers: list[Any], timeout: float | None) -> list[int]:
    """Descriptors with messages, or with room for those that wait."""
    poll = select.poll()
    poll.register(wake.fileno(), select.POLLIN)
    for worker in workers:
        poll.register(worker.channel.fileno(), select.POLLIN | (select.POLLOUT if worker.channel.full else 0))
    return [fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)]


def _wait_for_pipes(wake: Any, workers: list[Any], timeout: float | None) -> list[int]:
    """Handles of pipes with messages, those that were closed included."""
    found: list[Any] = list(connection.wait([wake, *(worker.channel.waitable for worker in workers)], timeout))
    return [end.fileno() for end in found]
