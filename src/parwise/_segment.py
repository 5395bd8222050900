"""A piece of shared memory that has no name, so nothing is left when its users die."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os

HAS_MEMFD = hasattr(os, "memfd_create")


def create_fd(nbytes: int, *, memfd: bool = HAS_MEMFD) -> int:
    """Descriptor of new anonymous shared memory of `nbytes` zero bytes.

    A memfd does not live in /dev/shm and so is not bound by its size (64 MB in
    a container). It is sealed: nobody who holds it can shrink it under the other
    side, which would end in SIGBUS.

    Parameters
    ----------
    nbytes : int
    memfd : bool, optional
        False takes `multiprocessing.shared_memory` instead, as on systems that
        have no memfd; its name is removed at once and only the descriptor kept.
    """
    if not memfd:
        from multiprocessing import shared_memory

        block = shared_memory.SharedMemory(create=True, size=nbytes)
        try:
            return os.dup(block._fd)  # type: ignore[attr-defined]
        finally:
            block.close()
            block.unlink()
    fd = os.memfd_create("parwise", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, nbytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def map_shared(fd: int, nbytes: int, offset: int = 0) -> mmap.mmap:
    """The memory behind `fd`: what one side writes, the other reads."""
    return mmap.mmap(fd, nbytes, mmap.MAP_SHARED, offset=offset)


def make_private(pages: memoryview) -> None:
    """Turn mapped shared memory into memory of this process, where it lies.

    Parameters
    ----------
    pages : memoryview
        Whole pages of a writable mapping. Pointers to them stay valid and keep
        seeing what is there now.
    """
    content = bytes(pages)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    fixed = 0x10  # MAP_FIXED, which the mmap module does not name
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | fixed
    if libc.mmap(address, len(content), mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != address:
        raise OSError(ctypes.get_errno(), "cannot map private memory")
    pages[:] = content


def map_private(fd: int, nbytes: int) -> mmap.mmap:
    """The memory behind `fd`, copied page by page where this process writes to it."""
    return mmap.mmap(fd, nbytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)


def map_anonymous(nbytes: int) -> mmap.mmap:
    """Page-aligned memory of this process alone."""
    return mmap.mmap(-1, max(1, nbytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
