"""The function of one call, ready to be sent to any number of workers."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterable

from ._blas import ThreadCounts
from ._channel import INLINE_BYTES
from ._ear import read_log_levels
from ._environment import read_numerics, read_surroundings
from ._interrupt import Uninterrupted
from ._job import Job
from ._link import Link
from ._memory import file_limit, memory_limit
from ._payload import Payload, dump
from ._segment import create_fd
from .errors import ParwiseError

# A function of more bytes than this is not kept by workers for nothing.
LARGE_BYTES = 2**20


class Shipment:
    """The function, what it holds, and the surroundings that it finds.

    Parameters
    ----------
    job : Job
    call : int
        A number that tells the calls of a process apart.
    threads : int or dict
        What numerical libraries are to use in workers.
    """

    def __init__(self, job: Job, call: int, threads: ThreadCounts) -> None:
        self._call = call
        surroundings = read_surroundings()
        body = (job.kernel, job.shared_layouts, read_numerics(), read_log_levels(), threads)
        self._payload = dump(surroundings, body, job.call.settings.shares)

    def send(self, links: Iterable[Link]) -> None:
        """Send it to workers."""
        send_payload(links, "load", self._call, self._payload)

    def take_back(self, links: Iterable[Link]) -> None:
        """Have workers let go of a large one: it may be long until the next call."""
        if self._payload.nbytes > LARGE_BYTES:
            for link in links:
                with contextlib.suppress(OSError):
                    link.channel.send("forget")


def send_payload(links: Iterable[Link], kind: str, call: int, payload: Payload) -> None:
    """Send a payload to workers: a small one in a message, a large one once for all of them."""
    # The table of buffers goes behind them: it may be too long for a message.
    table = pickle.dumps(payload.table)
    nbytes = payload.nbytes + len(table)
    inline = payload.to_bytes() + table if nbytes <= INLINE_BYTES else None
    fds: list[int] = []
    try:
        if inline is None:
            with Uninterrupted():
                fds.append(_shared_file(nbytes))
            payload.write(fds[0])
            os.pwrite(fds[0], table, payload.nbytes)
        for link in links:
            with contextlib.suppress(ConnectionError):  # dead; its pidfd will tell
                link.channel.send(kind, call, payload.nbytes, nbytes, inline, fds=fds)
    finally:
        with Uninterrupted():
            for fd in fds:
                os.close(fd)


def _shared_file(nbytes: int) -> int:
    """Shared memory for a large function."""
    most = min(file_limit(), memory_limit())
    if nbytes > most:
        raise ParwiseError(
            f"the function and its arguments take {nbytes} bytes, but shared memory may have {most} (ulimit -f and "
            "the memory limit); map over the large arrays, or open them inside the function from a file"
        )
    return create_fd(nbytes)
