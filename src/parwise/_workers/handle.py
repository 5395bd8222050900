"""One worker, as its caller knows it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .._core.indexing import Task
from .protocol import Channel, ChunkReceiver
from .shared_memory import SLOTS, Slots, create_fd, segment_bytes

# A worker that is told to end has so long to write down its stack.
STACK_SECONDS = 0.5


@dataclass(slots=True)
class Assignment:
    """A task that a worker has; as a proof its results are only compared."""

    task: Task
    handshake: bool = False
    since: float = field(default_factory=time.monotonic)


class WorkerHandle:
    """One worker, as the caller knows it.

    Attributes
    ----------
    channel : Channel
    slots : Slots
    pid, pidfd : int
        0 and -1 until the fork server has told them.
    ready : bool
        Whether the worker has said hello.
    free : deque of int
        Slots that no task is in.
    assignments : dict
        Number and content of what the worker has been given, in order.
    """

    def __init__(self, key: int, slot_bytes: int) -> None:
        self.key = key
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            segment = create_fd(segment_bytes(slot_bytes))
            self.channel = Channel(mine)
            self.slots = Slots(segment, slot_bytes)
            self._theirs: tuple[int, int] | None = (theirs.detach(), segment)
        self.pid = 0
        self.pidfd = -1
        self.ready = False
        # Whether it has ever computed anything.
        self.proven = False
        self.reset()

    def reset(self) -> None:
        """Forget the last call's work; the worker must have none left."""
        self.free = deque(range(SLOTS))
        self.assignments: dict[int, Assignment] = {}
        self.sender: Iterator[None] | None = None
        self.receiver: ChunkReceiver | None = None
        # Its memory when it was least in this call, and whether it is to be renewed.
        self.least_bytes: int | None = None
        self.retiring = False

    def hand_over(self, fork_server: Channel, slot_bytes: int) -> None:
        """Have the fork server fork the worker behind this link."""
        assert self._theirs is not None
        try:
            fork_server.send("fork", self.key, slot_bytes, fds=self._theirs)
        finally:
            for fd in self._theirs:
                os.close(fd)
            self._theirs = None

    @property
    def at(self) -> int | None:
        """The element that the worker is, or was, at."""
        index = self.slots.cursor.index
        return None if index < 0 else index

    @property
    def over(self) -> bool:
        """Whether the worker has ended."""
        if self.pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    @property
    def since(self) -> float:
        """When the worker came to that element, by the monotonic clock, in seconds."""
        return self.slots.cursor.since

    def kill(self) -> None:
        """End the worker, at once and whatever it does; the fork server ends what it started."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def kill_with_stack(self) -> None:
        """As `kill`, but have it write down first where it is."""
        if self.pidfd >= 0 and not self.over:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            poll.poll(STACK_SECONDS * 1000)
        self.kill()

    def close(self) -> None:
        """Let go of the worker, which ends when it sees that."""
        # These may refer to this link, and so keep its memory until the collector comes.
        self.sender = self.receiver = None
        self.channel.close()
        for fd in self._theirs or ():
            os.close(fd)
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
