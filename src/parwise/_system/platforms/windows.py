"""Windows: what `unix` does by `fcntl` and `resource`, as far as there is the like."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
from typing import Any

#: A fork server, of which there is none, starts with these at their default.
SIGNALS_AT_REST: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)

# The byte of a file that stands for all of it: locks of Windows keep others from reading what is locked.
_LOCKED_BYTE = 2**40
_MEMORY_IF_UNKNOWN = 2**32


def limits() -> list[tuple[int, int]]:
    """Limits on the resources of this process: none."""
    return []


def file_size_limit() -> int | None:
    """Largest size of a file, in bytes; None without a limit."""
    return None


def open_files_limit() -> int | None:
    """Descriptors that this process may have; None without a limit."""
    return None


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    kernel: Any = getattr(getattr(ctypes, "windll", None), "kernel32", None)
    if kernel is None:
        return _MEMORY_IF_UNKNOWN
    # MEMORYSTATUSEX: its length, the load in percent, seven sizes of which the first is that of the memory.
    status = (ctypes.c_uint64 * 8)()
    ctypes.c_uint32.from_buffer(status).value = ctypes.sizeof(status)
    return int(status[1]) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else _MEMORY_IF_UNKNOWN


def duplicate_above(fd: int, least: int) -> int:
    """Another descriptor of the same file, with the lowest free number from `least` on."""
    low: list[int] = []
    try:
        return _duplicate(fd, least, low)
    finally:
        for one in low:
            os.close(one)  # gevent, whose own `close` is late, has none on Windows


def _duplicate(fd: int, least: int, low: list[int]) -> int:
    while (found := os.dup(fd)) < least:
        low.append(found)
    return found


def seal(fd: int) -> None:
    """Do nothing: there are no memfds."""


def lock(fd: int) -> bool:
    """Lock a file for this process until it closes it or ends; False if another process has locked it."""
    try:
        module: Any = importlib.import_module("msvcrt")
    except ImportError:  # nor is this Windows
        return True
    os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
    try:
        module.locking(fd, module.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def read_at(fd: int, nbytes: int, offset: int) -> bytes:
    """Read from a place of a file."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, nbytes)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write to a place of a file, and return the number of bytes written."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


def write_out(fd: int) -> None:
    """Wait until what was written to a file is on the disk."""
    os.fsync(fd)
