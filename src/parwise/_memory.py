"""How much memory this process may use, and how much of its own another one has."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import resource
from collections.abc import Iterator

from ._cgroup import MEMBERSHIP, ROOT, StrPath, group_folders, read_setting

# Seconds between two looks at the memory of workers.
LOOK_SECONDS = 1.0


@functools.cache
def memory_limit() -> int:
    """Bytes of memory for this process and its workers: the machine's, cut by cgroup limits.

    Read once: it takes 0.3 ms.
    """
    return min([os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE, *_group_limits()])


def _group_limits(root: StrPath = ROOT, membership: StrPath = MEMBERSHIP) -> Iterator[int]:
    for version, folder in group_folders("memory", root, membership):
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            yield int(read_setting(folder, name))


def file_limit() -> int:
    """Bytes that a file of this process may have, shared memory included (RLIMIT_FSIZE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return 2**63 - 1 if soft == resource.RLIM_INFINITY else soft


def own_bytes(pid: int) -> int:
    """Memory that a process shares with no file and no other process; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except OSError:
        return 0
    return (resident - shared) * mmap.PAGESIZE
