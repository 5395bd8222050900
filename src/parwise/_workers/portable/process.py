"""A worker as a process of its own, started by `subprocess`."""

from __future__ import annotations

import gc
import os
import pickle
import signal
from multiprocessing import connection
from typing import Any

from ..._system.blas import libraries
from ..._system.platforms.here import SIGNALS_AT_REST
from ..direct.access import CallerMemory
from ..worker.main import serve
from .channel import WorkerChannel
from .memory import PortableSlots, attach


def main_of_frozen(handle: int) -> None:
    """Run a worker of a frozen program, which has its modules in itself."""
    own = (getattr(connection, "PipeConnection", None) or connection.Connection)(handle)
    _receive(own)  # where they are for others
    main(own)


def main(own: Any) -> None:
    """Run a worker until its caller ends."""
    for number in SIGNALS_AT_REST:  # the caller may ignore or block them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _keep(own.fileno())
    parent, name, slot_bytes, cookie, claims = pickle.loads(_receive(own))
    slots = PortableSlots(attach(name), slot_bytes, claims)
    libraries()  # or the first task would wait for the search
    gc.freeze()
    gc.enable()
    # A process of Windows keeps the number of its parent.
    channel = WorkerChannel(own, cookie, lambda: os.name == "posix" and os.getppid() != parent)
    serve(channel, slots, CallerMemory(0, 0, cookie))


def _receive(own: Any) -> bytes:
    """One of the first messages, if the caller has not ended."""
    try:
        return bytes(own.recv_bytes())
    except (EOFError, ConnectionError):
        os._exit(0)


def _keep(handle: int) -> None:
    """Leave the connection out of what programs inherit that the function starts."""
    if os.name == "nt":
        os.set_handle_inheritable(handle, False)  # type: ignore[attr-defined]
    else:
        os.set_inheritable(handle, False)
