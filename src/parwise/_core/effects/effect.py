"""What a worker tells of a function: an event among the output of its first task."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from ...errors import ReproducibilityWarning, user_level


class Effect(NamedTuple):
    """What a function does beside its result.

    Attributes
    ----------
    process : bytes
        Names the process, if the user is to know of it only where a second process has told the same.
    state : int
        What the process began with: one that began with another state has told something else.
    """

    text: str
    process: bytes = b""
    state: int = 0
    element: int = -1  # before all elements

    def plain(self) -> Effect:
        """The same for a process that lacks a class of the function."""
        return self

    def repeat(self, function: Any) -> None:
        """Warn of it."""
        warnings.warn(self.text, ReproducibilityWarning, stacklevel=user_level())


class EffectLog:
    """The effects that the processes of a call have told."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._processes: dict[tuple[str, int], set[bytes]] = {}

    def counts(self, effect: Effect) -> bool:
        """Take an effect; True, once for each text, if the user is to know of it."""
        processes = self._processes.setdefault((effect.text, effect.state), set())
        processes.add(effect.process)
        if effect.text in self._told or (effect.process and len(processes) < 2):
            return False
        self._told.add(effect.text)
        return True
