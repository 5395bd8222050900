"""What a new process inherits: rights and limits of this one, and the key and resource tracker of multiprocessing."""

from __future__ import annotations

import os
import sys
from typing import Any

from .interpreter import close
from .limits import read_small
from .platforms.here import OPEN_PRIVATE, SIGNALS_AT_REST, ask, limits

# The last two count for children made from now on.
_NAMESPACES = ("mnt", "net", "ipc", "uts", "user", "cgroup", "pid_for_children", "time_for_children")
_RESET = sum(1 << (number - 1) for number in SIGNALS_AT_REST)


def read_ids() -> tuple[Any, ...]:
    """User, groups and root folder, by which access to files is decided; reading them takes 2 us."""
    root = os.stat("/")
    ids = ask("getresuid") or ask("getuid"), ask("getresgid") or ask("getgid")
    return *ids, sorted(ask("getgroups") or ()), root.st_dev, root.st_ino


def read_inherited() -> tuple[Any, ...]:
    """What a process that exists cannot take over from the calling thread, in the form that is quickest to compare.

    User and groups, limits, CPUs, scheduling, session, ignored signals, capabilities and other rights, namespaces and
    cgroup. Without /proc the last four are left out, and others where the system does not have them.
    """
    return (
        read_ids(),
        limits(),
        ask("sched_getaffinity", 0),
        (ask("getpriority", getattr(os, "PRIO_PROCESS", 0), 0), ask("sched_getscheduler", 0), ask("getsid", 0)),
        *_signals_and_rights(),
        _namespaces(),
        read_small("/proc/thread-self/cgroup"),
    )


def _signals_and_rights() -> tuple[int, bytes]:
    """Mask of the signals that a new process ignores; capabilities, "no new privileges" and seccomp as Linux tells."""
    status = read_small("/proc/thread-self/status")
    ignored = status.partition(b"\nSigIgn:")[2].partition(b"\n")[0]
    rights = status.partition(b"\nCapInh:")[2].partition(b"\nvoluntary")[0]  # not the counts that follow
    return int(ignored or b"0", 16) & ~_RESET, rights


def _namespaces() -> list[str]:
    try:
        folder = os.open("/proc/thread-self/ns", os.O_RDONLY | OPEN_PRIVATE)
    except OSError:
        return []
    try:
        return [_target(name, folder) for name in _NAMESPACES]
    finally:
        close(folder)


def starts_elsewhere() -> bool:
    """True if new processes get other process numbers or clocks than this one has, after `unshare`."""
    try:
        folder = os.open("/proc/thread-self/ns", os.O_RDONLY | OPEN_PRIVATE)
    except OSError:
        return False
    try:
        kinds = {kind: f"{kind}_for_children" for kind in ("pid", "time")}
        known = os.listdir(folder)
        return any(_target(kind, folder) != _target(other, folder) for kind, other in kinds.items() if other in known)
    finally:
        close(folder)


def _target(name: str, folder: int) -> str:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:  # an old kernel lacks this kind
        return ""


def read_authkey() -> bytes | None:
    """Key of this process, with which proxies of a Manager connect; None if multiprocessing is not imported."""
    process = sys.modules.get("multiprocessing.process")
    return None if process is None else bytes(process.current_process().authkey)


def set_authkey(key: bytes | None) -> None:
    """Set the key of this process; None changes nothing."""
    if key is not None:
        from multiprocessing.process import current_process

        current_process().authkey = key


def tracker_fd() -> int | None:
    """Descriptor of the resource tracker, which is started if this process may come to need it; None if not.

    Windows has none: memory there ends with its last user.

    With a tracker of its own a worker would unlink, at its end, all shared
    memory that its function has attached to by name (bpo-38119).
    """
    module = sys.modules.get("multiprocessing.resource_tracker")
    if module is None or os.name == "nt":
        return None
    if "multiprocessing.shared_memory" in sys.modules:
        started: int = module.getfd()
        return started
    running: int | None = module._resource_tracker._fd
    return running


def use_tracker(fd: int) -> None:
    """Use the caller's resource tracker in this process."""
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    if tracker._fd is not None and tracker._pid is None:
        close(tracker._fd)
    # A tracker of this process's own goes on: it would unlink what it tracks as soon as it is closed.
    tracker._fd, tracker._pid = fd, None
