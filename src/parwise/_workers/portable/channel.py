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
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from ..._system.blas import OWN_THREADS
from ...errors import ParwiseError
from ..descriptors import duplicate
from ..pickling.multiprocessing_objects import arrive
from ..protocol import Channel, ForeignBytesError
from .wire import PIPES, Pieces, PipeWire, SocketWire

# How often a worker looks whether its caller is there still.
LOOK_SECONDS = 1.0
SENDS_DESCRIPTORS = hasattr(socket, "SCM_RIGHTS") and hasattr(socket, "AF_UNIX")


class PortableChannel(Channel):
    """One end of a connection between two processes.

    A message may be long, and hold a `pickle.PickleBuffer`, which is sent as it is.

    Parameters
    ----------
    end : Connection or PipeConnection
        It connects two processes, and nobody else can reach it.
    cookie : bytes
        As in `Channel`.
    waits : bool
        True if `send` waits for room.

    Attributes
    ----------
    up : bool
        True once messages may be sent; until then they wait here.
    """

    carries_all = True

    def __init__(self, end: Any, cookie: bytes, waits: bool = False) -> None:
        super().__init__(None, cookie)
        self.wire = PipeWire(end, waits) if PIPES else SocketWire(end, waits)
        self.up = waits or not PIPES
        # Held by the thread that sends.
        self._sending = _thread.allocate_lock()

    def fileno(self) -> int:
        """Descriptor, or handle on Windows."""
        return int(self.waitable.fileno())

    @property
    def waitable(self) -> Any:
        """As in `Channel`; on Windows a handle of a pipe is not enough."""
        return self.wire.waitable

    @property
    def full(self) -> bool:
        """True if messages wait for room alone."""
        return self.up and self.waiting

    def tell(self, data: bytes) -> None:
        """Send bytes that `Connection.recv_bytes` receives: there is no channel yet at the other end."""
        self.unsent.append((self.wire.tell(data), []))
        self.flush()

    def send(self, *message: Any, fds: Sequence[int] = ()) -> None:
        """Send a message of any length, with file descriptors where the system can."""
        if fds and not SENDS_DESCRIPTORS:
            return self._send_without_descriptors(message)
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        copies = [duplicate(fd) for fd in fds]
        self.unsent.append((self.wire.pack(self.cookie, [data, *(one.raw() for one in buffers)], copies), copies))
        self.flush()
        return None

    def _send_without_descriptors(self, message: tuple[Any, ...]) -> None:
        if message[0] != "track":
            raise ParwiseError(
                "connections, sockets and pipes of multiprocessing cannot be sent to workers on this system; make them "
                "inside the function, or use executor='threads'"
            )

    def flush(self) -> None:
        """Send waiting messages, as many as there is room for, one after the other.

        Threads of a function may print at the same time, and a handler of a signal may do so within this: whoever comes
        second leaves its message to the first.
        """
        there_is_room = True
        while there_is_room and self.unsent and self.up:
            # C code notes that the lock is held, in the step in which it takes it: an exception of a handler right
            # behind that step would leave it locked for ever. Nor is there a loop in this block: in Python 3.13 an
            # exception between two rounds of one goes past `finally`.
            held: list[bool] = []
            try:
                held.extend(map(self._sending.acquire, [False]))
                if not held[0]:
                    return
                there_is_room = self._write_waiting()
            finally:
                if held and held[0]:
                    self._sending.release()

    def _write_waiting(self) -> bool:
        """Send waiting messages; False if there is no room for all of them."""
        while self.unsent:
            if not all(map(self.wire.write, self.unsent[0][0])):
                return False
            self._forget_unsent(1)
        return True

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
        found = self.wire.read(self.cookie)
        if found is None:
            raise BlockingIOError
        if not self.up:
            self.up = True
            with contextlib.suppress(ConnectionError):  # the next read tells
                self.flush()
        return unpack(*found)

    def close(self) -> None:
        """Close this end."""
        self._forget_unsent(len(self.unsent))
        self.close_arrived()
        with contextlib.suppress(OSError):
            self.wire.close()


def unpack(pieces: list[Any], fds: list[int]) -> tuple[tuple[Any, ...], list[int]]:
    """A message that was read, and its descriptors."""
    message: tuple[Any, ...] = pickle.loads(pieces[0], buffers=pieces[1:])
    return message, fds


class WorkerChannel(PortableChannel):
    """The end of a worker, which a thread reads: the caller never waits for the function.

    The thread also sees that the caller has gone, and ends the process.

    Parameters
    ----------
    end, cookie
        As in `PortableChannel`.
    orphaned : callable
        True if the caller has ended; its end of the connection may live on in processes that it has forked.
    """

    def __init__(self, end: Any, cookie: bytes, orphaned: Callable[[], bool]) -> None:
        super().__init__(end, cookie, waits=True)
        self._orphaned = orphaned
        self._queue: queue.SimpleQueue[Pieces] = queue.SimpleQueue()
        # Not a `threading.Thread`, which the function would see among the threads of its process.
        _thread.start_new_thread(self._listen, ())

    def _listen(self) -> None:
        OWN_THREADS.add(threading.get_native_id())
        if hasattr(signal, "pthread_sigmask"):  # SIGTERM writes the stack of the thread that gets it
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._hand_on()
        except ForeignBytesError:
            self.refuse()
        except (EOFError, OSError):
            pass
        except BaseException:  # without this thread the worker would wait for ever
            traceback.print_exc()
        end_at_once()

    def _hand_on(self) -> None:
        """Put messages into the queue until the caller is gone."""
        while not self._orphaned():
            connection.wait([self.waitable], LOOK_SECONDS)
            while (message := self.wire.read(self.cookie)) is not None:
                self._queue.put(message)

    def _take(self) -> tuple[tuple[Any, ...], list[int]]:
        return unpack(*self._queue.get())


def end_at_once() -> None:
    """End this worker, and what its function has started."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
