"""Repeats in the caller what functions said in workers."""

from __future__ import annotations

import threading
from typing import Any

from .._workers.output_capture import OutputEvent


class OutputReplay:
    """Repeats what workers said in index order, as soon as that is known.

    What is said in a task is repeated at once if all tasks before it are done,
    and else when they are.

    Parameters
    ----------
    function : callable
        The mapped one.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._done: dict[int, int] = {}
        self._frontier = 0
        self._held: dict[int, list[OutputEvent]] = {}
        # The last element that was heard of each open task, and of lost ones from where to where.
        self._last: dict[int, int] = {}
        self._reported: list[range] = []
        # Another thread may attend to the workers.
        self._lock = threading.Lock()

    def record(self, lo: int, output: list[OutputEvent]) -> None:
        """Keep what was said in the task that begins at `lo`."""
        if not output:
            return
        with self._lock:
            self._held.setdefault(lo, []).extend(one for one in output if not self._is_told(one.element))

    def lose(self, lo: int) -> None:
        """Note that the task that begins at `lo`, or parts of it, are to be computed again.

        Elements that have been heard whole, which all but the newest have, are
        not repeated a second time.
        """
        with self._lock:
            held = self._held.get(lo, [])
            # Of an earlier worker that had the same task, elements are whole already.
            found = {one.element for one in held} | {self._last.pop(lo, -1)}
            newest = max((index for index in found if index >= lo and not self._is_told(index)), default=None)
            if newest is not None:
                self._held[lo] = [one for one in held if one.element != newest]
                self._reported.append(range(lo, newest))

    def _is_told(self, index: int) -> bool:
        return any(index in reported for reported in self._reported)

    def close(self, lo: int, hi: int) -> None:
        """Note that a task is done."""
        with self._lock:
            self._last.pop(lo, None)
            self._done[lo] = hi
            while self._frontier in self._done:
                self._frontier = self._done.pop(self._frontier)

    def repeat(self, limit: float, everything: bool = False) -> None:
        """Repeat what is due, up to element `limit`.

        Parameters
        ----------
        limit : float
            The lowest index that raised: the loop would not have gone on.
        everything : bool
            True at the end of a call.
        """
        if not self._held:
            return
        with self._lock:
            due = [lo for lo in sorted(self._held) if everything or lo <= self._frontier]
            output = []
            for lo in due:
                found = self._held.pop(lo)
                if found and lo >= self._frontier:  # still open
                    self._last[lo] = found[-1].element
                output.extend(found)
        for one in output:
            if one.element <= limit:
                one.repeat(self._function)
