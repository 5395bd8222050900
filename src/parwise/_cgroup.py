"""The control groups that hold this process: where a container's limits are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TypeAlias

#: Not a `pathlib.Path`: importing that takes 4 ms, which each start of workers would wait for.
StrPath: TypeAlias = "str | os.PathLike[str]"

ROOT = "/sys/fs/cgroup"
MEMBERSHIP = "/proc/self/cgroup"


def group_folders(controller: str, root: StrPath = ROOT, membership: StrPath = MEMBERSHIP) -> Iterator[tuple[int, str]]:
    """Version and folder of each group whose limits hold for this process.

    Parameters
    ----------
    controller : {"cpu", "memory"}
    root, membership : path
        Where groups are mounted, and the file that says which are this process's.
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
        # In a container the path may be the host's, with nothing below the
        # mount: then the mount point itself is this process's group.
        parts = name.strip("/").split("/") if name.strip("/") else []
        for depth in range(len(parts), -1, -1):
            yield version, os.path.join(mount, *parts[:depth])


def read_setting(folder: str, name: str) -> str:
    """What a file of a group holds.

    Raises
    ------
    OSError
        If there is none.
    """
    with open(os.path.join(folder, name)) as file:
        return file.read()
