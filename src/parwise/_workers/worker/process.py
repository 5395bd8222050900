"""What a worker sets in its own process, and how processes end that its function has forked."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

from ..pickling.multiprocessing_objects import flush_queues

# Options of glibc's mallopt: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD.
_MALLOC = {-1: 2**25, -3: 2**24}


def end_child(error: BaseException | None) -> NoReturn:
    """Exit from a process that the function forked and that has returned from the function.

    It has inherited the worker's socket, but must not reply in the worker's place.
    """
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    os._exit(code)


def flush() -> None:
    """Complete the output of a function: text in buffers, and what it has put into queues."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    flush_queues()


def enable_stack_dump(fd: int) -> None:
    """Write the stack to `fd` on a fatal signal, and on SIGTERM, which a timeout may send."""
    if fd < 0:
        return
    faulthandler.enable(fd, all_threads=False)
    if hasattr(faulthandler, "register"):  # not on Windows
        faulthandler.register(signal.SIGTERM, fd, all_threads=False, chain=True)


def keep_memory() -> None:
    """Make malloc keep memory that the function frees, for its next call.

    By default malloc returns a few hundred kB at the top of the heap to the
    system each time, and every call faults them in again: smoothing rows of
    200 kB took 314 us instead of 50.
    """
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "mallopt"):
        for option, value in _MALLOC.items():
            libc.mallopt(option, value)
