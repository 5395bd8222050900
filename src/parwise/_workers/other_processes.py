"""Other processes: whether they are stopped, or do anything, which ones they began, and how to end them."""

from __future__ import annotations

import contextlib
import os
import signal

from .._system.interpreter import close
from .descriptors import open_process

# Fields of /proc/PID/stat behind the name: the state, page faults and CPU time, also of children that have ended.
_STATE = slice(1)
_USED = slice(7, 15)
_STOPPED = ([b"T"], [b"t"])  # by a signal, by a debugger


def _stat(pid: int) -> list[bytes]:
    """Fields of a process behind its name; none if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def is_stopped(pid: int) -> bool:
    """True if a signal or a debugger has stopped the process."""
    return _stat(pid)[_STATE] in _STOPPED


def used(pid: int) -> tuple[bytes, ...]:
    """Page faults and CPU time of a process and those that it began: without a change none of them has run."""
    return tuple(field for one in (pid, *descendants(pid)) for field in _stat(one)[_USED])


def descendants(pid: int) -> list[int]:
    """Processes that a process began, in whatever session, and those that they began."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended, or this kernel does not tell
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                found += map(int, file.read().split())
    return found + [one for child in found for one in descendants(child)]


def open_descendants(pid: int) -> list[int]:
    """Descriptors of the processes that a process began: their numbers may soon belong to others."""
    opened = {}
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            opened[one] = open_process(one)
    for one in opened.keys() - set(descendants(pid)):  # it ended before it was opened
        close(opened.pop(one))
    return list(opened.values())


def kill(pidfd: int) -> None:
    """Kill a process by its descriptor, if it is not negative."""
    # It may have ended, or this process have given up the right to.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def collect_exit(pidfd: int) -> int | None:
    """Exit code of an ended child of this process, or minus the signal; None if it is none, or was waited for."""
    with contextlib.suppress(OSError):
        if (info := os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)) is not None:
            return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
    return None


def end_group(pid: int) -> None:
    """End a worker and the processes that its function started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def end_orphans(pid: int, pidfd: int) -> None:
    """End a worker, and what it started, that a dead fork server left to the caller: process 1 of a container."""
    with contextlib.suppress(OSError):  # it has another parent
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        end_group(pid)
        _await_children(pid)


def _await_children(group: int) -> None:
    while has_children(group):
        pass


def has_children(group: int, options: int = 0) -> bool:
    """Wait for ended processes of a group; return True if others are left, which this process has begun or adopted."""
    try:
        while os.waitpid(-group, options) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True
