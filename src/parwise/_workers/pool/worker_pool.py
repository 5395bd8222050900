"""The caller's side of all workers: starts them, waits for their messages, ends them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import threading
from typing import Any

from ..._clock import monotonic
from ..._system.inheritance import read_inherited, tracker_fd
from ..._system.interpreter import DeferredInterrupt, close, select
from ..._system.limits import LOOK_SECONDS, own_bytes
from ..._system.module_watch import watch
from ...errors import ParwiseError
from ..descriptors import open_event, open_poll
from ..other_processes import is_stopped
from ..pickling.payload import Payload
from ..protocol import COOKIE_BYTES, Channel, ForeignBytesError
from ..shared_memory import fitting_slot_bytes
from .fork_server_handle import ForkServerHandle
from .worker_handle import WorkerHandle

# A worker with more memory of its own than this is replaced between two calls.
IDLE_BYTES = 2**29
# Fork servers that may end in one call; one more is an error.
LOST_FORK_SERVERS = 10


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

    finalizes = False  # True if workers call a function before they end

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
        self.fork_server: ForkServerHandle | None = None
        # Fork servers that have ended in the current call.
        self._lost = 0
        # What the workers have inherited from this process.
        self._inherited: tuple[Any, ...] | None = None
        self._poll: Any = None
        # What is polled of workers, by descriptor, and which event it is.
        self._polled: dict[int, tuple[str, WorkerHandle]] = {}
        # Sockets that are also polled for room for messages.
        self._full: set[Channel] = set()
        self._wake = -1
        self._waking = threading.Lock()
        self._checked = 0.0

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
                worker.note_late_answer(worker.channel.receive()[0])
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
        was reloaded since, is replaced; all of them are, with the fork server, if this process has other rights or
        limits than they have inherited. Messages sent to a worker that is not up yet wait in its socket.
        """
        inherited = read_inherited()
        server = self.fork_server
        if self.dirty or inherited != self._inherited or (server is not None and server.ended):
            self.end()
        self._inherited, self._lost = inherited, 0
        self.dirty = True
        self._receive_late_answers()
        watch.look()
        for worker in list(self.workers):
            if worker.reloads != watch.reloads or worker.mark not in (None, mark):
                self.retire(worker)
        forked = sum(worker.pid > 0 for worker in self.workers)
        if self.fork_server is not None and forked < workers and self.fork_server.stopped:
            self.stop()
            self.dirty = True
        while len(self.workers) < workers:
            self.add_worker()
        return sorted(self.workers, key=lambda worker: len(worker.taken_back))[:workers]  # late ones last

    def _receive_late_answers(self) -> None:
        """Read late outcomes of earlier calls; drop workers that still compute them, are stopped or grown too large."""
        check = monotonic() - self._checked > LOOK_SECONDS
        if check:
            self._checked = monotonic()
        for worker in list(self.workers):
            if worker.over:
                self.drop(worker)
            elif check and worker.pid and (own_bytes(worker.pid) > IDLE_BYTES or is_stopped(worker.pid)):
                self.retire(worker)
            elif not worker.catch_up():
                worker.kill()
                self.drop(worker)

    def _open(self) -> None:
        """Open what `wait` needs."""
        self._wake = open_event()
        self._poll = open_poll()
        self._poll.register(self._wake, select.EPOLLIN)
        atexit.register(self.end)

    def _close(self) -> None:
        poll, self._poll = self._poll, None
        if poll is not None:
            poll.close()
        with self._waking:
            wake, self._wake = self._wake, -1
            if wake >= 0:
                close(wake)
        atexit.unregister(self.end)

    def _start_fork_server(self) -> ForkServerHandle:
        """The fork server; a new one if there is none."""
        if self.fork_server is not None and self.fork_server.ended:
            self._lose_fork_server()
        if self.fork_server is None:
            try:
                if self._poll is None:
                    self._open()
                self.fork_server = ForkServerHandle(self._variables, self._cookie)
                self._poll.register(self.fork_server.channel, select.EPOLLIN)
            except BaseException:
                self.stop()
                raise
        return self.fork_server

    def another(self, used: list[WorkerHandle]) -> WorkerHandle:
        """A worker besides those in use; a new one if there is none."""
        return next((one for one in self.workers if one not in used), None) or self.add_worker()

    def add_worker(self) -> WorkerHandle:
        """Start one more worker, the last of `workers`."""
        with DeferredInterrupt():
            while True:
                fork_server = self._start_fork_server()
                try:
                    return self._request_worker(fork_server)
                except ConnectionError:  # it has ended just now
                    self._lose_fork_server()

    def _request_worker(self, fork_server: ForkServerHandle) -> WorkerHandle:
        worker = WorkerHandle(next(self._keys), self.slot_bytes, self._cookie)
        self.workers.append(worker)
        try:
            worker.request_fork(fork_server.channel, self.slot_bytes, fork_server.secret.address)
            if self._initializer is not None:
                worker.share_tracker(tracker_fd())
                self._initializer.send([worker.channel], "initialize", 0)
            worker.channel.sock.setblocking(False)
            self._register(worker.channel.fileno(), "message", worker)
        except BaseException:
            self.drop(worker)
            raise
        return worker

    def _register(self, fd: int, event: str, worker: WorkerHandle) -> None:
        self._poll.register(fd, select.EPOLLIN)
        self._polled[fd] = event, worker

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
        self._send_waiting()
        for fd, _ in self._poll.poll(timeout):
            if fd in self._polled:
                events.append(self._polled[fd])
            elif self.fork_server is not None and fd == self.fork_server.channel.fileno():
                self._read_fork_server()
            else:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
        # The last messages of a worker before its death.
        events.sort(key=lambda event: event[0] == "death")
        return events

    def _send_waiting(self) -> None:
        """Send messages that had no room so far, and have `wait` return when there is room for those left."""
        channels = {worker.channel for worker in self.workers if worker.channel.unsent} | self._full
        if self.fork_server is not None:
            channels.add(self.fork_server.channel)
        for channel in channels:
            if channel.waiting:
                with contextlib.suppress(ConnectionError):  # it is dead; its pidfd reports that
                    channel.flush()
            if channel.waiting != (channel in self._full):
                self._poll.modify(channel, select.EPOLLIN | (select.EPOLLOUT if channel.waiting else 0))
                (self._full.add if channel.waiting else self._full.remove)(channel)

    def _read_fork_server(self) -> None:
        """Handle messages of the fork server, or its end: the sockets of workers that it has not forked close then."""
        assert self.fork_server is not None
        try:
            with DeferredInterrupt():
                while True:
                    self._receive(*self.fork_server.channel.receive())
        except BlockingIOError:
            pass
        except ForeignBytesError as error:
            self.stop()
            raise error.told("the process that starts workers") from None
        except (EOFError, OSError):
            self._lose_fork_server()

    def look(self, workers: list[WorkerHandle], elapsed: float) -> None:
        """Kill a silent fork server if none of a call's `workers` is up; the last look was `elapsed` s ago."""
        server = self.fork_server
        if server is None:
            return
        if not workers or any(worker.pid for worker in workers):
            server.silence.end()
            return
        server.silence.look(server.pid, None, elapsed)
        if server.silence.too_long:
            server.kill()

    def _lose_fork_server(self) -> None:
        """Forget the fork server, which has ended; the next worker gets another one."""
        with DeferredInterrupt():
            server, self.fork_server = self.fork_server, None
            assert server is not None
            self._lost += 1
            for worker in self.workers:
                worker.orphaned = True
            code = server.collect_exit()
            self._poll.unregister(server.channel)
            self._full.discard(server.channel)
            server.close()
        if not server.forked and code is not None and code >= 0:
            raise ParwiseError(
                f"the process that starts workers ended with exit code {code} before it had started one; is "
                "NumPy importable in a new interpreter? Its output tells why"
            )
        if self._lost > LOST_FORK_SERVERS:
            raise ParwiseError(f"the process that starts workers has ended {self._lost} times, at last with {code}")

    def _receive(self, message: tuple[Any, ...], fds: list[int]) -> None:
        """Handle a message of the fork server: a worker was forked, or could not be."""
        assert self.fork_server is not None
        kind, key, pid = message
        if kind == "exited":  # an answer that nobody waits for any more
            return
        if kind == "fork_failed":
            raise ParwiseError(
                f"a worker process could not be started ({pid}); pass fewer workers, or raise the limits on "
                "processes and memory"
            )
        self.fork_server.forked = True
        if not fds:  # the system dropped it, since this process has too many
            raise ParwiseError("a worker process could not be started: too many open files; raise ulimit -n")
        for worker in self.workers:
            if worker.key == key:
                worker.pid, worker.pidfd = pid, fds.pop()
                self._register(worker.pidfd, "death", worker)
        for fd in fds:
            close(fd)

    def exit_code(self, worker: WorkerHandle) -> int | None:
        """Exit code of a dead worker, or minus the signal; None if the fork server does not know."""
        if self.fork_server is not None:
            code = self.fork_server.exit_code(worker, self._receive)
            if code is not None or not self.fork_server.ended:
                return code
            self._lose_fork_server()
        return worker.collect_exit()

    def drop(self, worker: WorkerHandle) -> None:
        """Remove a worker from the pool, and close its handle; it writes no result any more."""
        with DeferredInterrupt():
            worker.revoke()
            self.workers.remove(worker)
            self._full.discard(worker.channel)
            for fd in (worker.channel.fileno(), worker.pidfd):
                self._polled.pop(fd, None)
                if fd >= 0 and self._poll is not None:
                    with contextlib.suppress(OSError):
                        self._poll.unregister(fd)
            worker.close()

    def abandon(self) -> None:
        """Kill all workers; the fork server stays, and can fork new ones."""
        self._kill_workers()
        for worker in list(self.workers):
            self.drop(worker)

    def retire(self, worker: WorkerHandle) -> None:
        """End a worker that is at no work, before another one takes its place."""
        worker.kill()
        self.drop(worker)

    def end(self) -> None:
        """End all workers while none is at work for a call."""
        self.stop()

    def _kill_workers(self) -> None:
        if self.fork_server is not None:
            with contextlib.suppress(ParwiseError):
                self._read_fork_server()  # it may not have reported the newest workers yet
        for worker in self.workers:
            worker.kill()

    def stop(self) -> None:
        """Kill all workers and the fork server, and wait for its end."""
        if self.owned_by_parent:
            return
        with DeferredInterrupt():
            self._kill_workers()
            fork_server, self.fork_server = self.fork_server, None
            self._full.clear()
            if fork_server is not None:
                fork_server.stop()
            for worker in list(self.workers):
                worker.end_orphans()
                self.drop(worker)
            self._close()
        self.dirty = False
