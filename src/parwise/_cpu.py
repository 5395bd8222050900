"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """CPUs this process may use: its affinity mask, cut by cgroup quotas.

    A container limited to 2.5 CPUs counts 3: the quota is rounded up, since a
    worker that is throttled half the time still does work.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min([available or 1, *map(math.ceil, _quotas())]))


def _quotas(root: Path = _CGROUP, membership: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """CPU quotas of the cgroups that hold this process, versions 1 and 2."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            mount, read = root, _quota_v2
        elif "cpu" in controllers.split(","):
            mount, read = root / controllers, _quota_v1
        else:
            continue
        path = mount / name.lstrip("/")
        # In a container the path may be the host's, with nothing below the
        # mount: then the mount point itself is this process's group.
        for folder in [path, *path.parents]:
            if not folder.is_relative_to(mount):
                break
            quota = read(folder)
            if quota is not None:
                yield quota


def _quota_v2(folder: Path) -> float | None:
    """`cpu.max` holds "max 100000" or "<quota> <period>", in microseconds."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """Version 1 keeps quota and period in two files; -1 is no limit."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
