"""Shared memory and claims of one worker: by name until both sides have them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from ..._core.layout import private_memory
from ..._system.interpreter import close
from ..shared_memory import SLOTS, Slots, segment_bytes


class Segment(SharedMemory):
    """Shared memory that lives as long as arrays refer to it."""

    def take_room(self) -> None:
        """Take room for all of it, and close the descriptor, which only the mapping needs; Windows has none.

        Where /dev/shm is full, the first write would end the process by SIGBUS.
        """
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, self.size)
            self._fd = -1
            close(fd)

    def __del__(self) -> None:
        try:  # noqa: SIM105 - `contextlib` may be gone at the end of the interpreter
            self.close()
        except (BufferError, OSError):  # numpy arrays still refer to it: the system frees it later
            pass


def attach(name: str) -> Segment:
    """Shared memory of another process."""
    if sys.version_info >= (3, 13):
        return Segment(name, track=False)
    # This process would start a tracker of its own, which would remove the name at its end (bpo-38119).
    register = resource_tracker.register
    resource_tracker.register = lambda *_: None
    try:
        return Segment(name)
    finally:
        resource_tracker.register = register


class SemaphoreClaim:
    """A `Claim` that is a semaphore of multiprocessing, which all systems have."""

    def __init__(self, semaphore: Any) -> None:
        self.semaphore = semaphore

    def offer(self, times: int = 1) -> None:
        """As in `Claim`."""
        while self.take():
            pass
        for _ in range(times):
            self.semaphore.release()

    def take(self) -> bool:
        """As in `Claim`."""
        return bool(self.semaphore.acquire(False))

    def release(self) -> None:
        """As in `Claim`."""
        self.semaphore.release()


def make_claims() -> list[SemaphoreClaim]:
    """Claims for tasks, and for their results: of each slot, and of none."""
    context = multiprocessing.get_context("spawn")
    return [SemaphoreClaim(context.Semaphore(0)) for _ in range(2 * (SLOTS + 1))]


class PortableSlots(Slots):
    """The shared memory of one worker.

    Parameters
    ----------
    claims : list of SemaphoreClaim
        From `make_claims`.
    """

    def __init__(self, segment: Segment, slot_bytes: int, claims: Sequence[Any]) -> None:
        self.segment, self.claims = segment, claims
        self._lay_out(memoryview(segment.buf or b"")[: segment_bytes(slot_bytes)], slot_bytes)
        self.tasks, self.results = claims[: SLOTS + 1], claims[SLOTS + 1 :]
        self._copy: memoryview | None = None

    def stack_file(self) -> int:
        """As in `Slots`; -1 where the system has no descriptor of shared memory."""
        self._fd = getattr(self.segment, "_fd", -1)
        return super().stack_file() if self._fd >= 0 and sys.platform == "linux" else -1

    def arguments(self, slot: int) -> memoryview:
        """A copy: no page can be made private in its place."""
        copy = self._copy
        if copy is None:
            memory, start = private_memory(self.slot_bytes)
            self._copy = copy = memory.data[start : start + self.slot_bytes]
        copy[:] = self.inputs[slot]
        return copy

    def leave_input(self, slot: int) -> None:
        """Leave the copy to the function, which keeps its argument."""
        self._copy = None
