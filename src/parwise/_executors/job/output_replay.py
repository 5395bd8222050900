"""Replay of text, warnings and log records of workers, in the caller and in index order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..._core.effects.effect import Effect, EffectLog
from ..._core.messages.notes import name_with_item
from ..._system.blas import unknown_blas, warn_of_unknown_blas

if TYPE_CHECKING:
    from ..._core.call import Call
    from ..._workers.worker.output_capture import OutputEvent


class UnknownBlas(NamedTuple):
    """The call uses workers, in which BLAS may run another number of threads than here."""

    element: int = -1  # before all elements

    def repeat(self, function: Any) -> None:
        """Warn of it, once in a process."""
        warn_of_unknown_blas()


#: What is replayed.
Event: TypeAlias = "OutputEvent | UnknownBlas"


class OutputReplay:
    """Replays the output of workers in index order, as early as that order is known.

    The output of a task is replayed at once if all tasks before it are done,
    otherwise when they are.

    Parameters
    ----------
    call : Call
        The call whose function has the output.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._done: dict[int, int] = {}
        self._frontier = 0
        self._held: dict[int, list[Event]] = {}
        self._effects: EffectLog | None = None
        # The last element with output of each open task; the elements of lost tasks whose output is complete.
        self._last: dict[int, int] = {}
        self._complete: list[range] = []
        self._end: float = float("inf")  # the first element whose output was refused
        # A helper thread may read the messages of workers.
        self._lock = threading.Lock()

    def record(self, lo: int, output: Sequence[Event]) -> None:
        """Keep output of the task that begins at `lo`; what several workers tell of the function counts once."""
        if not output:
            return
        with self._lock:
            self._held.setdefault(lo, []).extend(filter(self._is_new, output))

    def _is_new(self, event: Event) -> bool:
        if isinstance(event, Effect):
            self._effects = self._effects or EffectLog()
            return self._effects.counts(event)
        return not self._is_complete(event.element)

    @property
    def has_effects(self) -> bool:
        """True if a worker has told what the function does beside its result."""
        return self._effects is not None

    def doubt_blas(self) -> None:
        """Have the caller warn, in its own thread, if workers cannot take over its number of BLAS threads."""
        if unknown_blas() is not None:
            self.record(0, [UnknownBlas()])

    def lose(self, lo: int) -> None:
        """Note that the task that begins at `lo`, or a part of it, will be computed again.

        The output of all its elements but the newest is complete, and is not
        replayed a second time.
        """
        with self._lock:
            self._lose(lo)

    def _lose(self, lo: int) -> None:
        held = self._held.get(lo, [])
        # Elements of an earlier worker at the same task are complete already.
        found = {one.element for one in held} | {self._last.pop(lo, -1)}
        newest = max((index for index in found if index >= lo and not self._is_complete(index)), default=None)
        if newest is not None:
            self._held[lo] = [one for one in held if one.element != newest]
            self._complete.append(range(lo, newest))

    def _is_complete(self, index: int) -> bool:
        return any(index in elements for elements in self._complete)

    def close(self, lo: int, hi: int) -> None:
        """Note that a task is done."""
        with self._lock:
            self._last.pop(lo, None)
            self._done[lo] = hi
            self._advance()

    def _advance(self) -> None:
        while self._frontier in self._done:
            self._frontier = self._done.pop(self._frontier)

    def repeat(self, limit: Callable[[], float], fail: Callable[..., object], everything: bool = False) -> None:
        """Replay output that is due, or `everything`, up to element `limit()`, where the plain loop ends.

        That is asked for once it is known what is due: another thread may accept an error meanwhile.

        `fail` receives the first element whose output this process refuses, as by a closed `sys.stdout`, and the
        exception: as where the function itself prints. Other output of it and of later elements is dropped.
        """
        for one in self.take_due(everything):
            if one.element > limit() or one.element >= self._end:
                continue
            try:
                one.repeat(self._call.func)
            except Exception as error:
                if one.element < 0:  # of the call as a whole
                    raise
                self._end = one.element
                error.add_note(f"{self._name(one.element)}, while its output was replayed")
                fail(one.element, error, first=True)

    def _name(self, element: int) -> str:
        return name_with_item(self._call, element, dict(self._call.bounds or ()).get(element, element + 1))

    def take_due(self, everything: bool) -> list[Event]:
        """Remove output that is due, or `everything`, and return it."""
        if not self._held:
            return []
        with self._lock:
            return self._take_due(everything)

    def _take_due(self, everything: bool) -> list[Event]:
        output: list[Event] = []
        for lo in [lo for lo in sorted(self._held) if everything or lo <= self._frontier]:
            found = self._held.pop(lo)
            if found and lo >= self._frontier:  # still open
                self._last[lo] = found[-1].element
            output.extend(found)
        return output
