"""Unix: Linux, macOS, BSD."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import signal

_LIMITS = range(16)  # RLIMIT_CPU to RLIMIT_RTTIME: the numbers of Linux, some of which `resource` does not name

#: A fork server starts with these at their default, whatever the caller ignores.
SIGNALS_AT_REST: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD)


def limits() -> list[tuple[int, int]]:
    """Limits on the resources of this process."""
    found = []
    for number in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # macOS has fewer
            found.append(resource.getrlimit(number))
    return found


def file_size_limit() -> int | None:
    """Largest size of a file, in bytes; None without a limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft


def open_files_limit() -> int | None:
    """Descriptors that this process may have; None without a limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE


def duplicate_above(fd: int, least: int) -> int:
    """Another descriptor of the same file, with the lowest free number from `least` on."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)


def seal(fd: int) -> None:
    """Keep other processes from changing the size of a memfd."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)


def lock(fd: int) -> bool:
    """Lock a file for this process until it closes it or ends; False if another process has locked it.

    A POSIX lock, which forked children do not inherit: processes of an executor that outlive this one would keep a lock
    of `flock`. But it is lost when the process closes the file once, wherever that was opened.
    """
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True


def read_at(fd: int, nbytes: int, offset: int) -> bytes:
    """Read from a place of a file."""
    return os.pread(fd, nbytes, offset)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write to a place of a file, and return the number of bytes written."""
    return os.pwrite(fd, data, offset)


def write_out(fd: int) -> None:
    """Wait until what was written to a file is on the disk."""
    getattr(os, "fdatasync", os.fsync)(fd)  # macOS has no fdatasync
