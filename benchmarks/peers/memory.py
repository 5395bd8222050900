"""Peak memory of a process and all its descendants, as another process sees it.

The sum of proportional set sizes (PSS) counts each page once, however many of
the processes share it; but a shared page counts only while a process lives that
has touched it, so what a forked half has written can be missed. The watcher is
a process of its own, since a thread would take turns at the interpreter with
what it watches; it runs this file as a script.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType

INTERVAL_SECONDS = 0.020


class PeakMemory:
    """Watches the memory of this process and its descendants within a ``with`` block.

    Attributes
    ----------
    beyond : int
        How far it rose above what it was before, in bytes; set at the end.
    """

    beyond: int

    def __enter__(self) -> PeakMemory:
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._watcher.stdout is not None
        self._before = json.loads(self._watcher.stdout.readline())
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._watcher:
            # A line, since the end of the pipe would not come while a pool that
            # was forked meanwhile holds a copy of it.
            peak, _ = self._watcher.communicate("\n")
        self.beyond = json.loads(peak) - self._before


def watch(root: int) -> None:
    """Print the memory of a process now, and its peak once there is a line to read."""
    print(family_bytes(root), flush=True)
    peak = 0
    ended = False
    while not ended:
        ended = bool(select.select([sys.stdin], [], [], INTERVAL_SECONDS)[0])
        peak = max(peak, family_bytes(root))
    print(peak)


def family_bytes(root: int) -> int:
    """PSS of a process and its descendants without the calling one."""
    return sum(_pss(pid) for pid in _family(root) if pid != os.getpid())


def _family(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name, in brackets, may hold anything.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    family = [root]
    for pid in family:
        family.extend(children.get(pid, ()))
    return family


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # ended meanwhile
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


if __name__ == "__main__":
    watch(int(sys.argv[1]))
