"""The caller's side of the worker processes: started once, kept for later calls."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import mmap
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from .._system.interpreter import Uninterrupted
from .._system.limits import LOOK_SECONDS, cpu_count, file_limit, memory_limit, own_bytes
from ..errors import ParwiseError
from .fork_server import start
from .handle import Link
from .protocol import Channel
from .shared_memory import SLOT_BYTES, segment_bytes

# All slots together take at most this part of the memory.
MEMORY_SHARE = 16
# A worker with more memory of its own than this is renewed between two calls.
IDLE_BYTES = 2**29
# A zygote that has not answered by then is taken for dead.
ANSWER_SECONDS = 1.0


class WorkerPool:
    """Worker processes forked from one zygote.

    One thread uses it at a time: whoever holds `lock`.

    Parameters
    ----------
    slot_bytes : int, optional
        Size of each worker's slots; as memory allows if left out.
    variables : dict, optional
        Environment variables that the workers' interpreter starts with, beside
        this process's own.
    greet : callable, optional
        Gets the link of each new worker, to send it what comes before all else.
    """

    def __init__(
        self,
        slot_bytes: int | None = None,
        variables: dict[str, str] | None = None,
        greet: Callable[[Link], None] | None = None,
    ) -> None:
        self._given_slot_bytes = slot_bytes
        self._variables = variables or {}
        self._greet = greet
        self.lock = threading.Lock()
        self.calls = itertools.count(1)
        self.links: list[Link] = []
        # Set while a call uses the workers. Found set by the next call, it says
        # that the last one was interrupted somewhere, and nothing is known of
        # the workers' state.
        self.dirty = False
        # Seconds of work that calls did alone as no worker was up.
        self.missed = 0.0
        self._owner = os.getpid()
        self._keys = itertools.count(1)
        self._zygote: Channel | None = None
        self._zygote_pid = 0
        self._poll: select.epoll | None = None
        self._wake = -1
        self._waking = threading.Lock()
        self._looked = 0.0

    @functools.cached_property
    def slot_bytes(self) -> int:
        """Size of each worker's slots; a small call never asks for it."""
        return self._given_slot_bytes or fitting_slot_bytes()

    @property
    def running(self) -> bool:
        """Whether workers are there and have answered."""
        for link in list(self.links):
            if not link.ready and not link.holds:
                self.look_after(link)
        return any(link.ready for link in self.links)

    def look_after(self, link: Link) -> None:
        """Take in what a worker outside the call at hand says, or that it has ended."""
        try:
            if link.over:
                self.drop(link)
            else:
                link.ready |= link.channel.receive()[0] == ("hello",)
        except BlockingIOError:
            pass
        except (EOFError, OSError):
            self.drop(link)

    @property
    def seems_warm(self) -> bool:
        """Whether workers are up as far as any thread can tell, whoever holds the lock."""
        return any(link.ready for link in tuple(self.links))

    @property
    def foreign(self) -> bool:
        """Whether this process got the pool by a fork and so must not use it."""
        return self._owner != os.getpid()

    def start(self, workers: int) -> list[Link]:
        """Have `workers` workers, and return at once: they answer when they are up.

        Messages sent to a link before that wait in its socket.
        """
        if self.dirty or self._zygote_ended():
            self.stop()
        self.dirty = True
        self._settle()
        if self._zygote is None:
            self._spawn()
        while len(self.links) < workers:
            self.add_link()
        return self.links[:workers]

    def _zygote_ended(self) -> bool:
        if not self._zygote_pid:
            return False
        try:
            ended = os.waitpid(self._zygote_pid, os.WNOHANG) != (0, 0)
        except ChildProcessError:  # waited for by somebody else
            ended = True
        if ended:
            self._zygote_pid = 0
        return ended

    def _settle(self) -> None:
        """Take in late answers of earlier calls, and drop workers still at them, or grown too large."""
        look = time.monotonic() - self._looked > LOOK_SECONDS
        if look:
            self._looked = time.monotonic()
        for link in list(self.links):
            if link.over:
                self.drop(link)
                continue
            if look and own_bytes(link.pid) > IDLE_BYTES:
                link.kill()
                self.drop(link)
                continue
            if not link.holds and link.outbox is None:
                continue
            try:
                while link.holds:
                    message, _ = link.channel.receive()
                    if message[0] == "done":
                        link.holds.pop(message[1], None)
                    elif message[0] == "hello":
                        link.ready = True
                    else:
                        break
            except (BlockingIOError, EOFError, OSError):
                pass
            if link.holds or link.outbox is not None:
                link.kill()
                self.drop(link)
            else:
                link.reset()

    def _spawn(self) -> None:
        """Start the zygote: a new interpreter, no fork of this process."""
        with Uninterrupted():
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._zygote = Channel(mine)
                mine.setblocking(False)
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._poll = select.epoll()
                self._poll.register(self._wake, select.EPOLLIN)
                self._poll.register(mine, select.EPOLLIN)
                atexit.register(self.stop)
                try:
                    self._zygote_pid = start(theirs, self._variables)
                except BaseException:
                    self.stop()
                    raise

    def add_link(self) -> Link:
        """Have one more worker, behind all others."""
        assert self._zygote is not None
        with Uninterrupted():
            link = Link(next(self._keys), self.slot_bytes)
            self.links.append(link)
            try:
                link.hand_over(self._zygote, self.slot_bytes)
            except OSError as error:
                self.drop(link)
                raise ParwiseError("the process that starts workers is gone; the next call starts a new one") from error
            if self._greet is not None:
                self._greet(link)
            link.channel.sock.setblocking(False)
            assert self._poll is not None
            self._poll.register(link.channel, select.EPOLLIN)
        return link

    def wake(self) -> None:
        """Make another thread's `wait` return."""
        with self._waking:  # not a descriptor that `stop` has closed, and that is somebody else's now
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def wait(self, timeout: float | None) -> list[tuple[str, Link]]:
        """Events of the workers: ("message", link) and ("death", link).

        The zygote's own messages are dealt with here.
        """
        events: list[tuple[str, Link]] = []
        by_fd = {link.channel.fileno(): ("message", link) for link in self.links}
        by_fd |= {link.pidfd: ("death", link) for link in self.links if link.pidfd >= 0}
        assert self._poll is not None
        for fd, _ in self._poll.poll(timeout):
            if self._zygote is not None and fd == self._zygote.fileno():
                self._read_zygote()
            elif fd in by_fd:
                events.append(by_fd[fd])
            else:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
        # A worker's last words before its death.
        events.sort(key=lambda event: event[0] == "death")
        return events

    def _read_zygote(self) -> None:
        assert self._zygote is not None
        try:
            with Uninterrupted():
                while True:
                    self._take(*self._zygote.receive())
        except BlockingIOError:
            pass
        except (EOFError, OSError) as error:
            raise ParwiseError(
                "the process that starts workers ended; is NumPy importable in a new interpreter? "
                "The next call starts a new one"
            ) from error

    def _take(self, message: tuple[Any, ...], fds: list[int]) -> None:
        """A worker was born: its pid, and a descriptor that tells of its end."""
        assert self._poll is not None
        kind, key, pid = message
        if kind == "failed":
            raise ParwiseError(
                f"a worker process could not be started ({pid}); pass fewer workers, or raise the limits on "
                "processes and memory"
            )
        for link in self.links:
            if kind == "born" and link.key == key:
                link.pid, link.pidfd = pid, fds.pop()
                self._poll.register(link.pidfd, select.EPOLLIN)
        for fd in fds:
            os.close(fd)

    def exit_code(self, link: Link) -> int | None:
        """How a dead worker ended: its exit code, or minus the signal."""
        assert self._zygote is not None
        try:
            self._zygote.sock.settimeout(ANSWER_SECONDS)
            with Uninterrupted():
                self._zygote.send("reap", link.pid)
                while True:
                    message, fds = self._zygote.receive()
                    if message[:2] == ("dead", link.pid):
                        code: int | None = message[2]
                        return code
                    self._take(message, fds)
        except (OSError, EOFError):
            return None
        finally:
            self._zygote.sock.setblocking(False)

    def drop(self, link: Link) -> None:
        """Take a worker out of the pool."""
        with Uninterrupted():
            self.links.remove(link)
            for fd in (link.channel.fileno(), link.pidfd):
                if fd >= 0 and self._poll is not None:
                    with contextlib.suppress(OSError):
                        self._poll.unregister(fd)
            link.close()

    def abandon(self) -> None:
        """End all workers, whatever they are at; the zygote can fork others."""
        if self._zygote is not None and self._poll is not None:
            with contextlib.suppress(ParwiseError):
                self._read_zygote()  # of the newest workers it may not have told yet
        for link in list(self.links):
            link.kill()
            self.drop(link)

    def stop(self) -> None:
        """End all workers and the zygote, and wait for the end."""
        if self.foreign:
            return
        with Uninterrupted():
            self.abandon()
            zygote, self._zygote = self._zygote, None
            poll, self._poll = self._poll, None
            wake, self._wake = self._wake, -1
            pid, self._zygote_pid = self._zygote_pid, 0
            if zygote is not None:
                zygote.close()
            if poll is not None:
                poll.close()
            if wake >= 0:
                with self._waking:
                    os.close(wake)
            if pid:
                # Closing the socket is not enough while a process that the user
                # forked holds a copy. Workers go with the zygote.
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        atexit.unregister(self.stop)
        self.dirty = False


def fitting_slot_bytes() -> int:
    """Slots as large as is good for speed, if all of them take a small part of the memory.

    Raises
    ------
    ParwiseError
        If this process may not have files, which shared memory counts among, of
        a few pages.
    """
    most = min(memory_limit() // (MEMORY_SHARE * cpu_count()), file_limit())
    room = (most - segment_bytes(0)) // (segment_bytes(1) - segment_bytes(0))
    if room < mmap.PAGESIZE:
        raise ParwiseError(
            f"no room for shared memory: {most} bytes per worker by the limits on memory and on the size of files "
            "(ulimit -f); use executor='threads'"
        )
    return min(SLOT_BYTES, room - room % mmap.PAGESIZE)
