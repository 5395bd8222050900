"""CPUs and memory that this process may use, by affinity and cgroups."""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import os
from collections.abc import Iterator
from typing import TypeAlias

from .interpreter import close
from .platforms.here import OPEN_PRIVATE, ask, file_size_limit, open_files_limit, physical_memory

#: Not a `pathlib.Path`: importing that takes 4 ms, by which each start of workers would be later.
StrPath: TypeAlias = "str | os.PathLike[str]"

ROOT = "/sys/fs/cgroup"
MEMBERSHIP = "/proc/self/cgroup"


def group_folders(controller: str, root: StrPath = ROOT, membership: StrPath = MEMBERSHIP) -> Iterator[tuple[int, str]]:
    """Version (1 or 2) and folder of each cgroup whose limits apply to this process, innermost first.

    `controller` is "cpu" or "memory", `root` the mount point of cgroups, and
    the file `membership` lists the groups of this process.
    """
    try:
        with open(membership) as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            version, mount = 2, os.fspath(root)
        elif controller in controllers.split(","):
            version, mount = 1, os.path.join(root, controllers)
        else:
            continue
        # In a container the path may be one of the host, which does not exist below the mount: then the mount point
        # itself is this process's group.
        parts = name.strip("/").split("/") if name.strip("/") else []
        for depth in range(len(parts), -1, -1):
            yield version, os.path.join(mount, *parts[:depth])


def read_setting(folder: str, name: str) -> str:
    """Text of a file in the folder of a cgroup; `OSError` if there is none."""
    with open(os.path.join(folder, name)) as file:
        return file.read()


def read_small(path: StrPath) -> bytes:
    """Content of a small file; nothing if it cannot be read.

    An object for the file would take a third longer: 0.19 in place of 0.14 ms for one in /proc, once a function has
    taken some ms.
    """
    try:
        fd = os.open(path, os.O_RDONLY | OPEN_PRIVATE)
    except OSError:
        return b""
    try:
        return os.read(fd, 2**14)
    finally:
        close(fd)


def cpu_count() -> int:
    """Number of CPUs that this process may use: those of its affinity mask, limited by cgroup quotas.

    A quota is rounded up (2.5 CPUs count as 3), since a worker that is throttled half the time still does work.
    """
    return max(1, min([affinity_count(), *map(math.ceil, _quotas())]))


def affinity_count() -> int:
    """Number of CPUs of the affinity mask, or of the machine where the system has none or a sandbox hides it."""
    return len(ask("sched_getaffinity", 0) or ()) or os.cpu_count() or 1


def cpu_quota() -> float | None:
    """CPU seconds per second that cgroups allow this process; None if they set no limit."""
    return min(_quotas(), default=None)


def _quotas(root: StrPath = ROOT, membership: StrPath = MEMBERSHIP) -> Iterator[float]:
    """CPU quotas of the cgroups of this process, versions 1 and 2, in CPUs."""
    for version, folder in group_folders("cpu", root, membership):
        quota = _quota_v2(folder) if version == 2 else _quota_v1(folder)
        if quota is not None:
            yield quota


def _quota_v2(folder: str) -> float | None:
    """Quota of a version 2 group, whose `cpu.max` holds "max 100000" or "<quota> <period>", in microseconds."""
    try:
        quota, period = read_setting(folder, "cpu.max").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: str) -> float | None:
    """Quota of a version 1 group, which has quota and period in two files; -1 is no limit."""
    try:
        quota = int(read_setting(folder, "cpu.cfs_quota_us"))
        period = int(read_setting(folder, "cpu.cfs_period_us"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


def cpu_is_idle(own: int = 1, load: StrPath = "/proc/loadavg") -> bool:
    """True unless other programs leave no CPU of the machine beside the first of `own` threads that run in this one.

    It counts the threads that run or wait for a CPU.
    """
    try:
        running = int(read_small(load).split()[3].partition(b"/")[0])
    except (ValueError, IndexError):
        return True
    return running - (own - 1) < (os.cpu_count() or 1)


# Seconds between two readings of the memory of workers.
LOOK_SECONDS = 1.0


@functools.cache
def memory_limit() -> int:
    """Bytes of memory for this process and its workers, the machine's limited by cgroups; read once (0.3 ms)."""
    return min([physical_memory(), *_group_limits()])


def _group_limits(root: StrPath = ROOT, membership: StrPath = MEMBERSHIP) -> Iterator[int]:
    """Memory limits of the cgroups of this process, in bytes."""
    for version, folder in group_folders("memory", root, membership):
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        with contextlib.suppress(OSError, ValueError):  # "max" stands for no limit
            yield int(read_setting(folder, name))


def available_memory(meminfo: StrPath = "/proc/meminfo") -> int:
    """Bytes of memory that could be used now, at most what cgroups leave."""
    try:
        with open(meminfo) as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        free = memory_limit()
    return max(0, min([free, *_group_room()]))


def _group_room(root: StrPath = ROOT, membership: StrPath = MEMBERSHIP) -> Iterator[int]:
    """Memory that each cgroup of this process leaves; pages of files that it could drop count as free."""
    for version, folder in group_folders("memory", root, membership):
        limit, usage = ("memory.max", "memory.current") if version == 2 else (
            "memory.limit_in_bytes", "memory.usage_in_bytes")  # fmt: skip
        with contextlib.suppress(OSError, ValueError):
            stat = dict(line.split() for line in read_setting(folder, "memory.stat").splitlines())
            cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
            yield int(read_setting(folder, limit)) - int(read_setting(folder, usage)) + cached


def file_limit() -> int:
    """Largest size of a file of this process, shared memory included, in bytes (RLIMIT_FSIZE)."""
    limit = file_size_limit()
    return 2**63 - 1 if limit is None else limit


def descriptors_allowed() -> int:
    """Number of descriptors that this process may have (RLIMIT_NOFILE)."""
    limit = open_files_limit()
    return 2**31 if limit is None else limit


def own_bytes(pid: int) -> int:
    """Bytes of memory that a process shares with no file and no other process; 0 if it has exited."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            _, resident, shared, *_ = map(int, file.read(200).split())
    except OSError:
        return 0
    return (resident - shared) * mmap.PAGESIZE
