"""Files in memory: which one lies at an address, by what the system tells."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np


class FileMapping(NamedTuple):
    """A file in memory.

    Attributes
    ----------
    start : int
        The address where it begins.
    offset : int
        Where that lies in the file.
    device, inode : bytes, int
        The file.
    path : bytes
        Its name today: another file may have taken that by which it was opened.
    shared : bool
        True if what is written to memory is written to the file.
    """

    start: int
    offset: int
    device: bytes
    inode: int
    path: bytes
    shared: bool

    def span(self, first: int, end: int) -> tuple[int, int]:
        """Where in the file the bytes between two addresses lie."""
        return first - self.start + self.offset, end - self.start + self.offset


def mapping_at(address: int) -> FileMapping | None:
    """The file that is mapped at an address; None without one, and where the system does not tell."""
    lines: list[bytes] = []
    with contextlib.suppress(OSError), open("/proc/self/maps", "rb") as file:  # no /proc in some containers
        lines = file.readlines()
    for line in lines:
        span, flags, offset, device, inode, *path = line.rstrip(b"\n").split(maxsplit=5)
        start, end = (int(one, 16) for one in span.split(b"-"))
        if start <= address < end:
            found = start, int(offset, 16), device, int(inode)
            return FileMapping(*found, path[0], flags.endswith(b"s")) if path else None
    return None


def root_of(array: np.ndarray) -> Any:
    """The owner of an array's memory: an array, an `mmap.mmap`, or whatever else gave it."""
    owner: Any = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return owner.obj if isinstance(owner, memoryview) else owner
