"""`Effect`, what a worker tells of a function."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from ...errors import ReproducibilityWarning, user_level


class Effect(NamedTuple):
    """What a function does beside its result, told once in a call; an event of output, see `OutputReplay`."""

    text: str
    element: int = -1  # before all elements

    def plain(self) -> Effect:
        """The same for a process that lacks a class of the function."""
        return self

    def repeat(self, function: Any) -> None:
        """Warn of it."""
        warnings.warn(self.text, ReproducibilityWarning, stacklevel=user_level())
