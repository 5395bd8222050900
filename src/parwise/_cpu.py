"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from ._cgroup import MEMBERSHIP, ROOT, StrPath, group_folders, read_setting


def cpu_count() -> int:
    """CPUs this process may use: its affinity mask, cut by cgroup quotas.

    A container limited to 2.5 CPUs counts 3: the quota is rounded up, since a
    worker that is throttled half the time still does work.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min([available or 1, *map(math.ceil, _quotas())]))


def cpu_quota() -> float | None:
    """CPUs' worth of time that cgroups allow this process; None if they set no limit."""
    return min(_quotas(), default=None)


def _quotas(root: StrPath = ROOT, membership: StrPath = MEMBERSHIP) -> Iterator[float]:
    """CPU quotas of the cgroups that hold this process, versions 1 and 2."""
    for version, folder in group_folders("cpu", root, membership):
        quota = _quota_v2(folder) if version == 2 else _quota_v1(folder)
        if quota is not None:
            yield quota


def _quota_v2(folder: str) -> float | None:
    """`cpu.max` holds "max 100000" or "<quota> <period>", in microseconds."""
    try:
        quota, period = read_setting(folder, "cpu.max").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: str) -> float | None:
    """Version 1 keeps quota and period in two files; -1 is no limit."""
    try:
        quota = int(read_setting(folder, "cpu.cfs_quota_us"))
        period = int(read_setting(folder, "cpu.cfs_period_us"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
