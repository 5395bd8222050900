"""The messages between caller, workers and fork server, and the socket that carries them.

A worker and its caller share one socket and a segment of shared memory with a
few small slots. A message is a tuple: its name, then its content. Methods
``_on_NAME`` handle those of a worker (in `Receiver`) and those to it (in
`Worker`).

=====================  ====================================  =============================================
Name                   Content                               Meaning
=====================  ====================================  =============================================
Any
----------------------------------------------------------------------------------------------------------
descriptors            tokens                                Descriptors that objects in the next message
                                                             take; handled by `Channel` itself.
refused                                                      Bytes came that were none of these messages;
                                                             the sender ends. Handled by `Channel` itself.
---------------------  ------------------------------------  ---------------------------------------------
Caller to worker
----------------------------------------------------------------------------------------------------------
initialize             0, end, nbytes, check, payload        Run the pool's initializer; sent before all
                                                             else. The table of the payload's buffers
                                                             starts at byte `end`. With None the payload is
                                                             in a file, whose descriptor comes along, and
                                                             `check` is the checksum of its pickles.
set_up                 0, end, check, payload or None       Run the function given as `setup`; as above.
finalize                                                     Call the pool's finalizer; the end is near.
track                                                        Use the caller's resource tracker, whose
                                                             descriptor comes along.
load                   call, end, nbytes, check, payload     Load the session of a call; as above.
unload                                                       Release the session.
define                 (token, late), end, nbytes,           Keep definitions of a call; as above. Late
                       check, payload                        ones name definitions of the session.
targets                address, kind, dtype and shape, or   Where results of this call belong in the
                       None, of each column                  caller's memory.
task                   number, lo, hi, slot, offsets,        Compute elements `lo` to `hi`. The arguments
                       layouts or None, offered, stores      are in `slot`, or came in chunks (slot -1);
                                                             with None as offsets the worker reads them in
                                                             the caller's memory. If `offered`, it may write
                                                             the results there, if it `stores` them, to
                                                             files, if it takes their claim.
calls                  number, lo, hi, slot, sizes, check,   Make submitted calls, as above. Their pickles have
                       answered                              these sizes, and one checksum. None are made where the
                                                             worker left an earlier batch unfinished, and that is
                                                             not the last batch whose answer was read.
arguments_in_chunks    nbytes                                Arguments of the next task follow in chunks.
chunk                  slot, nbytes                          A piece of them is in this input slot.
chunk_ack              half                                  This half of the stream has been read.
---------------------  ------------------------------------  ---------------------------------------------
Worker to caller
----------------------------------------------------------------------------------------------------------
ready                  direct                                The worker is up; True if it may read and
                                                             write the caller's memory.
load_failed            call, error                           The session could not be loaded.
prepare_failed         note, error                           The initializer or the setup raised.
finalized              error or None                         The finalizer was called.
output                 number, events                        Prints, warnings and log records of a task
                                                             that is still running.
done                   number, slot, header, extent, sizes,  The outcome of a task: buffers of these sizes
                       checks                                are in output slot `slot`, which is free once
                                                             they are read. Pickled ones have a checksum.
                                                             See `Extent` for what has been written.
done_in_chunks         number, slot, header, extent, sizes,  An outcome whose buffers follow in chunks.
                       checks
unread                 number, slot, why                     The arguments of a task could not be read.
dropped                number, slot                          The caller did not want its results any more.
chunk                  half, nbytes                          A piece of them is in this half of the stream.
slot_free              slot                                  The chunk in this input slot has been read, or
                                                             its task skipped, since it was taken back.
---------------------  ------------------------------------  ---------------------------------------------
Caller to fork server
----------------------------------------------------------------------------------------------------------
fork                   key, slot_bytes, address              Fork a worker. Its socket and its segment come
                                                             along as descriptors. The pool's secret lies at
                                                             this address of the caller's memory; 0 keeps
                                                             the worker out of that.
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
import pickle
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .._system.interpreter import close
from ..errors import ParwiseError
from .descriptors import FDS, duplicate, open_sockets, receive
from .pickling.multiprocessing_objects import Attachments, Token, arrive, close_arrived
from .shared_memory import buffer_offsets, copy_in

# A message of this size never blocks: the kernel buffers 200 kB.
INLINE_BYTES = 32 * 2**10
_MESSAGE_BYTES = 2**16

#: Bytes of the secret of a pool, which each of its messages begins with.
COOKIE_BYTES = 16
# In front of a pickled message: the cookie, and its length.
_HEAD_BYTES = COOKIE_BYTES + 4


class ForeignBytesError(EOFError):
    """Bytes have come that the other side has not sent: they are not unpickled, and nothing more is read."""

    def told(self, process: str) -> ParwiseError:
        """The error for the user; `process` is the one at the other end."""
        return ParwiseError(
            f"bytes that parwise did not send arrived between this process and {process}; they were "
            "refused, and not unpickled. Probably a library writes to a descriptor that it did not open, "
            "as one that prints after standard output was closed. The worker processes were ended, and "
            "the next call starts new ones; if it happens again, use executor='threads'"
        )


def checksum(pickled: Any) -> int:
    """A number by which pickled bytes are known again that pass through shared memory.

    It travels in a message, behind the cookie, so it need not be secret: crc32 takes 145 us for 1 MB, and blake2b with
    a key 735.
    """
    return zlib.crc32(pickled)


def verified(pickled: Any, check: int | None) -> Any:
    """Return pickled bytes, in memory that no other process writes to, if that is their checksum."""
    if check is not None and zlib.crc32(pickled) != check:
        raise ForeignBytesError
    return pickled


def buffers_in(slot: memoryview, sizes: list[int], checks: list[int | None]) -> list[Any]:
    """Buffers of an outcome: views of raw arrays in a slot, and copies of pickles, which nobody can change any more."""
    offsets, _ = buffer_offsets(sizes)
    views = [slot[at : at + n] for at, n in zip(offsets, sizes, strict=True)]
    return [view if check is None else verified(bytes(view), check) for view, check in zip(views, checks, strict=True)]


class Socket(_socket.socket):
    """A socket of C: gevent replaces those of the module `socket`, and makes their descriptors non-blocking.

    It is closed without a ResourceWarning where the interpreter ends before its pool does.
    """

    __slots__ = ()
    __del__ = _socket.socket.close  # C code, in which no Ctrl-C is lost


def socket_pair() -> tuple[Socket, Socket]:
    """Two connected sockets that keep messages apart."""
    one, other = open_sockets()
    return blocking_socket(one), blocking_socket(other)


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
    cookie : bytes
        The secret of the pool. What does not begin with it was written by a library that took the socket's descriptor
        for another one, and is refused.
    """

    #: True if messages of any length may be sent, and need no file beside them.
    carries_all = False

    def __init__(self, sock: Any, cookie: bytes) -> None:
        self.sock: Socket = sock
        self.cookie = cookie
        # Messages that a socket which does not block had no room for, with duplicates of their descriptors.
        self.unsent: deque[tuple[Any, list[int]]] = deque()
        # Tokens of descriptors that have come.
        self._tokens: list[Token] = []

    def fileno(self) -> int:
        """File descriptor, for poll."""
        return self.sock.fileno()

    @property
    def waitable(self) -> Any:
        """What `multiprocessing.connection.wait` takes."""
        return self

    def send(self, *message: Any, fds: Sequence[int] = ()) -> None:
        """Send a message of at most 64 kB when pickled, with file descriptors."""
        data = pickle.dumps(message, protocol=5)
        if len(data) > _MESSAGE_BYTES:
            raise ParwiseError(
                f"a message of {len(data)} bytes is too long; pass fewer arrays to map over (are there thousands?)"
            )
        data = b"".join((self.cookie, len(data).to_bytes(4, "little"), data))
        if self.unsent:
            self.unsent.append((data, [duplicate(fd) for fd in fds]))
            return
        try:
            self._send(data, fds)
        except BlockingIOError:
            # A worker that is starting, or gets no CPU, reads nothing: a few calls that other workers compute fill the
            # 200 kB with their functions.
            self.unsent.append((data, [duplicate(fd) for fd in fds]))

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        if fds:
            self.sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))])
        else:
            self.sock.send(data)

    @property
    def waiting(self) -> bool:
        """True if messages wait for room in the socket."""
        return bool(self.unsent)

    def flush(self) -> None:
        """Send waiting messages, as many as there is room for."""
        with contextlib.suppress(BlockingIOError):
            self._send_unsent()

    def _send_unsent(self) -> None:
        while self.unsent:
            self._send(*self.unsent[0])
            self._forget_unsent(1)

    def _forget_unsent(self, count: int) -> None:
        for _ in range(count):
            for fd in self.unsent.popleft()[1]:
                close(fd)

    def send_attachments(self, several: Iterable[Attachments]) -> None:
        """Send descriptors that objects in the next message take."""
        for attachments in several:
            fds = iter(attachments.fds.items())
            while some := dict(islice(fds, FDS)):
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
        not block, ForeignBytesError if one of both has got what the other has not sent.
        """
        while True:
            try:
                data, fds, cut = receive(self.sock, _HEAD_BYTES + _MESSAGE_BYTES)
            except ConnectionResetError:
                # The other side died with messages unread. Linux reports that once, before
                # the messages that it had sent, which can still be read.
                data, fds, cut = receive(self.sock, _HEAD_BYTES + _MESSAGE_BYTES)
            if not data:
                raise EOFError
            if cut or not self._sent_by_other(data):
                for fd in fds:
                    close(fd)
                raise ForeignBytesError
            message: tuple[Any, ...] = pickle.loads(memoryview(data)[_HEAD_BYTES:])
            if message[0] == "refused":
                raise ForeignBytesError
            if message[0] != "descriptors":
                return message, fds
            arrive(message[1], fds)
            self._tokens.extend(message[1])

    def _sent_by_other(self, data: bytes) -> bool:
        """True if a packet has the form of a message of this pool."""
        size = int.from_bytes(data[COOKIE_BYTES:_HEAD_BYTES], "little")
        return data.startswith(self.cookie) and len(data) == _HEAD_BYTES + size

    def refuse(self) -> None:
        """Tell the other side that bytes have come that it has not sent; this side then ends."""
        with contextlib.suppress(OSError):
            self.send("refused")

    def close(self) -> None:
        """Close this end."""
        self._forget_unsent(len(self.unsent))
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
