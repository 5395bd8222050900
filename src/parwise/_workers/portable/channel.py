"""Messages over a connection of `multiprocessing`: a socket on Unix, a named pipe on Windows."""

from __future__ import annotations

import _thread
import contextlib
import os
import pickle
import queue
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from ..._system.blas import OWN_THREADS
from ..._system.interpreter import select
from ...errors import ParwiseError
from ..descriptors import duplicate, receive
from ..pickling.multiprocessing_objects import arrive
from ..protocol import COOKIE_BYTES, Channel, ForeignBytesError

# Behind the cookie: how many buffers follow the message, and how many descriptors, 4 bytes each.
_HEAD_BYTES = COOKIE_BYTES + 8
# How often a worker looks whether its caller is there still.
LOOK_SECONDS = 1.0
SENDS_DESCRIPTORS = hasattr(socket, "SCM_RIGHTS") and hasattr(socket, "AF_UNIX")


_POLLOUT = 4  # by its value: gevent takes the name away


class PortableChannel(Channel):
    """One end of a connection between two processes.

    A message may be long, and hold a `pickle.PickleBuffer`, which is sent as it is.

    Parameters
    ----------
    connection : Connection or PipeConnection
        It connects two processes, and nobody else can reach it.
    cookie : bytes
        As in `Channel`.

    Attributes
    ----------
    up : bool
        True once the other side reads; until then messages wait here.
    """

    carries_all = True

    def __init__(self, connection: Any, cookie: bytes, up: bool = False) -> None:
        super().__init__(None, cookie)
        self.connection: Connection = connection
        self.up = up

    def fileno(self) -> int:
        """Descriptor, or handle on Windows."""
        return self.connection.fileno()

    @property
    def waitable(self) -> Any:
        """As in `Channel`; on Windows a handle of a pipe is not enough."""
        return self.connection

    def send(self, *message: Any, fds: Sequence[int] = ()) -> None:
        """Send a message of any length, with file descriptors where the system can."""
        if fds and not SENDS_DESCRIPTORS:
            return self._send_without_descriptors(message)
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        head = len(buffers).to_bytes(4, "little") + len(fds).to_bytes(4, "little")
        packed = [self.cookie + head + data, *(one.raw() for one in buffers)]
        self.unsent.append((packed, [duplicate(fd) for fd in fds]))
        self.flush()
        return None

    def _send_without_descriptors(self, message: tuple[Any, ...]) -> None:
        if message[0] != "track":
            raise ParwiseError(
                "connections, sockets and pipes of multiprocessing cannot be sent to workers on this system; make them "
                "inside the function, or use executor='threads'"
            )

    def flush(self) -> None:
        """Send waiting messages, if the other side reads and there is room."""
        while self.unsent and self.up and self._has_room():
            packed, fds = self.unsent[0]
            for one in packed:
                self.connection.send_bytes(one)
            if fds:
                with socket.socket(fileno=duplicate(self.connection.fileno())) as sock:
                    socket.send_fds(sock, [b"\0"], fds)
            self._forget_unsent(1)

    def _has_room(self) -> bool:
        """True unless a write would block, as far as the system tells: a worker that is stopped reads nothing."""
        if not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(self.connection.fileno(), _POLLOUT)
        return bool(poll.poll(0))

    def receive(self) -> tuple[tuple[Any, ...], list[int]]:
        """As in `Channel`."""
        while True:
            message, fds = self._take()
            if message[0] == "refused":
                raise ForeignBytesError
            if message[0] != "descriptors":
                return message, fds
            arrive(message[1], fds)
            self._tokens.extend(message[1])

    def _take(self) -> tuple[tuple[Any, ...], list[int]]:
        """The next message, if one is there."""
        if not self.connection.poll(0):
            raise BlockingIOError
        found = unpack(*self.read())
        if not self.up:
            self.up = True
            with contextlib.suppress(ConnectionError):  # the next read tells
                self.flush()
        return found

    def read(self) -> tuple[list[bytes], list[int]]:
        """Wait for a message; return it in pieces, and its descriptors."""
        data = self.connection.recv_bytes()
        if not data.startswith(self.cookie) or len(data) < _HEAD_BYTES:
            raise ForeignBytesError
        counts = data[COOKIE_BYTES:_HEAD_BYTES]
        pieces = [data[_HEAD_BYTES:]]
        pieces += [self.connection.recv_bytes() for _ in range(int.from_bytes(counts[:4], "little"))]
        if not int.from_bytes(counts[4:], "little"):
            return pieces, []
        with socket.socket(fileno=duplicate(self.connection.fileno())) as sock:
            return pieces, receive(sock, 1)[1]

    def close(self) -> None:
        """Close this end."""
        self._forget_unsent(len(self.unsent))
        self.close_arrived()
        with contextlib.suppress(OSError):
            self.connection.close()


def unpack(pieces: list[bytes], fds: list[int]) -> tuple[tuple[Any, ...], list[int]]:
    """A message that was read, and its descriptors."""
    message: tuple[Any, ...] = pickle.loads(pieces[0], buffers=pieces[1:])
    return message, fds


class WorkerChannel(PortableChannel):
    """The end of a worker, which a thread reads: the caller never waits for the function.

    The thread also sees that the caller has gone, and ends the process.

    Parameters
    ----------
    connection, cookie
        As in `PortableChannel`.
    orphaned : callable
        True if the caller has ended; its end of the connection may live on in processes that it has forked.
    """

    def __init__(self, connection: Any, cookie: bytes, orphaned: Callable[[], bool]) -> None:
        super().__init__(connection, cookie, up=True)
        self._orphaned = orphaned
        self._queue: queue.SimpleQueue[tuple[list[bytes], list[int]]] = queue.SimpleQueue()
        # Not a `threading.Thread`, which the function would see among the threads of its process.
        _thread.start_new_thread(self._listen, ())

    def _listen(self) -> None:
        OWN_THREADS.add(threading.get_native_id())
        if hasattr(signal, "pthread_sigmask"):  # SIGTERM writes the stack of the thread that gets it
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            while not self._orphaned():
                if self.connection.poll(LOOK_SECONDS):
                    self._queue.put(self.read())
        except ForeignBytesError:
            self.refuse()
        except (EOFError, OSError):
            pass
        end_at_once()

    def _take(self) -> tuple[tuple[Any, ...], list[int]]:
        return unpack(*self._queue.get())

    def _has_room(self) -> bool:
        return True


def end_at_once() -> None:
    """End this worker, and what its function has started."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
