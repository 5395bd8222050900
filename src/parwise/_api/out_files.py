"""Files that `out` is a part of: their room on the disk is taken before any work."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from .._core.inputs.file_mapping import FileMapping, mapping_at, root_of
from .._system.interpreter import close
from .._system.platforms.here import OPEN_PRIVATE
from .._workers.descriptors import above_standard

# FALLOC_FL_KEEP_SIZE
_KEEP_SIZE = 1
# The system has no room. Other errors tell that the file system takes no room beforehand.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What the system adds to the name of a file that has none any more.
_DELETED = b" (deleted)"


# To find a mapping takes 1 ms, and a loop may fill a file by many calls. Each with the bounds of its memory then.
_known: weakref.WeakKeyDictionary[mmap.mmap, tuple[tuple[int, int], FileMapping | None]] = weakref.WeakKeyDictionary()


def allocate(targets: Iterable[Any]) -> None:
    """Have the file system take room for arrays that lie in files.

    A file made by `numpy.memmap` has no room of its own until it is written to. If the disk is full then, no error is
    raised: SIGBUS ends the process, with all that was computed.

    Raises
    ------
    OSError
        If there is no room.
    """
    for target in targets:
        if isinstance(target, np.ndarray) and target.nbytes:
            mapping = mapping_of(target, byte_bounds(target)[0])
            if mapping is not None:
                shift = mapping.offset - mapping.start
                _allocate(mapping, [(first + shift, end - first) for first, end in _spans(target)])


def _spans(array: np.ndarray) -> list[tuple[int, int]]:
    """Addresses of the parts of an array between which it leaves out whole pages, as a column of long rows does."""
    first, _ = byte_bounds(array)
    starts, length = np.array([first]), array.itemsize
    for stride, count in sorted((abs(n), k) for n, k in zip(array.strides, array.shape, strict=True) if k > 1):
        if len(starts) > 1 or stride - length >= mmap.PAGESIZE:
            starts = np.add.outer(np.arange(count) * stride, starts).ravel()
        else:
            length += (count - 1) * stride
    return [(int(start), int(start) + length) for start in starts]


def mapping_of(array: np.ndarray, address: int) -> FileMapping | None:
    """The file that an array is a part of."""
    owner = root_of(array)
    if isinstance(owner, np.ndarray):
        return None
    if not isinstance(owner, mmap.mmap):
        return _find(address)
    bounds = byte_bounds(np.frombuffer(owner, np.uint8))  # `mmap.resize` may move it
    held, found = _known.get(owner, ((0, 0), None))
    if held != bounds or (found is not None and not _has_its_name(found)):
        found = _find(address)
        _known[owner] = bounds, found
    return found


def _has_its_name(mapping: FileMapping) -> bool:
    """True if a file still has the name under which it was found, or had none; it may be renamed at any time."""
    try:
        return mapping.path.endswith(_DELETED) or os.stat(mapping.path).st_ino == mapping.inode
    except OSError:
        return False


def _find(address: int) -> FileMapping | None:
    """The shared mapping of a file that has an address; no private one, as of mode "c", which is not written to it."""
    found = mapping_at(address)
    return found if found is not None and found.shared else None


def _allocate(mapping: FileMapping, spans: list[tuple[int, int]]) -> None:
    length = sum(length for _, length in spans)
    try:
        status = os.stat(mapping.path)
        same = status.st_ino == mapping.inode and stat.S_ISREG(status.st_mode)
        if not same or status.st_blocks * 512 >= status.st_size:
            return
        descriptor = above_standard(os.open(mapping.path, os.O_RDWR | OPEN_PRIVATE))
    except OSError:  # it was deleted, or may not be opened any more
        return
    try:
        reason = _take(descriptor, spans, length - status.st_blocks * 512)
        room = os.fstatvfs(descriptor)
    finally:
        close(descriptor)
    if reason in _NO_ROOM:
        what = (
            f"{os.strerror(reason)}: out takes {length} bytes of its file, {status.st_blocks * 512} bytes of which are "
            f"on the disk, where {room.f_bavail * room.f_frsize} are free; make room, or pass an out elsewhere"
        )
        raise OSError(reason, what, os.fsdecode(mapping.path))


def _take(descriptor: int, spans: list[tuple[int, int]], least: int) -> int:
    """Have a file take parts of it, at least `least` bytes more than it has; return 0 or the number of the error."""
    # Some file systems fill the disk before they refuse, and leave it full. One byte tells whether this one knows how.
    # Not f_bfree, which counts what is reserved for the owner of the machine: 75 GB were taken, and left behind.
    reason = _fallocate(descriptor, spans[0][0], 1)
    room = os.fstatvfs(descriptor)
    if not reason and least > room.f_bavail * room.f_frsize:
        return errno.ENOSPC
    for start, length in spans:
        reason = reason or _fallocate(descriptor, start, length)
    return reason


def _fallocate(descriptor: int, start: int, length: int) -> int:
    """Have a file take room, and return 0 or the number of the error.

    Not `os.posix_fallocate`, which writes to each block where the file system knows no better, and may so undo what
    another process writes at that moment.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate"):  # macOS
        return 0
    while libc.fallocate(descriptor, _KEEP_SIZE, ctypes.c_long(start), ctypes.c_long(length)):
        if ctypes.get_errno() != errno.EINTR:
            return ctypes.get_errno()
    return 0
