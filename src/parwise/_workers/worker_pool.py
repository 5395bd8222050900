"""The caller's side of all workers: starts them, waits for their messages, ends them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import signal
import threading
import time
from typing import Any

from .._system.interpreter import DeferredInterrupt, select
from .._system.limits import LOOK_SECONDS, own_bytes
from .._system.module_watch import watch
from .._system.multiprocessing_state import tracker_fd
from ..errors import ParwiseError
from .descriptors import open_event, open_poll, open_process
from .fork_server import end_orphans, start
from .handle import WorkerHandle
from .pickling.payload import Payload
from .protocol import COOKIE_BYTES, Channel, ForeignBytesError, socket_pair
from .shared_memory import fitting_slot_bytes

# A worker with more memory of its own than this is replaced between two calls.
IDLE_BYTES = 2**29
# A fork server that takes longer than this to answer counts as dead.
ANSWER_SECONDS = 1.0


class WorkerPool:
    """Worker processes forked from one fork server, and kept for later calls.

    One thread uses it at a time, the holder of `lock`.

    Parameters
    ----------
    slot_bytes : int, optional
        Size of a slot. The default is `fitting_slot_bytes`.
    variables : dict, optional
        Environment variables that the fork server starts with, besides those of
        this process.
    initializer : Payload, optional
        From `pack_initializer`; each new worker runs it before any task.

    Attributes
    ----------
    calls : iterator of int
        Numbers for calls.
    dirty : bool
        True while a call uses the workers. The next call that finds it True
        knows that the last one was interrupted, and starts new workers.
    serial_seconds : float
        Work done serially because starting workers did not pay yet; once large
        enough it starts them.
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
        self.dirty = False
        self.serial_seconds = 0.0
        self._owner = os.getpid()
        self._cookie = os.urandom(COOKIE_BYTES)
        self._keys = itertools.count(1)
        self._fork_server: Channel | None = None
        self._fork_server_pid = 0
        # True once it has forked a worker.
        self._forked = False
        self._poll: Any = None
        # Sockets that are also polled for room for messages.
        self._full: set[Channel] = set()
        self._wake = -1
        self._waking = threading.Lock()
        self._sizes_checked = 0.0

    @functools.cached_property
    def slot_bytes(self) -> int:
        """Size of a slot; computed when first needed, since a small call never does."""
        return self._given_slot_bytes or fitting_slot_bytes()

    @property
    def running(self) -> bool:
        """True if a worker is up and has answered."""
        for worker in list(self.workers):
            if not worker.ready and not worker.assignments:
                self.poll_idle(worker)
        return any(worker.ready for worker in self.workers)

    def poll_idle(self, worker: WorkerHandle) -> None:
        """Read a message of a worker that has no part in the current call; drop it if it has ended."""
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
        """True if a worker has answered before; any thread may ask, without the lock."""
        return any(worker.ready for worker in tuple(self.workers))

    @property
    def owned_by_parent(self) -> bool:
        """True if this process inherited the pool by a fork, and so must not use it."""
        return self._owner != os.getpid()

    def start(self, workers: int, mark: bytes | None = None) -> list[WorkerHandle]:
        """Start workers until there are `workers`, and return without waiting.

        A worker that has called another function as `setup` than the one with `mark`, or that may hold a module which
        was reloaded since, is replaced. Messages sent to a worker that is not up yet wait in its socket.
        """
        if self.dirty or self._fork_server_ended():
            self.stop()
        self.dirty = True
        self._receive_late_answers()
        watch.look()
        for worker in list(self.workers):
            if worker.reloads != watch.reloads or worker.mark not in (None, mark):
                worker.kill()
                self.drop(worker)
        if self._fork_server is None:
            self._spawn()
        while len(self.workers) < workers:
            self.add_worker()
        return self.workers[:workers]

    def _fork_server_ended(self) -> bool:
        if not self._fork_server_pid:
            return False
        try:
            ended = os.waitpid(self._fork_server_pid, os.WNOHANG) != (0, 0)
        except ChildProcessError:  # its exit code was read elsewhere in this process
            ended = True
        if ended:
            self._fork_server_pid = 0
        return ended

    def _receive_late_answers(self) -> None:
        """Read late outcomes of earlier calls; drop workers that still compute them or have grown too large."""
        check_sizes = time.monotonic() - self._sizes_checked > LOOK_SECONDS
        if check_sizes:
            self._sizes_checked = time.monotonic()
        for worker in list(self.workers):
            if worker.over:
                self.drop(worker)
                continue
            if check_sizes and own_bytes(worker.pid) > IDLE_BYTES:
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
        """Start the fork server."""
        with DeferredInterrupt():
            own_end, server_end = socket_pair()
            with contextlib.closing(server_end):
                self._fork_server, self._forked = Channel(own_end, self._cookie), False
                try:
                    own_end.setblocking(False)
                    own_end.send(self._cookie)  # before it has started: no other process can read or write here yet
                    self._wake = open_event()
                    self._poll = open_poll()
                    self._poll.register(self._wake, select.EPOLLIN)
                    self._poll.register(own_end, select.EPOLLIN)
                    atexit.register(self.stop)
                    self._fork_server_pid = start(server_end, self._variables)
                except BaseException:
                    self.stop()
                    raise

    def add_worker(self) -> WorkerHandle:
        """Start one more worker, the last of `workers`."""
        assert self._fork_server is not None
        with DeferredInterrupt():
            worker = WorkerHandle(next(self._keys), self.slot_bytes, self._cookie)
            self.workers.append(worker)
            try:
                worker.request_fork(self._fork_server, self.slot_bytes)
            except OSError as error:
                self.drop(worker)
                raise ParwiseError("the process that starts workers is gone; the next call starts a new one") from error
            if self._initializer is not None:
                worker.share_tracker(tracker_fd())
                self._initializer.send([worker.channel], "initialize", 0)
            worker.channel.sock.setblocking(False)
            assert self._poll is not None
            self._poll.register(worker.channel, select.EPOLLIN)
        return worker

    def wake(self) -> None:
        """Make another thread's `wait` return."""
        with self._waking:  # `stop` may have closed the descriptor, and its number may belong to another file now
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def wait(self, timeout: float | None) -> list[tuple[str, WorkerHandle]]:
        """Wait at most `timeout` seconds for "message" or "death" events of workers.

        Messages of the fork server are handled here.
        """
        events: list[tuple[str, WorkerHandle]] = []
        by_fd = {worker.channel.fileno(): ("message", worker) for worker in self.workers}
        by_fd |= {worker.pidfd: ("death", worker) for worker in self.workers if worker.pidfd >= 0}
        assert self._poll is not None
        self._send_waiting()
        for fd, _ in self._poll.poll(timeout):
            if self._fork_server is not None and fd == self._fork_server.fileno():
                self._read_fork_server()
            elif fd in by_fd:
                events.append(by_fd[fd])
            else:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
        # The last messages of a worker before its death.
        events.sort(key=lambda event: event[0] == "death")
        return events

    def _send_waiting(self) -> None:
        """Send messages that had no room so far, and have `wait` return when there is room for those left."""
        channels = [worker.channel for worker in self.workers]
        if self._fork_server is not None:
            channels.append(self._fork_server)
        for channel in channels:
            if channel.waiting:
                with contextlib.suppress(ConnectionError):  # it is dead; its pidfd reports that
                    channel.flush()
            if channel.waiting != (channel in self._full):
                self._poll.modify(channel, select.EPOLLIN | (select.EPOLLOUT if channel.waiting else 0))
                (self._full.add if channel.waiting else self._full.remove)(channel)

    def _read_fork_server(self) -> None:
        assert self._fork_server is not None
        try:
            with DeferredInterrupt():
                while True:
                    self._receive(*self._fork_server.receive())
        except BlockingIOError:
            pass
        except ForeignBytesError as error:
            self.stop()
            raise error.told("the process that starts workers") from None
        except (EOFError, OSError) as error:
            raise ParwiseError(
                "the process that starts workers ended; is NumPy importable in a new interpreter? "
                "The next call starts a new one"
            ) from error

    def _receive(self, message: tuple[Any, ...], fds: list[int]) -> None:
        """Handle a message of the fork server: a worker was forked, or could not be."""
        assert self._poll is not None
        kind, key, pid = message
        if kind == "fork_failed":
            raise ParwiseError(
                f"a worker process could not be started ({pid}); pass fewer workers, or raise the limits on "
                "processes and memory"
            )
        self._forked = True
        for worker in self.workers:
            if kind == "forked" and worker.key == key:
                worker.pid, worker.pidfd = pid, fds.pop()
                self._poll.register(worker.pidfd, select.EPOLLIN)
        for fd in fds:
            os.close(fd)

    def exit_code(self, worker: WorkerHandle) -> int | None:
        """Exit code of a dead worker, or minus the signal; None if the fork server does not know."""
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
        """Remove a worker from the pool, and close its handle."""
        with DeferredInterrupt():
            self.workers.remove(worker)
            self._full.discard(worker.channel)
            for fd in (worker.channel.fileno(), worker.pidfd):
                if fd >= 0 and self._poll is not None:
                    with contextlib.suppress(OSError):
                        self._poll.unregister(fd)
            worker.close()

    def abandon(self) -> None:
        """Kill all workers; the fork server stays, and can fork new ones."""
        if self._fork_server is not None and self._poll is not None:
            with contextlib.suppress(ParwiseError):
                self._read_fork_server()  # it may not have reported the newest workers yet
        for worker in list(self.workers):
            worker.kill()
            self.drop(worker)

    def stop(self) -> None:
        """Kill all workers and the fork server, and wait for its end."""
        if self.owned_by_parent:
            return
        with DeferredInterrupt():
            workers = [worker.pid for worker in self.workers if worker.pid]
            self.abandon()
            fork_server, self._fork_server = self._fork_server, None
            poll, self._poll = self._poll, None
            wake, self._wake = self._wake, -1
            pid, self._fork_server_pid = self._fork_server_pid, 0
            self._full.clear()
            if fork_server is not None and pid and self._forked:
                _await_end(fork_server, pid)
            if pid:
                # To close the socket is not enough: a process that the user forked
                # may hold a copy. Workers that are left end with the fork server.
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
            end_orphans(workers)
            if fork_server is not None:
                fork_server.close()
            if poll is not None:
                poll.close()
            if wake >= 0:
                with self._waking:
                    os.close(wake)
        atexit.unregister(self.stop)
        self.dirty = False


def _await_end(fork_server: Channel, pid: int) -> None:
    """Have the fork server end its workers and wait for them, and give it a second for that.

    Otherwise the killed workers become children of process 1. In a container that is this process, or another one that
    does not wait for them, and they stay as zombies.
    """
    with contextlib.suppress(OSError):
        fork_server.send("stop")
        pidfd = open_process(pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(ANSWER_SECONDS * 1000)
        finally:
            os.close(pidfd)
