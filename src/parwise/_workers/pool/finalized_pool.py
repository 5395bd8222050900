"""Workers that call a function before they end in order: the finalizer of a `Pool`."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterable
from multiprocessing import connection
from typing import Any

from ...errors import user_level
from ..encoding import unpack_error
from ..other_processes import is_stopped
from ..worker.output_capture import unpack_events
from .worker_handle import WorkerHandle
from .worker_pool import WorkerPool

# A worker that was stopped, which gives no sign, is found after so long.
LOOK_SECONDS = 1.0
# Where messages wait for room, it is looked for so often: a worker that had nothing to do may not have read all.
ROOM_SECONDS = 0.005


class FinalizedPool(WorkerPool):
    """Workers that have got a finalizer with their initializer; the base beside it says of which kind they are."""

    finalizes = True

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._ending = threading.RLock()

    def retire(self, worker: WorkerHandle) -> None:
        """End one worker, which is at no work."""
        try:
            _finalize([worker])
        finally:
            super().retire(worker)

    def end(self) -> None:
        """End all workers; those that are computing, for a call that was interrupted, are killed as they are."""
        if self.owned_by_parent:
            return
        with self._ending:  # at exit, until another thread has done it
            failures: list[str] = []
            try:
                failures = [] if self.dirty else _finalize(self.workers)
            finally:
                super().end()
        for one in failures:
            warnings.warn(one, RuntimeWarning, stacklevel=user_level())


def _finalize(workers: Iterable[WorkerHandle]) -> list[str]:
    """Have idle workers call the finalizer, and wait for them; return what to warn of."""
    waiting = {worker.channel.waitable: worker for worker in workers if _is_idle(worker)}
    for worker in waiting.values():
        with contextlib.suppress(ConnectionError):  # dead: there is no answer, but the end of the connection
            worker.channel.send("finalize")
    failures: list[str] = []
    while waiting:
        full = any(worker.channel.waiting for worker in waiting.values())
        connection.wait(list(waiting), ROOM_SECONDS if full else LOOK_SECONDS)
        for one, worker in list(waiting.items()):
            lost = _is_lost(worker)  # before its last messages are read
            if _receive(worker, failures) or lost:
                del waiting[one]
    return failures


def _is_idle(worker: WorkerHandle) -> bool:
    return not (worker.assignments or worker.streaming or worker.over)


def _is_lost(worker: WorkerHandle) -> bool:
    return worker.over or (worker.pid > 0 and is_stopped(worker.pid))


def _receive(worker: WorkerHandle, failures: list[str]) -> bool:
    """Read messages of a worker; return True if it has called the finalizer, or has ended."""
    try:
        while True:
            (kind, *content), _ = worker.channel.receive()
            if kind == "output":
                for event in unpack_events(content[1]):
                    event.repeat(None)
            elif kind == "finalized":
                if content[0] is not None:
                    error = unpack_error(content[0])
                    failures.append(f"the pool's finalizer raised in worker process {worker.pid}: {error!r}")
                return True
    except BlockingIOError:
        worker.channel.flush()
        return False
    except (EOFError, OSError):
        return True
