"""Payloads: a pickle with its arrays, on its way to another process."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.rec

from ..._core.layout import Layout, address_of, offsets_for, private_memory
from ..._system.interpreter import DeferredInterrupt, close
from ..._system.limits import file_limit, memory_limit
from ..._system.platforms.here import write_at
from ...errors import ParwiseError
from ..protocol import INLINE_BYTES, Channel, ForeignBytesError, checksum, verified
from ..shared_globals import restore
from ..shared_memory import create_fd
from .multiprocessing_objects import Attachments, Packed, UnnamedLockError

_BYTES = np.dtype(np.uint8)
#: Offset, size, read-only flag of each buffer, and its checksum if it is a pickle.
BufferTable: TypeAlias = list[tuple[int, int, bool, int | None]]


class Payload(NamedTuple):
    """Two pickles, and the memory of the arrays in the second.

    Attributes
    ----------
    buffers, offsets : list
        The pickles and arrays, and the byte offset of each.
    nbytes : int
        Their size together.
    attachments : Attachments
        Those of the second pickle.
    """

    buffers: list[memoryview]
    offsets: list[int]
    nbytes: int
    attachments: Attachments

    @property
    def table(self) -> BufferTable:
        """How to find the buffers in memory."""
        checks = [*map(checksum, self.buffers[:2]), *[None] * len(self.buffers[2:])]
        sizes = [(buffer.nbytes, buffer.readonly) for buffer in self.buffers]
        return [(at, *size, check) for at, size, check in zip(self.offsets, sizes, checks, strict=True)]

    def to_bytes(self) -> bytes:
        """Copy all buffers to one bytes object."""
        whole = bytearray(self.nbytes)
        for offset, buffer in zip(self.offsets, self.buffers, strict=True):
            whole[offset : offset + buffer.nbytes] = buffer
        return Packed.with_attachments(bytes(whole), self.attachments)

    def write(self, fd: int) -> None:
        """Write all buffers to a file of `nbytes` bytes."""
        for offset, buffer in zip(self.offsets, self.buffers, strict=True):
            while buffer.nbytes:
                done = write_at(fd, buffer, offset)
                buffer, offset = buffer[done:], offset + done

    def send(self, channels: Iterable[Channel], kind: str, call: Any) -> None:
        """Send it to workers: a small one in a message, a large one in one file for all of them."""
        # The table goes behind the buffers: it may be too long for a message.
        table = pickle.dumps(self.table)
        check = checksum(table)
        nbytes = self.nbytes + len(table)
        channels = list(channels)
        inline: Any = None
        if nbytes <= INLINE_BYTES:
            inline = self.to_bytes() + table
        elif all(channel.carries_all for channel in channels):
            inline = pickle.PickleBuffer(self.to_bytes() + table)
        fds: list[int] = []
        try:
            if inline is None:
                with DeferredInterrupt():
                    fds.append(_shared_file(nbytes))
                self.write(fds[0])
                write_at(fds[0], table, self.nbytes)
            for channel in channels:
                with contextlib.suppress(ConnectionError):  # the worker is dead; its pidfd reports that
                    channel.send_attachments([self.attachments])
                    channel.send(kind, call, self.nbytes, nbytes, check, inline, fds=fds)
        finally:
            with DeferredInterrupt():
                for fd in fds:
                    close(fd)


def _shared_file(nbytes: int) -> int:
    """Create shared memory for a large function."""
    limit = min(file_limit(), memory_limit())
    if nbytes > limit:
        raise ParwiseError(
            f"the function and its arguments take {nbytes} bytes, but shared memory may have {limit} "
            "(ulimit -f and the memory limit); map over the large arrays instead, or open them inside "
            "the function from a file"
        )
    return create_fd(nbytes)


# The first object that was pickled last, and its pickle.
_packed: tuple[Any, bytes] = None, pickle.dumps(None)


def _pack_first(first: Any) -> bytes:
    """Pickle the first object of a payload, which nobody changes."""
    global _packed
    latest = _packed
    if latest[0] != first:  # 1.5 us; to pickle the state of a process takes 9
        _packed = latest = first, pickle.dumps(first)
    return latest[1]


def payload_of(first: Any, stream: io.BytesIO, arrays: list[pickle.PickleBuffer], attachments: Attachments) -> Payload:
    """The payload of an object and of a pickle with its arrays."""
    # getvalue shares the memory; a view of getbuffer must be released before the
    # stream, an order that the garbage collector does not keep.
    pickles = [memoryview(_pack_first(first)), memoryview(stream.getvalue())]
    bodies = [array.raw() for array in arrays]
    views = [np.frombuffer(buffer, np.uint8) for buffer in [*pickles, *bodies]]
    layouts = [Layout("ndarray", _BYTES, True, view.shape, (1,)) for view in views]
    offsets, nbytes = offsets_for(layouts, [0, 0, *map(address_of, views[2:])])
    return Payload(pickles + bodies, offsets, nbytes, attachments)


@contextlib.contextmanager
def sendable(what: str, inside: str = "inside the function, or use executor='threads'") -> Iterator[None]:
    """Raise a TypeError with the remedy if `what` cannot be pickled, whatever a library raises for it.

    `inside` is where to make an object that cannot be, or what else to do.
    """
    try:
        yield
    except (MemoryError, ParwiseError):
        raise
    except Exception as error:
        has_remedy = isinstance(error, UnnamedLockError)
        remedy = "" if has_remedy else f"; make that object {inside}"
        raise TypeError(f"{what} cannot be sent to a worker process: {error}{remedy}") from error


def load(memory: Any, table: BufferTable, apply_first: Callable[[Any], None]) -> Any:
    """Unpickle the second object of a payload, its arrays in `memory`, after `apply_first` got the first one."""
    view = memoryview(memory)
    buffers = [view[at : at + n].toreadonly() if readonly else view[at : at + n] for at, n, readonly, _ in table]
    parts = [verified(buffer, entry[-1]) for buffer, entry in zip(buffers, table, strict=True)]
    apply_first(_load_first(parts[0]))
    second = pickle.loads(parts[1], buffers=parts[2:])
    restore()
    return second


# The first pickle that came last, and what it holds: of most calls the state of the process, which is the same.
_latest: tuple[bytes, Any] = b"", None


def _load_first(packed: Any) -> Any:
    """Unpickle the first object of a payload, which nobody changes."""
    global _latest
    latest = _latest
    if latest[0] != packed:
        _latest = latest = bytes(packed), pickle.loads(packed)
    return latest[1]


def load_part(memory: Any, table: BufferTable) -> None:
    """Unpickle a part of definitions; one that only may be needed fails without a word."""
    optional: list[bool] = []
    try:
        load(memory, table, optional.append)
    except ForeignBytesError:
        raise
    except Exception:
        if not optional[0]:
            raise


def private_copy(data: Any) -> memoryview:
    """Copy `data` to page-aligned writable memory."""
    memory, start = private_memory(len(data))
    view = memory.data[start : start + len(data)]
    view[:] = data
    return view
