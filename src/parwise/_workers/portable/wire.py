"""How messages pass between two processes: through a socket of Unix, or a named pipe of Windows."""

from __future__ import annotations

import _socket
import array
import sys
from collections.abc import Sequence
from multiprocessing import connection
from typing import Any, TypeAlias

from ..._system.interpreter import close
from ..descriptors import CLOSE_ON_EXEC, duplicate, fds_in, fds_space, open_streams
from ..protocol import COOKIE_BYTES, ForeignBytesError, Socket

#: Pieces of a message, and descriptors that came with it.
Pieces: TypeAlias = tuple[list[Any], list[int]]

#: True on Windows.
PIPES = hasattr(connection, "PipeConnection")

# In front of a message: the cookie, and how many pieces it has, 4 bytes. In a socket their sizes follow, 8 bytes each.
_HEAD_BYTES = COOKIE_BYTES + 4
_AT_ONCE = getattr(_socket, "MSG_DONTWAIT", 0)
# A program may have SIGPIPE end it. macOS has an option for that, SO_NOSIGPIPE, of which Python has no name.
_NO_SIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)
_NO_PIPE_SIGNAL = 0x1022
# Room for messages that wait to be read; macOS has 8 kB.
_BUFFER_BYTES = 2**17


def open_ends() -> tuple[Any, Any]:
    """The ends of a new connection.

    On Unix they are made by C code: gevent replaces `socket.socketpair`, which `multiprocessing.Pipe` calls.
    """
    if PIPES:
        return connection.Pipe()
    one, other = (Socket(fileno=fd) for fd in open_streams())
    for end in (one, other):
        end.setblocking(True)  # `socket.setdefaulttimeout` may have made it one that does not
    return one, other


class Piece:
    """Bytes to be sent, with descriptors; `sent` has the numbers of those that have been."""

    def __init__(self, data: Any, fds: Sequence[int] = ()) -> None:
        self.data = memoryview(data)
        self.fds = fds
        self.sent = [0]


class _Part:
    """Bytes that are coming; `got` has the numbers of those that have come."""

    def __init__(self, nbytes: int) -> None:
        self.data = bytearray(nbytes)
        self.got = [0]

    def read(self, sock: Socket) -> bool:
        """Read what is there; True if that is all."""
        while (done := sum(self.got)) < len(self.data):
            self.got[:] = [done]
            self.got.extend(map(sock.recv_into, [memoryview(self.data)[done:]], [0], [_AT_ONCE]))
            if not self.got[-1]:
                raise EOFError
        return True


class SocketWire:
    """A socket; the caller does not wait in it, neither for room nor for the rest of a message.

    A worker may be stopped, or killed, within a message. And a signal may raise an exception between any two steps of
    Python, after which the rest of the message must follow: C code notes what has passed, in the step in which it did.

    Parameters
    ----------
    end : socket or Connection
        Its descriptor is replaced by another one.
    waits : bool
        True if sending waits for room.
    """

    def __init__(self, end: Any, waits: bool) -> None:
        self.sock = Socket(fileno=duplicate(end.fileno()))
        self.sock.setblocking(True)
        for option in (_socket.SO_SNDBUF, _socket.SO_RCVBUF):
            if self.sock.getsockopt(_socket.SOL_SOCKET, option) < _BUFFER_BYTES:
                self.sock.setsockopt(_socket.SOL_SOCKET, option, _BUFFER_BYTES)
        end.close()
        self.waitable: Any = self.sock
        if sys.platform == "darwin":
            self.sock.setsockopt(_socket.SOL_SOCKET, _NO_PIPE_SIGNAL, 1)
        self._flags = _NO_SIGNAL | (0 if waits else _AT_ONCE)
        self._start()

    def _start(self) -> None:
        """Expect a message."""
        self._head: list[Any] = []
        self._parts: list[_Part] = []

    def tell(self, data: bytes) -> list[Piece]:
        """What `Connection.recv_bytes` receives."""
        return [Piece(len(data).to_bytes(4, "big") + data)]

    def pack(self, cookie: bytes, pieces: list[Any], fds: Sequence[int]) -> list[Piece]:
        """A message as it is sent."""
        sizes = b"".join(len(one).to_bytes(8, sys.byteorder) for one in pieces)
        first = b"".join((cookie, len(pieces).to_bytes(4, "little"), sizes, pieces[0]))
        return [Piece(first, fds), *map(Piece, pieces[1:])]

    def write(self, piece: Piece) -> bool:
        """Send a piece, or its rest; False if there is no room for all of it."""
        while (done := sum(piece.sent)) < len(piece.data):
            piece.sent[:] = [done]
            extra = []
            if piece.fds and not done:
                extra = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", piece.fds))]
            try:
                piece.sent.extend(map(self.sock.sendmsg, [[piece.data[done:]]], [extra], [self._flags]))
            except BlockingIOError:
                return False
        return True

    def read(self, cookie: bytes) -> Pieces | None:
        """The next message, as soon as all of it is there."""
        try:
            if not self._parts:
                self._parts = [_Part(8 * self._read_head(cookie))]
            self._parts[0].read(self.sock)
            if len(self._parts) == 1:
                self._parts = [*self._parts, *(_Part(size) for size in memoryview(self._parts[0].data).cast("Q"))]
            for one in self._parts[1:]:
                one.read(self.sock)
        except BlockingIOError:
            return None
        pieces, fds = [one.data for one in self._parts[1:]], fds_in(one[1] for one in self._head)
        self._start()
        return pieces, fds

    def _read_head(self, cookie: bytes) -> int:
        """The number of pieces of the next message."""
        while (done := sum(len(one[0]) for one in self._head)) < _HEAD_BYTES:
            self._head.extend(map(self.sock.recvmsg, [_HEAD_BYTES - done], [fds_space()], [_AT_ONCE | CLOSE_ON_EXEC]))
            if not self._head[-1][0]:
                raise EOFError
        head = b"".join(one[0] for one in self._head)
        if not head.startswith(cookie):
            for fd in fds_in(one[1] for one in self._head):
                close(fd)
            raise ForeignBytesError
        return int.from_bytes(head[COOKIE_BYTES:], "little")

    def close(self) -> None:
        """Close this end."""
        self.sock.close()


class PipeWire:
    """A named pipe, in which the caller waits for room: no process of Windows is stopped by a signal.

    Parameters
    ----------
    end : PipeConnection
        One end of it.
    waits : bool
        As of `SocketWire`.
    """

    def __init__(self, end: Any, waits: bool) -> None:
        self.waitable = end

    def tell(self, data: bytes) -> list[Piece]:
        """As in `SocketWire`."""
        self.waitable.send_bytes(data)
        return []

    def pack(self, cookie: bytes, pieces: list[Any], fds: Sequence[int]) -> list[Piece]:
        """As in `SocketWire`."""
        return [Piece(cookie + len(pieces).to_bytes(4, "little")), *map(Piece, pieces)]

    def write(self, piece: Piece) -> bool:
        """As in `SocketWire`."""
        self.waitable.send_bytes(piece.data)
        return True

    def read(self, cookie: bytes) -> Pieces | None:
        """As in `SocketWire`; the pieces of a message follow each other at once."""
        if not self.waitable.poll(0):
            return None
        head = self.waitable.recv_bytes()
        if not head.startswith(cookie) or len(head) != _HEAD_BYTES:
            raise ForeignBytesError
        return [self.waitable.recv_bytes() for _ in range(int.from_bytes(head[COOKIE_BYTES:], "little"))], []

    def close(self) -> None:
        """Close this end."""
        self.waitable.close()
