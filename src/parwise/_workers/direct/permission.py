"""What allows workers to reach the memory of their caller: a secret in it, and the system's permission."""

from __future__ import annotations

import contextlib
import ctypes
import os

import numpy as np

from ..._core.layout import PAGE, address_of
from ..shared_memory import map_anonymous

_PR_SET_PTRACER = 0x59616D61


class Secret:
    """A secret in this process's memory, which workers read before they write there.

    Attributes
    ----------
    address : int
        Where it lies; 0 if workers are to leave this process's memory alone.
    """

    def __init__(self, secret: bytes) -> None:
        self._page = np.frombuffer(map_anonymous(PAGE), np.uint8)
        self._page[: len(secret)] = np.frombuffer(secret, np.uint8)
        self.address = 0 if os.environ.get("PARWISE_DIRECT") == "0" else address_of(self._page)


def allow(fork_server: int) -> None:
    """Allow the fork server and its workers to reach this process's memory, if Yama asks for it (``ptrace_scope`` 1).

    Only one process and those that it began can be allowed; the last one counts.
    """
    # Not a `pathlib.Path`, as in `_system/limits.py`: 4 of 33 ms of the import of parwise.
    with contextlib.suppress(OSError), open("/proc/sys/kernel/yama/ptrace_scope", "rb", buffering=0) as file:
        if file.read().strip() == b"1":
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(fork_server), 0, 0, 0)
