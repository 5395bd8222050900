"""Workers that are forked from a fork server: those of Linux."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from typing import Any

from ..._system.inheritance import tracker_fd
from ..._system.interpreter import DeferredInterrupt, close, select
from ...errors import NoWorkersError, ParwiseError
from ..descriptors import open_event, open_poll
from ..pickling.payload import Payload
from ..protocol import Channel, ForeignBytesError
from .fork_server_handle import ForkServerHandle
from .primitives import missing_primitive
from .worker_handle import WorkerHandle
from .worker_pool import WorkerPool

# Fork servers that may end in one call; one more is an error.
LOST_FORK_SERVERS = 10
# The events of one wait, in the order in which they are told.
_ORDER = ("refused", "message", "death")


class ForkedPool(WorkerPool):
    """Worker processes forked from one fork server.

    Parameters
    ----------
    slot_bytes, variables, initializer
        As in `WorkerPool`.

    Attributes
    ----------
    fork_server : ForkServerHandle, optional
        None until the first worker is wanted.
    """

    DESCRIPTORS = 3  # a socket, shared memory, a pidfd

    def __init__(
        self,
        slot_bytes: int | None = None,
        variables: dict[str, str] | None = None,
        initializer: Payload | None = None,
    ) -> None:
        super().__init__(slot_bytes, variables, initializer)
        self.fork_server: ForkServerHandle | None = None
        # Fork servers that have ended in the current call.
        self._lost = 0
        self._poll: Any = None
        # What is polled of workers, by descriptor, and which event it is.
        self._polled: dict[int, tuple[str, WorkerHandle]] = {}
        # Sockets that are also polled for room for messages.
        self._full: set[Channel] = set()
        self._wake = -1
        self._waking = threading.Lock()
        # Keys of workers that could not be started, and why.
        self._refused: dict[int, str] = {}

    def _open(self) -> None:
        """Open what `wait` needs."""
        if (missing := missing_primitive()) is not None:
            raise NoWorkersError(f"worker processes cannot be started: {missing}; use executor='threads'")
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

    def _prepare(self) -> None:
        if self.fork_server is not None and self.fork_server.ended:
            self.end()
            self.dirty = True
        self._lost = 0

    def _stands_still(self, workers: int) -> bool:
        forked = sum(worker.pid > 0 for worker in self.workers)
        return self.fork_server is not None and forked < workers and self.fork_server.stopped

    def _add_worker(self) -> WorkerHandle:
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

    def _forget(self, worker: WorkerHandle) -> None:
        self._full.discard(worker.channel)
        for fd in (worker.channel.fileno(), worker.pidfd):
            self._polled.pop(fd, None)
            if fd >= 0 and self._poll is not None:
                with contextlib.suppress(OSError):
                    self._poll.unregister(fd)

    def wake(self) -> None:
        with self._waking:  # `stop` may have closed the descriptor, and its number may belong to another file now
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def wait(self, timeout: float | None) -> list[tuple[str, WorkerHandle]]:
        """As in `WorkerPool`; messages of the fork server are handled here."""
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
        if self._refused:
            events += [("refused", worker) for worker in self.workers if worker.key in self._refused]
        # The socket of a refused worker is closed, as that of a dead one is, which would be replaced; and the last
        # messages of a worker come before its death.
        events.sort(key=lambda event: _ORDER.index(event[0]))
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
        """Kill a silent fork server, as in `WorkerPool`."""
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
            raise NoWorkersError(
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
            self._refused[key] = f"({pid}); pass fewer workers, or raise the limits on processes and memory"
            return
        self.fork_server.forked = True
        if not fds:  # the system dropped it, since this process has too many
            self._refused[key] = "since this process has too many open files; raise ulimit -n"
            return
        for worker in self.workers:
            if worker.key == key:
                worker.pid, worker.pidfd = pid, fds.pop()
                self._register(worker.pidfd, "death", worker)
        for fd in fds:
            close(fd)

    def why_refused(self, worker: WorkerHandle) -> NoWorkersError:
        """As in `WorkerPool`."""
        return NoWorkersError(f"a worker process could not be started {self._refused.pop(worker.key, '')}")

    def exit_code(self, worker: WorkerHandle) -> int | None:
        """As in `WorkerPool`."""
        if self.fork_server is not None:
            code = self.fork_server.exit_code(worker, self._receive)
            if code is not None or not self.fork_server.ended:
                return code
            self._lose_fork_server()
        return worker.collect_exit()

    def _kill_workers(self) -> None:
        self._refused.clear()
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
