"""What a worker and its caller share: one socket and a few small slots.

Slots are recycled for ever and so always in cache: copying into recycled shared
memory runs at 11 to 15 GB/s, into fresh pages at 1 GB/s. Whatever does not fit
a slot passes through it piece by piece, so shared memory is a constant.
"""

from __future__ import annotations

import array
import contextlib
import pickle
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import ParwiseError
from .shared_memory import copy_in

# A socket message of this size never blocks: the kernel holds 200 kB.
INLINE_BYTES = 32 * 2**10
_MESSAGE_BYTES = 2**16

# A message brings two descriptors at most.
_FDS_SPACE = socket.CMSG_SPACE(2 * array.array("i").itemsize)


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


class ChunkSender:
    """Sends data larger than a slot through areas of shared memory.

    Parameters
    ----------
    channel : Channel
    areas : list of memoryview
        All of one size, that of a chunk.
    free : deque of int
        Areas that the other side has read; it reports each, and the message's
        handler adds it here.
    """

    def __init__(self, channel: Channel, areas: list[memoryview], free: deque[int]) -> None:
        self._channel = channel
        self._areas = areas
        self.free = free

    def send(self, data: memoryview) -> Iterator[None]:
        """Send all of `data`; yields while no area is free."""
        step = len(self._areas[0])
        for at in range(0, len(data), step):
            while not self.free:
                yield
            area = self.free.popleft()
            chunk = data[at : at + step]
            copy_in(self._areas[area], 0, chunk)
            self._channel.send("chunk", area, len(chunk))


class ChunkReceiver:
    """Puts chunks together.

    Parameters
    ----------
    buffers : list of ndarray
        Bytes to fill, in order; no chunk crosses from one to the next.
    message : tuple
        Content of the message that announced the chunks.
    """

    def __init__(self, buffers: list[np.ndarray], *message: Any) -> None:
        self.buffers = buffers
        self.message = message
        self._unfilled = deque(buffer for buffer in buffers if buffer.nbytes)

    @property
    def complete(self) -> bool:
        """True if all chunks have come."""
        return not self._unfilled

    def receive(self, chunk: memoryview) -> None:
        """Copy a chunk behind those before it."""
        if chunk:
            rest = self._unfilled.popleft()
            np.copyto(rest[: len(chunk)], np.frombuffer(chunk, np.uint8))
            if len(chunk) < len(rest):
                self._unfilled.appendleft(rest[len(chunk) :])
