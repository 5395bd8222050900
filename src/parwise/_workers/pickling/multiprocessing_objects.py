"""Objects that more than bytes must be sent for: connections, sockets, locks and queues of multiprocessing."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import pickle
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np

from ..._clock import monotonic, sleep
from ..._system.interpreter import close
from ...errors import ParwiseError
from ..descriptors import duplicate

#: Names a descriptor in a pickle: process id of its sender, and a number.
Token: TypeAlias = tuple[int, int]

_numbers = itertools.count(1)
# Descriptors that came with messages, until an object takes them.
_arrived: dict[Token, int] = {}
# Sockets of a worker; None in other processes.
_copies: list[socket.socket] | None = None


class Attachments:
    """What one pickle needs beside its bytes; multiprocessing takes it for a process that is being started.

    Attributes
    ----------
    fds : dict
        Duplicates of descriptors, by their tokens in the pickle; closed when nothing refers to the dict.
    kept : list
        Objects that a name in the pickle ends with, as that of a semaphore.
    """

    def __init__(self) -> None:
        self.fds: dict[Token, int] = {}
        self.kept: list[Any] = []

    def __bool__(self) -> bool:
        return bool(self.fds or self.kept)

    def _duplicate(self, token: Token, fd: int) -> None:
        if not self.fds:
            # Not from the start: a Ctrl-C within its `__del__` would be lost, and each pickle has attachments.
            self.fds = _Duplicates()
        self.fds[token] = duplicate(fd)

    def duplicate_for_child(self, fd: int) -> Token:
        """Duplicate a descriptor; called by multiprocessing's reducers."""
        token = (os.getpid(), next(_numbers))
        self._duplicate(token, fd)
        return token

    def DupFd(self, token: Token) -> SentDescriptor:  # noqa: N802 - multiprocessing's name
        """The descriptor's picklable stand-in; called by multiprocessing's reducers."""
        return SentDescriptor(token)

    def include(self, other: Attachments) -> None:
        """Add the attachments of a pickle within this one, which may be sent again."""
        for token, fd in other.fds.items():
            self._duplicate(token, fd)
        self.kept.append(other)


class _Duplicates(dict[Token, int]):
    """Descriptors that are closed with it."""

    def __del__(self) -> None:
        for fd in self.values():
            with contextlib.suppress(OSError):
                close(fd)


class SentDescriptor:
    """Stands for a descriptor in a pickle."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def detach(self) -> int:
        """The descriptor in the process that unpickles it."""
        fd = _arrived.pop(self._token, None)
        if fd is None:
            raise ParwiseError(
                "a descriptor of a connection or socket did not arrive (too many open files?); raise ulimit -n"
            )
        return fd


def arrive(tokens: Iterable[Token], fds: Iterable[int]) -> None:
    """Keep descriptors that have come, until objects take them."""
    # With too many open files fewer descriptors come than were sent.
    _arrived.update(zip(tokens, fds, strict=False))


def close_arrived(tokens: Iterable[Token]) -> None:
    """Close descriptors that no object has taken."""
    for token in tokens:
        fd = _arrived.pop(token, None)
        if fd is not None:
            close(fd)


class Packed(bytes):
    """A pickle with attachments."""

    attachments: Attachments

    @classmethod
    def with_attachments(cls, data: bytes, attachments: Attachments) -> bytes:
        """`data` itself if nothing is attached."""
        if not attachments:
            return data
        packed = cls(data)
        packed.attachments = attachments
        return packed


def attached(buffers: Iterable[Any]) -> list[Attachments]:
    """Attachments of those buffers that have some."""
    return [one.attachments for one in buffers if type(one) is Packed]


@contextlib.contextmanager
def spawning(attachments: Attachments) -> Iterator[None]:
    """Let multiprocessing's objects be pickled, as it does itself while it starts a process."""
    context: Any = sys.modules.get("multiprocessing.context")
    if context is None:  # then no such object exists
        yield
        return
    before = context.get_spawning_popen()
    context.set_spawning_popen(attachments)
    try:
        yield
    finally:
        context.set_spawning_popen(before)


#: Types that `ForkingPickler` knows although they pickle well without it.
_PLAIN = {functools.partial, types.MethodType, types.MethodDescriptorType, types.WrapperDescriptorType}


def needs_attachments(kind: type) -> bool:
    """True if `reduce` must be asked about objects of a type."""
    reduction: Any = sys.modules.get("multiprocessing.reduction")
    connection: Any = sys.modules.get("multiprocessing.connection")
    return (
        kind in _REDUCERS
        or kind.__module__.startswith("multiprocessing.")
        or (reduction is not None and kind in reduction.ForkingPickler._extra_reducers and kind not in _PLAIN)
        or (connection is not None and issubclass(kind, connection._ConnectionBase))
    )


def is_handle(kind: type) -> bool:
    """True if objects of a type, for which `needs_attachments` is true, stand for something that has no copy."""
    reduction: Any = sys.modules.get("multiprocessing.reduction")
    reducer = None if reduction is None else reduction.ForkingPickler._extra_reducers.get(kind)
    return kind is not memoryview and (reducer is None or kind in _REDUCERS or _is_for_all(kind, reducer))


def reduce(obj: Any, attachments: Attachments) -> Any:
    """How to rebuild an object in another process, as from ``__reduce__``; None for the usual way."""
    kind = type(obj)
    own = _REDUCERS.get(kind)
    if own is not None:
        return own(obj, attachments)
    reduction: Any = sys.modules.get("multiprocessing.reduction")
    if reduction is None:
        return None
    reducer = reduction.ForkingPickler._extra_reducers.get(kind)
    if reducer is not None and kind not in _PLAIN and _is_for_all(kind, reducer):
        attachments.kept.append(obj)
        return reducer(obj)
    connection: Any = sys.modules.get("multiprocessing.connection")
    if connection is not None and isinstance(obj, connection._ConnectionBase):
        return _reduce_connection(obj, attachments)
    if kind.__module__.startswith("multiprocessing."):
        _check_name(obj)
        attachments.kept.append(obj)
    return None


def _check_name(obj: Any) -> None:
    """Raise a TypeError for a lock without a name by which another process could open it."""
    semaphore = getattr(obj, "_semlock", None)
    if semaphore is not None and semaphore.name is None:
        raise UnnamedLockError(
            "locks, queues and values of multiprocessing's 'fork' context, its default on Linux up to "
            "Python 3.13, reach forked processes only; make them with "
            "multiprocessing.get_context('spawn'), as in get_context('spawn').Lock(), or use those of a "
            "multiprocessing.Manager()"
        )


class UnnamedLockError(TypeError):
    """A lock has no name; the message has the remedy."""


def _is_for_all(kind: Any, reducer: Callable[[Any], Any]) -> bool:
    """True if a reducer serves here too: PyTorch registers some that would share a tensor's memory with the caller."""
    plain = (kind.__reduce__, kind.__reduce_ex__) == (object.__reduce__, object.__reduce_ex__)
    return plain or getattr(reducer, "__module__", "").startswith("multiprocessing.")


def _reduce_connection(obj: Any, attachments: Attachments) -> Any:
    """A connection of a derived class, whose default pickle would hold the bare number of its descriptor."""
    descriptor = attachments.DupFd(attachments.duplicate_for_child(obj.fileno()))
    return _rebuild_connection, (type(obj), vars(obj), descriptor)


def _rebuild_connection(kind: Any, state: dict[str, Any], descriptor: SentDescriptor) -> Any:
    connection = kind.__new__(kind)
    vars(connection).update(state, _handle=descriptor.detach())
    return connection


def _reduce_socket(obj: socket.socket, attachments: Attachments) -> Any:
    descriptor = attachments.DupFd(attachments.duplicate_for_child(obj.fileno()))
    _note(obj)
    return _rebuild_socket, (descriptor, obj.family, obj.type, obj.proto, obj.gettimeout())


def _rebuild_socket(descriptor: SentDescriptor, family: int, kind: int, proto: int, timeout: float | None) -> Any:
    fd = descriptor.detach()
    sock = socket.socket(family, kind, proto, fileno=fd)
    sock.settimeout(timeout)
    _note(sock)
    return sock


def _note(sock: socket.socket) -> None:
    if _copies is not None:
        _copies.append(sock)


def close_copies() -> None:
    """Close sockets that came to this worker or left it, and that nothing refers to any more.

    Their end would be a ResourceWarning, for copies that the function's author has not made.
    """
    global _copies
    copies, _copies = _copies or [], []
    if not copies:  # as nearly always: each message asks
        return
    # Counted and not known: on Python 3.14 variables and arguments are no references of their own.
    (unused,) = _references([object()])
    for sock, count in zip(copies, _references(copies), strict=True):
        if count <= unused:
            sock.close()
    _copies += [sock for sock in copies if sock.fileno() >= 0]


def _references(objects: list[Any]) -> list[int]:
    return [sys.getrefcount(one) for one in objects]


def _reduce_view(obj: memoryview, attachments: Attachments) -> Any:
    """A view of the same kind; cloudpickle would send bytes in its place."""
    try:
        memoryview(bytes(obj.itemsize)).cast(obj.format)  # type: ignore[call-overload]
    except (TypeError, ValueError):  # a format that only NumPy knows
        return memoryview, (np.asarray(obj),)
    return _cast_view, (bytearray(obj.tobytes()), obj.readonly, obj.format, obj.shape)


def _cast_view(data: bytearray, readonly: bool, code: Any, shape: tuple[int, ...]) -> memoryview:
    view: memoryview = memoryview(data).cast(code, shape) if data else memoryview(data)
    return view.toreadonly() if readonly else view


_beside: ContextVar[bool] = ContextVar("parwise_beside", default=False)


@contextlib.contextmanager
def beside_the_function() -> Iterator[None]:
    """Refuse what can only be pickled while no other thread uses it: the function is being called in one."""
    before = _beside.set(True)
    try:
        yield
    finally:
        _beside.reset(before)


def _reduce_file(obj: io.TextIOWrapper, attachments: Attachments) -> Any:
    """A text file to be read travels as its text; what a worker wrote to such a copy would be lost."""
    if _beside.get():  # its text is read from its start on, and a function that reads a line meanwhile got none
        raise pickle.PicklingError(f"cannot pickle the file {getattr(obj, 'name', '')!r} while it is read")
    if not obj.closed and obj.writable() and obj not in (sys.stdout, sys.stderr):
        raise pickle.PicklingError(f"cannot pickle the file {getattr(obj, 'name', '')!r}, which is open for writing")
    return None


# Waiting for a queue ends after so many seconds in which nothing left it: its pipe is full until somebody reads.
STUCK_SECONDS = 0.05
_LOOK_SECONDS = 0.0002
_stuck = False


def flush_queues() -> None:
    """Wait until queues of multiprocessing have sent what the function has put in.

    A thread of the queue sends it, and ends with the worker.
    """
    global _stuck
    if "multiprocessing.queues" not in sys.modules:
        return
    unsent = _unsent_objects()
    while unsent and not _stuck:
        deadline = monotonic() + STUCK_SECONDS
        before = unsent
        while unsent == before and monotonic() < deadline:
            sleep(_LOOK_SECONDS)
            unsent = _unsent_objects()
        _stuck = unsent >= before
    _stuck = _stuck and unsent > 0


def _unsent_objects() -> int:
    """Number of objects that threads of queues have to send, that at work included."""
    unsent = 0
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            buffer, condition, *_ = getattr(thread, "_args", ((), None))
            unsent += len(buffer) + (condition is not None and not condition._waiters)
    return unsent


def _reduce_packed(obj: Packed, attachments: Attachments) -> Any:
    attachments.include(obj.attachments)
    return bytes, (bytes(obj),)


_REDUCERS: dict[type, Callable[[Any, Attachments], Any]] = {
    socket.socket: _reduce_socket,
    memoryview: _reduce_view,
    io.TextIOWrapper: _reduce_file,
    Packed: _reduce_packed,
}
