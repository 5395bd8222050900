"""Shared memory without a name, which the system frees when its users die; the slots of a worker in it."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core.cursor import CURSOR_BYTES, Cursor
from .._core.layout import address_of
from .._system.interpreter import close
from .._system.limits import cpu_count, file_limit, memory_limit
from .._system.platforms.here import seal
from ..errors import NoWorkersError
from .claims import CLAIM_BYTES, Claim
from .descriptors import open_memory


def create_fd(nbytes: int) -> int:
    """Create shared memory of `nbytes` zero bytes, and return its file descriptor.

    A memfd is not in /dev/shm and so not limited by its size (64 MB in a container). It is sealed, so no process can
    shrink it while another uses it, which would end in SIGBUS. Systems without memfd have portable workers.
    """
    fd = open_memory()
    try:
        os.ftruncate(fd, nbytes)
        seal(fd)
    except BaseException:
        close(fd)
        raise
    return fd


def map_shared(fd: int, nbytes: int, offset: int = 0) -> mmap.mmap:
    """Map the memory of `fd`, for all processes that hold it to read and write."""
    return _map(fd, nbytes, mmap.MAP_SHARED, offset)


def make_private(pages: memoryview) -> None:
    """Turn whole pages of shared memory into private memory at the same address.

    Pointers to them stay valid, and the content is kept.
    """
    content = bytes(pages)
    _map_over(pages, -1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages[:] = content


def map_private(fd: int, nbytes: int) -> mmap.mmap:
    """Map the memory of `fd`; a page that this process writes to is copied first."""
    return _map(fd, nbytes, mmap.MAP_PRIVATE)


def map_anonymous(nbytes: int) -> mmap.mmap:
    """Map new private memory, page-aligned."""
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # Windows
        return mmap.mmap(-1, max(1, nbytes))
    return mmap.mmap(-1, max(1, nbytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _map(fd: int, nbytes: int, flags: int, offset: int = 0) -> mmap.mmap:
    """Map a file; `mmap.mmap` would keep a duplicate of its descriptor, with the lowest free number."""
    memory = map_anonymous(nbytes)
    _map_over(memory, fd, flags, offset)
    return memory


def _map_over(pages: Any, fd: int, flags: int, offset: int = 0) -> None:
    """Map a file, or new memory, in the place of whole pages of this process."""
    nbytes = memoryview(pages).nbytes
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    fixed = 0x10  # MAP_FIXED, which the mmap module does not name
    if _mmap()(address, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags | fixed, fd, offset) != address:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot map {nbytes} bytes of memory: {os.strerror(code)}")


@functools.cache
def _mmap() -> Any:
    """The function of C."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    return function


# Two tasks per worker: one is computed while the next is copied in.
SLOTS = 2
# Small enough for a worker's share of the caches, large enough for 10 ms of most work.
SLOT_BYTES = 2**20
# Slots of all workers together take at most 1/16 of the memory.
MEMORY_SHARE = 16

# At the start of a segment: the cursor, the claims, and the stack of a worker that died.
_HEADER = 4 * mmap.PAGESIZE
_ALIGN = 64
_CLAIMS = _ALIGN
_STACK = _CLAIMS + 2 * (SLOTS + 1) * CLAIM_BYTES


class Slots:
    """The shared memory of one worker, as mapped by the worker or its caller.

    Attributes
    ----------
    cursor : Cursor
        The element that the worker is computing.
    inputs, outputs : list of memoryview
        Slots: the arguments of a task are in ``inputs[k]``, its results in ``outputs[k]``.
    tasks, results : list of Claim
        For the task of each slot, and for one without (-1): whoever takes it computes the task; and whoever takes it
        decides about memory that the task's results are written to.
    stream : list of memoryview
        Two halves, each for one chunk of results too large for a slot.
    """

    tasks: Sequence[Any]
    results: Sequence[Any]

    def __init__(self, fd: int, slot_bytes: int) -> None:
        self._fd = fd
        memory = memoryview(map_shared(fd, segment_bytes(slot_bytes)))
        claims = [Claim(memory[_CLAIMS + k * CLAIM_BYTES :][:CLAIM_BYTES]) for k in range(2 * (SLOTS + 1))]
        self.tasks, self.results = claims[: SLOTS + 1], claims[SLOTS + 1 :]
        self._lay_out(memory, slot_bytes)

    def _lay_out(self, memory: memoryview, slot_bytes: int) -> None:
        """Find the parts of the memory."""
        self.slot_bytes = slot_bytes
        self._stack = memory[_STACK:_HEADER]
        every = [memory[_HEADER + k * slot_bytes :][:slot_bytes] for k in range(2 * SLOTS + 1)]
        self.inputs, self.outputs = every[:SLOTS], every[SLOTS : 2 * SLOTS]
        self.cursor = Cursor(memory[:CURSOR_BYTES], self.outputs)
        half = slot_bytes // 2
        self.stream = [every[-1][:half], every[-1][half:]]

    def stack_file(self) -> int:
        """Descriptor of the segment, positioned where a dying worker writes its stack."""
        # Nothing else uses the position of this descriptor: the segment is mapped.
        os.lseek(self._fd, _STACK, os.SEEK_SET)
        return self._fd

    @property
    def stack(self) -> str:
        """The stack that a dead worker has written."""
        return bytes(self._stack).partition(b"\0")[0].decode("utf-8", "replace")

    def arguments(self, slot: int) -> memoryview:
        """The arguments of a task, as the function may have them."""
        return self.inputs[slot]

    def leave_input(self, slot: int) -> None:
        """Make the memory of an input slot private, and map the slot at another address.

        For a function that keeps its argument: its view keeps its address and
        content, and the slot can take the next task.
        """
        old = self.inputs[slot]
        make_private(old)
        self.inputs[slot] = memoryview(map_shared(self._fd, self.slot_bytes, _HEADER + slot * self.slot_bytes))


def segment_bytes(slot_bytes: int) -> int:
    """Size of the shared memory of one worker."""
    return _HEADER + (2 * SLOTS + 1) * slot_bytes


def fitting_slot_bytes() -> int:
    """Size of a slot: `SLOT_BYTES`, or less on a machine with little memory for each CPU.

    Raises
    ------
    NoWorkersError
        If the size of files, which shared memory counts among, is limited to less than a few pages.
    """
    limit = min(memory_limit() // (MEMORY_SHARE * cpu_count()), file_limit())
    slot_bytes = (limit - segment_bytes(0)) // (segment_bytes(1) - segment_bytes(0))
    if slot_bytes < mmap.PAGESIZE:
        raise NoWorkersError(
            "no room for shared memory: the limits on memory and on the size of files (ulimit -f) leave "
            f"{limit} bytes for each worker; raise them, or use executor='threads'"
        )
    return min(SLOT_BYTES, slot_bytes - slot_bytes % mmap.PAGESIZE)


def buffer_offsets(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Offsets of buffers that lie one behind another, and the end of the last."""
    offsets = []
    end = 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // _ALIGN) * _ALIGN
    return offsets, end


def copy_in(slot: memoryview, offset: int, buffer: Any) -> None:
    """Copy bytes to a slot, unless they are in it already."""
    source = np.frombuffer(buffer, np.uint8) if not isinstance(buffer, np.ndarray) else buffer
    target = np.frombuffer(slot, np.uint8)[offset : offset + source.nbytes]
    # np.copyto releases the GIL.
    if source.nbytes and address_of(source) != address_of(target):
        np.copyto(target, source)
