"""The function of one call, ready to be sent to any number of workers."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterable
from typing import Any

from .._core.kernel import Kernel
from .._core.layout import Layout
from .._system.blas import ThreadCounts
from .._system.environment import read_numeric_state, read_process_state
from .encoding import pack_error
from .handle import WorkerHandle
from .output_capture import read_log_levels
from .serialization import dump, send_payload
from .shared_globals import restore

# A function of more bytes than this is not kept by workers for nothing.
LARGE_BYTES = 2**20


class Session:
    """The function, what it holds, and the surroundings that it finds.

    Parameters
    ----------
    call : int
        A number that tells the calls of a process apart.
    kernel : Kernel
    layouts : list of Layout
        Of arguments, where they are the same for all tasks.
    threads : int or dict
        What numerical libraries are to use in workers.
    share : bool, optional
        Whether functions find what an initializer has set.
    """

    def __init__(
        self, call: int, kernel: Kernel, layouts: list[Layout], threads: ThreadCounts, share: bool = False
    ) -> None:
        self._call = call
        process_state = read_process_state()
        body = (kernel, layouts, read_numeric_state(), read_log_levels(), threads)
        self._payload = dump(process_state, body, share)

    def send(self, workers: Iterable[WorkerHandle]) -> None:
        """Send it to workers."""
        send_payload(workers, "load", self._call, self._payload)

    def take_back(self, workers: Iterable[WorkerHandle]) -> None:
        """Have workers let go of a large one: it may be long until the next call."""
        if self._payload.nbytes > LARGE_BYTES:
            for worker in workers:
                with contextlib.suppress(OSError):
                    worker.channel.send("unload")


def perform(packed: bytes) -> tuple[bool, Any]:
    """In a worker: make the call, and tell whether it raised nothing, and the result or the packed error."""
    try:
        func, args, kwargs = pickle.loads(packed)
        restore()
        return True, func(*args, **kwargs)
    except BaseException as error:
        return False, pack_error(error)
