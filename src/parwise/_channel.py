"""What a worker and its caller share: one socket and a few small slots.

Slots are recycled for ever and so always in cache: copying into recycled shared
memory runs at 11 to 15 GB/s, into fresh pages at 1 GB/s. Whatever does not fit
a slot passes through it piece by piece, so shared memory is a constant.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import pickle
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._layout import address_of
from ._mark import MARK_BYTES, Mark
from ._segment import make_private, map_shared
from .errors import ParwiseError

# Two tasks per worker: one is computed while the next is copied in.
SLOTS = 2
# Fits a worker's share of the caches, and holds 10 ms of most work.
SLOT_BYTES = 2**20
# A socket message of this size never blocks: the kernel holds 200 kB.
INLINE_BYTES = 32 * 2**10
_MESSAGE_BYTES = 2**16
# The mark, and behind it room for the stack of a worker that dies.
_HEADER = 4 * mmap.PAGESIZE
_STACK = 64
_ALIGN = 64
# A message brings two descriptors at most.
_FDS_SPACE = socket.CMSG_SPACE(2 * array.array("i").itemsize)


class Slots:
    """The shared memory of one worker, seen from either side.

    Attributes
    ----------
    mark : Mark
        The element that the worker is at.
    inputs, outputs : list of memoryview
        Slots for the arguments of a task, and for its results at the same number.
    stream : list of memoryview
        For results too large for a slot, one piece at a time in each.
    """

    def __init__(self, fd: int, slot_bytes: int) -> None:
        self._fd = fd
        self.slot_bytes = slot_bytes
        memory = memoryview(map_shared(fd, segment_bytes(slot_bytes)))
        self._stack = memory[_STACK:_HEADER]
        every = [memory[_HEADER + k * slot_bytes :][:slot_bytes] for k in range(2 * SLOTS + 1)]
        self.inputs, self.outputs = every[:SLOTS], every[SLOTS : 2 * SLOTS]
        self.mark = Mark(memory[:MARK_BYTES], self.outputs)
        half = slot_bytes // 2
        self.stream = [every[-1][:half], every[-1][half:]]

    def stack_file(self) -> int:
        """Descriptor to write the worker's stack to when it dies."""
        # Nobody else minds where this descriptor stands: all others are mapped.
        os.lseek(self._fd, _STACK, os.SEEK_SET)
        return self._fd

    @property
    def stack(self) -> str:
        """What a worker that died has written there."""
        return bytes(self._stack).partition(b"\0")[0].decode("utf-8", "replace")

    def leave_input(self, slot: int) -> None:
        """Make what lies in an input slot private, and map the slot anew.

        For a function that keeps its argument: its view stays where it is and
        keeps its content, while the slot goes on elsewhere in memory.
        """
        old = self.inputs[slot]
        make_private(old)
        self.inputs[slot] = memoryview(map_shared(self._fd, self.slot_bytes, _HEADER + slot * self.slot_bytes))


def segment_bytes(slot_bytes: int) -> int:
    """Size of the shared memory of one worker."""
    return _HEADER + (2 * SLOTS + 1) * slot_bytes


class Channel:
    """Messages between a worker and its caller, in order.

    Parameters
    ----------
    sock : socket
        One end of a SOCK_SEQPACKET pair: it keeps messages apart, and nobody
        but its two holders can reach it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        """Descriptor, for poll."""
        return self.sock.fileno()

    def send(self, *message: Any, fds: Sequence[int] = ()) -> None:
        """Send a message of at most some 100 kB, with descriptors."""
        data = pickle.dumps(message, protocol=5)
        if len(data) > _MESSAGE_BYTES:
            raise ParwiseError(
                f"a message of {len(data)} bytes is too long; are there thousands of arrays to map over?"
            )
        if fds:
            socket.send_fds(self.sock, [data], fds)
        else:
            self.sock.send(data)

    def receive(self) -> tuple[tuple[Any, ...], list[int]]:
        """The next message and the descriptors that came with it.

        Raises
        ------
        EOFError
            If the other side is gone.
        BlockingIOError
            If there is none and the socket does not block.
        """
        # Not socket.recv_fds, which drops its flags: descriptors came without
        # close-on-exec, and programs that the function starts had them.
        try:
            data, extra, _, _ = self.sock.recvmsg(_MESSAGE_BYTES, _FDS_SPACE, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # The other side died with messages unread. Linux says so once, before
            # what it had sent by then, which is still there.
            data, extra, _, _ = self.sock.recvmsg(_MESSAGE_BYTES, _FDS_SPACE, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise EOFError
        message: tuple[Any, ...] = pickle.loads(data)
        fds = array.array("i")
        for _, _, content in extra:
            fds.frombytes(content)
        return message, fds.tolist()

    def close(self) -> None:
        """Close this end."""
        with contextlib.suppress(OSError):
            self.sock.close()


def lay(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Offsets of buffers laid one behind another, and the end of the last."""
    offsets = []
    end = 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // _ALIGN) * _ALIGN
    return offsets, end


def copy_in(slot: memoryview, offset: int, buffer: Any) -> None:
    """Copy bytes to a slot, unless they are there already."""
    source = np.frombuffer(buffer, np.uint8) if not isinstance(buffer, np.ndarray) else buffer
    target = np.frombuffer(slot, np.uint8)[offset : offset + source.nbytes]
    # np.copyto lets other threads run while it copies.
    if source.nbytes and address_of(source) != address_of(target):
        np.copyto(target, source)
