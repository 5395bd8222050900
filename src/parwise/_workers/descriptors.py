"""Descriptors of parwise's own: never 0, 1 or 2, to which C libraries print, whatever these numbers stand for.

A program that has closed its standard streams (a daemon, one started by cron) gives their numbers to the next files
that it opens. All that parwise opens for longer than a moment is opened here, and moved up; the low numbers stay free,
since the program may want them itself.
"""

from __future__ import annotations

import _socket
import array
import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

from .._system.interpreter import close, select
from .._system.platforms.here import OPEN_PRIVATE, duplicate_above

#: The first number behind standard input, output and error.
FIRST = 3

# A message brings so many descriptors at most; Linux allows 253.
FDS = 100


def above_standard(fd: int) -> int:
    """Move a descriptor to a number that nobody prints to, if it has a low one."""
    if fd >= FIRST:
        return fd
    try:
        return duplicate(fd)
    finally:
        close(fd)


def duplicate(fd: int) -> int:
    """Another descriptor of the same file; `os.dup` takes the lowest free number."""
    return duplicate_above(fd, FIRST)


@contextlib.contextmanager
def low_numbers_taken() -> Iterator[None]:
    """Keep numbers below 3 from what is opened meanwhile by others, as by `multiprocessing`."""
    taken: list[int] = []
    try:
        _take_low_numbers(taken)
        yield
    finally:
        for fd in taken:
            close(fd)


def _take_low_numbers(taken: list[int]) -> None:
    while (fd := os.open(os.devnull, os.O_RDWR | OPEN_PRIVATE)) < FIRST:
        taken.append(fd)
    close(fd)


def open_memory() -> int:
    """A new memfd without content, which can be sealed."""
    return above_standard(os.memfd_create("parwise", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))


def open_process(pid: int) -> int:
    """A pidfd."""
    return above_standard(os.pidfd_open(pid))


def open_event() -> int:
    """An eventfd that does not block."""
    return above_standard(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))


def open_poll() -> Any:
    """An epoll object."""
    poll = select.epoll()
    if poll.fileno() >= FIRST:
        return poll
    with poll:
        return select.epoll.fromfd(duplicate(poll.fileno()))


def open_sockets() -> tuple[int, int]:
    """Two connected sockets that keep messages apart."""
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return above_standard(one.detach()), above_standard(other.detach())


def open_streams() -> tuple[int, int]:
    """Two connected sockets that do not."""
    one, other = _socket.socketpair()
    return above_standard(one.detach()), above_standard(other.detach())


#: Where the system lacks it, as macOS does, `fds_in` does so a moment later.
CLOSE_ON_EXEC: int = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)


def receive(sock: _socket.socket, nbytes: int) -> tuple[bytes, list[int], bool]:
    """A message of at most `nbytes` bytes, the descriptors that came with it, and True if it was longer."""
    # Not socket.recv_fds, which drops its flags: descriptors came without
    # close-on-exec, and programs that the function started inherited them.
    data, extra, flags, _ = sock.recvmsg(nbytes, fds_space(), CLOSE_ON_EXEC)
    return data, fds_in([extra]), bool(flags & _socket.MSG_TRUNC)


def fds_in(extras: Iterable[Any]) -> list[int]:
    """Descriptors in what came beside messages; programs do not inherit them."""
    fds = array.array("i")
    for extra in extras:
        for _, _, content in extra:
            fds.frombytes(content)
    found = [above_standard(fd) for fd in fds]
    for fd in found:
        if not CLOSE_ON_EXEC:
            os.set_inheritable(fd, False)
    return found


@functools.cache
def fds_space() -> int:
    """Room that descriptors of a message need."""
    return _socket.CMSG_SPACE(FDS * array.array("i").itemsize)


def standard_files() -> list[tuple[Any, ...]]:
    """What `os.posix_spawn` opens for a process of ours: /dev/null as input, and where it would inherit no output."""
    missing = [fd for fd in (1, 2) if not is_inherited(fd)]
    return [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in missing),
    ]


def is_inherited(fd: int) -> bool:
    """True if a new process gets a descriptor: it is open, and no file that Python opened in a closed one's place."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False
