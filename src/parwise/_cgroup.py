"""The control groups that hold this process: where a container's limits are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def group_folders(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[tuple[int, Path]]:
    """Version and folder of each group whose limits hold for this process.

    Parameters
    ----------
    controller : {"cpu", "memory"}
    root, membership : Path
        Where groups are mounted, and the file that says which are this process's.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            version, mount = 2, root
        elif controller in controllers.split(","):
            version, mount = 1, root / controllers
        else:
            continue
        path = mount / name.lstrip("/")
        # In a container the path may be the host's, with nothing below the
        # mount: then the mount point itself is this process's group.
        for folder in [path, *path.parents]:
            if not folder.is_relative_to(mount):
                break
            yield version, folder
