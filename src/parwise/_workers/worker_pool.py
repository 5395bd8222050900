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
from typing import Any

from .._system.interpreter import DeferredInterrupt
from .._system.limits import LOOK_SECONDS, cpu_count, file_limit, memory_limit, own_bytes
from ..errors import ParwiseError
from .fork_server import start
from .handle import WorkerHandle
from .protocol import Channel
from .serialization import Payload
from .shared_memory import SLOT_BYTES, segment_bytes

# All slots together take at most this part of the memory.
MEMORY_SHARE = 16
# A worker with more memory of its own than this is renewed between two calls.
IDLE_BYTES = 2**29
# A fork server that has not answered by then is taken for dead.
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
    initializer : Payload, optional
        Of `pack_initializer`; each new worker runs it before any task.
    """

    def __init__(
        self,
        slot_bytes: int | None = None,
        variables: dict[str, str] | None = None,
        initializer: Payload | None = None,
    ) -> None:
        self._given_slot_bytes = slot_bytes
        self._variables = variables or {}
        self._initializer = initializer
        self.lock = threading.Lock()
        self.calls = itertools.count(1)
        self.workers: list[WorkerHandle] = []
        # Set while a call uses the workers. Found set by the next call, it says
        # that the last one was interrupted somewhere, and nothing is known of
        # the workers' state.
        self.dirty = False
        # Seconds of work that calls did alone as no worker was up.
        self.serial_seconds = 0.0
        self._owner = os.getpid()
        self._keys = itertools.count(1)
        self._fork_server: Channel | None = None
        self._fork_server_pid = 0
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
        for worker in list(self.workers):
            if not worker.ready and not worker.assignments:
                self.poll_idle(worker)
        return any(worker.ready for worker in self.workers)

    def poll_idle(self, worker: WorkerHandle) -> None:
        """Take in what a worker outside the call at hand says, or that it has ended."""
        try:
            if worker.over:
                self.drop(worker)
            else:
                worker.ready |= worker.channel.receive()[0] == ("ready",)
        except BlockingIOError:
            pass
        except (EOFError, OSError):
            self.drop(worker)

    @property
    def seems_warm(self) -> bool:
        """Whether workers are up as far as any thread can tell, whoever holds the lock."""
        return any(worker.ready for worker in tuple(self.workers))

    @property
    def owned_by_parent(self) -> bool:
        """Whether this process got the pool by a fork and so must not use it."""
        return self._owner != os.getpid()

    def start(self, workers: int) -> list[WorkerHandle]:
        """Have `workers` workers, and return at once: they answer when they are up.

        Messages sent to a link before that wait in its socket.
        """
        if self.dirty or self._fork_server_ended():
            self.stop()
        self.dirty = True
        self._receive_late_answers()
        if self._fork_server is None:
            self._spawn()
        while len(self.workers) < workers:
            self.add_link()
        return self.workers[:workers]

    def _fork_server_ended(self) -> bool:
        if not self._fork_server_pid:
            return False
        try:
            ended = os.waitpid(self._fork_server_pid, os.WNOHANG) != (0, 0)
        except ChildProcessError:  # waited for by somebody else
            ended = True
        if ended:
            self._fork_server_pid = 0
        return ended

    def _receive_late_answers(self) -> None:
        """Take in late answers of earlier calls, and drop workers still at them, or grown too large."""
        look = time.monotonic() - self._looked > LOOK_SECONDS
        if look:
            self._looked = time.monotonic()
        for worker in list(self.workers):
            if worker.over:
                self.drop(worker)
                continue
            if look and own_bytes(worker.pid) > IDLE_BYTES:
                worker.kill()
                self.drop(worker)
                continue
            if not worker.assignments and worker.sender is None:
                continue
            try:
                while worker.assignments:
                    message, _ = worker.channel.receive()
                    if message[0] == "done":
                        worker.assignments.pop(message[1], None)
                    elif message[0] == "ready":
                        worker.ready = True
                    else:
                        break
            except (BlockingIOError, EOFError, OSError):
                pass
            if worker.assignments or worker.sender is not None:
                worker.kill()
                self.drop(worker)
            else:
                worker.reset()

    def _spawn(self) -> None:
        """Start the fork server: a new interpreter, no fork of this process."""
        with DeferredInterrupt():
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._fork_server = Channel(mine)
                mine.setblocking(False)
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._poll = select.epoll()
                self._poll.register(self._wake, select.EPOLLIN)
                self._poll.register(mine, select.EPOLLIN)
                atexit.register(self.stop)
                try:
                    self._fork_server_pid = start(theirs, self._variables)
                except BaseException:
                    self.stop()
                    raise

    def add_link(self) -> WorkerHandle:
        """Have one more worker, behind all others."""
        assert self._fork_server is not None
        with DeferredInterrupt():
            worker = WorkerHandle(next(self._keys), self.slot_bytes)
            self.workers.append(worker)
            try:
                worker.hand_over(self._fork_server, self.slot_bytes)
            except OSError as error:
                self.drop(worker)
                raise ParwiseError("the process that starts workers is gone; the next call starts a new one") from error
            if self._initializer is not None:
                self._initializer.send([worker.channel], "initialize", 0)
            worker.channel.sock.setblocking(False)
            assert self._poll is not None
            self._poll.register(worker.channel, select.EPOLLIN)
        return worker

    def wake(self) -> None:
        """Make another thread's `wait` return."""
        with self._waking:  # not a descriptor that `stop` has closed, and that is somebody else's now
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def wait(self, timeout: float | None) -> list[tuple[str, WorkerHandle]]:
        """Events of the workers: ("message", link) and ("death", link).

        The fork server's own messages are dealt with here.
        """
        events: list[tuple[str, WorkerHandle]] = []
        by_fd = {worker.channel.fileno(): ("message", worker) for worker in self.workers}
        by_fd |= {worker.pidfd: ("death", worker) for worker in self.workers if worker.pidfd >= 0}
        assert self._poll is not None
        for fd, _ in self._poll.poll(timeout):
            if self._fork_server is not None and fd == self._fork_server.fileno():
                self._read_fork_server()
            elif fd in by_fd:
                events.append(by_fd[fd])
            else:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
        # A worker's last words before its death.
        events.sort(key=lambda event: event[0] == "death")
        return events

    def _read_fork_server(self) -> None:
        assert self._fork_server is not None
        try:
            with DeferredInterrupt():
                while True:
                    self._receive(*self._fork_server.receive())
        except BlockingIOError:
            pass
        except (EOFError, OSError) as error:
            raise ParwiseError(
                "the process that starts workers ended; is NumPy importable in a new interpreter? "
                "The next call starts a new one"
            ) from error

    def _receive(self, message: tuple[Any, ...], fds: list[int]) -> None:
        """A worker was born: its pid, and a descriptor that tells of its end."""
        assert self._poll is not None
        kind, key, pid = message
        if kind == "fork_failed":
            raise ParwiseError(
                f"a worker process could not be started ({pid}); pass fewer workers, or raise the limits on "
                "processes and memory"
            )
        for worker in self.workers:
            if kind == "forked" and worker.key == key:
                worker.pid, worker.pidfd = pid, fds.pop()
                self._poll.register(worker.pidfd, select.EPOLLIN)
        for fd in fds:
            os.close(fd)

    def exit_code(self, worker: WorkerHandle) -> int | None:
        """How a dead worker ended: its exit code, or minus the signal."""
        assert self._fork_server is not None
        try:
            self._fork_server.sock.settimeout(ANSWER_SECONDS)
            with DeferredInterrupt():
                self._fork_server.send("exit_code", worker.pid)
                while True:
                    message, fds = self._fork_server.receive()
                    if message[:2] == ("exited", worker.pid):
                        code: int | None = message[2]
                        return code
                    self._receive(message, fds)
        except (OSError, EOFError):
            return None
        finally:
            self._fork_server.sock.setblocking(False)

    def drop(self, worker: WorkerHandle) -> None:
        """Take a worker out of the pool."""
        with DeferredInterrupt():
            self.workers.remove(worker)
            for fd in (worker.channel.fileno(), worker.pidfd):
                if fd >= 0 and self._poll is not None:
                    with contextlib.suppress(OSError):
                        self._poll.unregister(fd)
            worker.close()

    def abandon(self) -> None:
        """End all workers, whatever they are at; the fork server can fork others."""
        if self._fork_server is not None and self._poll is not None:
            with contextlib.suppress(ParwiseError):
                self._read_fork_server()  # of the newest workers it may not have told yet
        for worker in list(self.workers):
            worker.kill()
            self.drop(worker)

    def stop(self) -> None:
        """End all workers and the fork server, and wait for the end."""
        if self.owned_by_parent:
            return
        with DeferredInterrupt():
            self.abandon()
            fork_server, self._fork_server = self._fork_server, None
            poll, self._poll = self._poll, None
            wake, self._wake = self._wake, -1
            pid, self._fork_server_pid = self._fork_server_pid, 0
            if fork_server is not None:
                fork_server.close()
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
