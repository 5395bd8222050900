"""Arrays that a killed worker could still write to, since it does not end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._system.interpreter import close, select
from ..descriptors import duplicate


class Undying:
    """Keeps arrays alive until the worker that may write to them has ended.

    A process that is frozen, or waits for a device, in the middle of a write dies only when it runs again.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[int, Sequence[Any]]] = []

    def keep(self, pidfd: int, arrays: Sequence[Any]) -> None:
        """Keep arrays until a process has ended; for ever, if its descriptor is not known."""
        self._kept.append((duplicate(pidfd) if pidfd >= 0 else -1, arrays))

    def release(self) -> None:
        """Let go of the arrays of processes that have ended."""
        for one in [one for one in self._kept if one[0] >= 0]:
            poll = select.poll()
            poll.register(one[0], select.POLLIN)
            if poll.poll(0):
                self._kept.remove(one)
                close(one[0])


#: Those of this process.
undying = Undying()
