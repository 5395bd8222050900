"""The messages between caller, workers and fork server, and the socket that carries them.

A worker and its caller share one socket and a segment of shared memory with a
few small slots. A message is a tuple: its name, then its content. Methods
``_on_NAME`` handle those of a worker (in `Dispatcher`) and those to it (in
`Worker`).

=====================  ====================================  =============================================
Name                   Content                               Meaning
=====================  ====================================  =============================================
Any
----------------------------------------------------------------------------------------------------------
descriptors            tokens                                Descriptors that objects in the next message
                                                             take; handled by `Channel` itself.
---------------------  ------------------------------------  ---------------------------------------------
Caller to worker
----------------------------------------------------------------------------------------------------------
initialize             0, end, nbytes, payload or None       Run the pool's initializer; sent before all
                                                             else. The table of the payload's buffers
                                                             starts at byte `end`. With None the payload is
                                                             in a file, whose descriptor comes along.
set_up                 0, end, nbytes, payload or None       Run the function given as `setup`; as above.
track                                                        Use the caller's resource tracker, whose
                                                             descriptor comes along.
load                   call, end, nbytes, payload or None    Load the session of a call; as above.
unload                                                       Release the session.
define                 (token, late), end, nbytes,           Keep definitions of a call; as above. Late
                       payload or None                       ones name definitions of the session.
task                   number, lo, hi, slot, offsets,        Compute elements `lo` to `hi`. The arguments
                       layouts or None                       are in `slot`, or came in chunks (slot -1).
arguments_in_chunks    nbytes                                Arguments of the next task follow in chunks.
chunk                  slot, nbytes                          A piece of them is in this input slot.
chunk_ack              half                                  This half of the stream has been read.
---------------------  ------------------------------------  ---------------------------------------------
Worker to caller
----------------------------------------------------------------------------------------------------------
ready                                                        The worker is up.
load_failed            call, error                           The session could not be loaded.
prepare_failed         note, error                           The initializer or the setup raised.
output                 number, events                        Prints, warnings and log records of a task
                                                             that is still running.
done                   number, slot, header, sizes           The outcome of a task: buffers of these sizes
                                                             are in output slot `slot`, which is free once
                                                             they are read.
done_in_chunks         number, slot, header, sizes           An outcome whose buffers follow in chunks.
chunk                  half, nbytes                          A piece of them is in this half of the stream.
slot_free              slot                                  The chunk in this input slot has been read.
---------------------  ------------------------------------  ---------------------------------------------
Caller to fork server
----------------------------------------------------------------------------------------------------------
fork                   key, slot_bytes                       Fork a worker. Its socket and its segment come
                                                             along as descriptors.
exit_code              pid                                   Report how this worker ended.
stop                                                         End all workers, wait for them, and end.
---------------------  ------------------------------------  ---------------------------------------------
Fork server to caller
----------------------------------------------------------------------------------------------------------
forked                 key, pid                              The worker runs; its pidfd comes along.
fork_failed            key, reason                           The system refused to fork.
exited                 pid, exit code or None                Its exit code, or minus the signal.
=====================  ====================================  =============================================

Slots are used again and again and so stay in the cache: copying into such shared
memory runs at 11 to 15 GB/s, into fresh pages at 1 GB/s. Data larger than a slot
passes through in chunks, so the amount of shared memory is constant.
"""

from __future__ import annotations

import _socket
import array
import contextlib
import fcntl
import os
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..errors import ParwiseError
from .pickling.multiprocessing_objects import Attachments, Token, arrive, close_arrived
from .shared_memory import copy_in

# A message of this size never blocks: the kernel buffers 200 kB.
INLINE_BYTES = 32 * 2**10
_MESSAGE_BYTES = 2**16

# A message brings so many descriptors at most; Linux allows 253.
_FDS = 100
_FDS_SPACE = _socket.CMSG_SPACE(_FDS * array.array("i").itemsize)
# Standard input, output and error.
_STANDARD_FDS = 3


class Socket(_socket.socket):
    """A socket of C: gevent replaces those of the module `socket`, and makes their descriptors non-blocking.

    It is closed without a ResourceWarning where the interpreter ends before its pool does.
    """

    __slots__ = ()
    __del__ = _socket.socket.close  # C code, in which no Ctrl-C is lost


def socket_pair() -> tuple[Socket, Socket]:
    """Two connected sockets that keep messages apart."""
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return _above_standard(one.detach()), _above_standard(other.detach())


def _above_standard(fd: int) -> Socket:
    """A socket whose descriptor no print goes to, where the caller has closed its standard streams."""
    if fd < _STANDARD_FDS:
        low, fd = fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STANDARD_FDS)
        os.close(low)
    return blocking_socket(fd)


def blocking_socket(fd: int) -> Socket:
    """The socket of a descriptor, without a timeout, which `socket.setdefaulttimeout` may set."""
    sock = Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
    sock.setblocking(True)
    return sock


class Channel:
    """One end of a socket between two processes; messages arrive in order.

    Parameters
    ----------
    sock : socket
        One end of a SOCK_SEQPACKET pair, which keeps messages apart and cannot
        be reached by other processes.
    """

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        # Messages that a socket which does not block had no room for, with duplicates of their descriptors.
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        # Tokens of descriptors that have come.
        self._tokens: list[Token] = []

    def fileno(self) -> int:
        """File descriptor, for poll."""
        return self.sock.fileno()

    def send(self, *message: Any, fds: Sequence[int] = ()) -> None:
        """Send a message of at most 64 kB when pickled, with file descriptors."""
        data = pickle.dumps(message, protocol=5)
        if len(data) > _MESSAGE_BYTES:
            raise ParwiseError(
                f"a message of {len(data)} bytes is too long; are there thousands of arrays to map over?"
            )
        if self._unsent:
            self._unsent.append((data, [os.dup(fd) for fd in fds]))
            return
        try:
            self._send(data, fds)
        except BlockingIOError:
            # A worker that is starting, or gets no CPU, reads nothing: a few calls that other workers compute fill the
            # 200 kB with their functions.
            self._unsent.append((data, [os.dup(fd) for fd in fds]))

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        if fds:
            self.sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))])
        else:
            self.sock.send(data)

    @property
    def waiting(self) -> bool:
        """True if messages wait for room in the socket."""
        return bool(self._unsent)

    def flush(self) -> None:
        """Send waiting messages, as many as there is room for."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._send(*self._unsent[0])
                self._forget_unsent(1)

    def _forget_unsent(self, count: int) -> None:
        for _ in range(count):
            for fd in self._unsent.popleft()[1]:
                os.close(fd)

    def send_attachments(self, several: Iterable[Attachments]) -> None:
        """Send descriptors that objects in the next message take."""
        for attachments in several:
            fds = iter(attachments.fds.items())
            while some := dict(islice(fds, _FDS)):
                self.send("descriptors", list(some), fds=list(some.values()))

    @property
    def has_arrived(self) -> bool:
        """True if descriptors have come since the last `close_arrived`."""
        return bool(self._tokens)

    def close_arrived(self) -> None:
        """Close descriptors that no object of the messages so far has taken."""
        if self._tokens:
            close_arrived(self._tokens)
            self._tokens.clear()

    def receive(self) -> tuple[tuple[Any, ...], list[int]]:
        """Receive the next message and the file descriptors that came with it.

        Raises EOFError if the other side has closed its end, BlockingIOError if no message is there and the socket does
        not block.
        """
        while True:
            # Not socket.recv_fds, which drops its flags: descriptors came without
            # close-on-exec, and programs that the function started inherited them.
            try:
                data, extra, _, _ = self.sock.recvmsg(_MESSAGE_BYTES, _FDS_SPACE, _socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:
                # The other side died with messages unread. Linux reports that once, before
                # the messages that it had sent, which can still be read.
                data, extra, _, _ = self.sock.recvmsg(_MESSAGE_BYTES, _FDS_SPACE, _socket.MSG_CMSG_CLOEXEC)
            if not data:
                raise EOFError
            message: tuple[Any, ...] = pickle.loads(data)
            fds = array.array("i")
            for _, _, content in extra:
                fds.frombytes(content)
            if message[0] != "descriptors":
                return message, fds.tolist()
            arrive(message[1], fds)
            self._tokens.extend(message[1])

    def close(self) -> None:
        """Close this end."""
        self._forget_unsent(len(self._unsent))
        self.close_arrived()
        with contextlib.suppress(OSError):
            self.sock.close()


class ChunkSender:
    """Sends data larger than a slot through `areas` of shared memory, each for one chunk, all of one size.

    `free` holds the numbers of free areas. The other side reports each area that it has read; the handler of that
    message appends its number.
    """

    def __init__(self, channel: Channel, areas: list[memoryview], free: deque[int]) -> None:
        self._channel = channel
        self._areas = areas
        self.free = free

    def send(self, data: memoryview) -> Iterator[None]:
        """Send all of `data`; a generator that yields while no area is free."""
        step = len(self._areas[0])
        for at in range(0, len(data), step):
            while not self.free:
                yield
            area = self.free.popleft()
            chunk = data[at : at + step]
            copy_in(self._areas[area], 0, chunk)
            self._channel.send("chunk", area, len(chunk))


class ChunkReceiver:
    """Assembles data that arrives in chunks into `buffers`; a chunk belongs to one of them.

    `message` is the content of the message that announced the chunks.
    """

    def __init__(self, buffers: list[np.ndarray], *message: Any) -> None:
        self.buffers = buffers
        self.message = message
        self._unfilled = deque(buffer for buffer in buffers if buffer.nbytes)

    @property
    def complete(self) -> bool:
        """True once all buffers are full."""
        return not self._unfilled

    def receive(self, chunk: memoryview) -> None:
        """Append a chunk to those received before."""
        if chunk:
            rest = self._unfilled.popleft()
            np.copyto(rest[: len(chunk)], np.frombuffer(chunk, np.uint8))
            if len(chunk) < len(rest):
                self._unfilled.appendleft(rest[len(chunk) :])
