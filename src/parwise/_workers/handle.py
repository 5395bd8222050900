"""The caller's handle of one worker: its process, socket and slots, and the tasks assigned to it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Iterator

from .._core.indexing import Task
from .._system.interpreter import select
from .multiprocessing_objects import Attachments
from .protocol import Channel, ChunkReceiver, socket_pair
from .shared_memory import SLOTS, Slots, create_fd, segment_bytes

# Time for a worker that gets SIGTERM to write its stack, before it is killed.
STACK_SECONDS = 0.5


class Assignment:
    """A task that was sent to a worker at the time `since`; results of a handshake are only compared."""

    def __init__(self, task: Task, handshake: bool, attachments: list[Attachments]) -> None:
        self.task = task
        self.handshake = handshake
        self.attachments = attachments
        self.since = time.monotonic()


class WorkerHandle:
    """One worker, as the caller knows it.

    Attributes
    ----------
    pid, pidfd : int
        0 and -1 until the fork server has reported them.
    ready : bool
        True once the worker has answered.
    has_computed : bool
        True once the worker has computed a task.
    loading, loading_earlier : bool
        True if the worker has not answered since the last session was sent to it; since an earlier one.
    free : deque of int
        Input slots without a task.
    assignments : dict
        Assignments by their number, in the order sent.
    sender, receiver
        Arguments that are being sent in chunks; results that are coming in chunks.
    least_bytes : int, optional
        The least memory seen in this call.
    retiring : bool
        True if it gets no more tasks, since it will be replaced.
    """

    def __init__(self, key: int, slot_bytes: int) -> None:
        self.key = key
        own_end, worker_end = socket_pair()
        with contextlib.closing(worker_end):
            segment = create_fd(segment_bytes(slot_bytes))
            self.channel = Channel(own_end)
            self.slots = Slots(segment, slot_bytes)
            self._worker_fds: tuple[int, int] | None = (worker_end.detach(), segment)
        self.pid = 0
        self.pidfd = -1
        self.ready = False
        self.has_computed = False
        self.loading = self.loading_earlier = False
        self.reset()

    def reset(self) -> None:
        """Prepare for the next call; the worker must have no task left."""
        self.free = deque(range(SLOTS))
        self.assignments: dict[int, Assignment] = {}
        self.sender: Iterator[None] | None = None
        self.receiver: ChunkReceiver | None = None
        self.least_bytes: int | None = None
        self.retiring = False

    def request_fork(self, fork_server: Channel, slot_bytes: int) -> None:
        """Ask the fork server for the process of this worker."""
        assert self._worker_fds is not None
        try:
            fork_server.send("fork", self.key, slot_bytes, fds=self._worker_fds)
        finally:
            for fd in self._worker_fds:
                os.close(fd)
            self._worker_fds = None

    @property
    def at(self) -> int | None:
        """Index of the element that the worker is computing, or died in; None between tasks."""
        index = self.slots.cursor.index
        return None if index < 0 else index

    @property
    def over(self) -> bool:
        """True if the worker has ended."""
        if self.pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    @property
    def since(self) -> float:
        """When the worker began that element, by the monotonic clock, in seconds."""
        return self.slots.cursor.since

    def kill(self) -> None:
        """Kill the worker; the fork server then kills the processes that the worker started."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def kill_with_stack(self) -> None:
        """Kill the worker after it has written its stack."""
        if self.pidfd >= 0 and not self.over:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            poll.poll(STACK_SECONDS * 1000)
        self.kill()

    def close(self) -> None:
        """Close the socket, at which the worker ends."""
        # A cycle, if the sender refers to this handle: the memory would stay until a garbage collection.
        self.sender = self.receiver = None
        self.channel.close()
        for fd in self._worker_fds or ():
            os.close(fd)
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
