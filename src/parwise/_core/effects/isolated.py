"""What a function does beside its result where workers alone call it.

There is no result of the caller's own to compare with, and nothing that the function changes arrives. So each process
looks at the copies that it has, before and after its first task.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

from .effect import Effect
from .generators import COPIED, drawn_from, held_generators, seeds
from .side_effects import SideEffects


class FirstTask:
    """Looks at the first task of a call in each process that computes some of its tasks."""

    def __init__(self) -> None:
        self._taken = False

    def begin(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], prepared: bool
    ) -> Callable[[], list[Effect]] | None:
        """Look before a task; return what tells what the function has done in it, None if another one was looked at.

        A process is `prepared` if it has called another function first, as an initializer: what this one changes may
        then belong to the process.
        """
        if self._taken:
            return None
        self._taken = True
        try:
            held = {} if seeds(func) else held_generators(func, args, kwargs)
            effects = None if prepared else SideEffects(func)
        except Exception:  # of a class of the user's: the call must not fail where the loop does not
            return None
        return lambda: _told(func, args, kwargs, held, effects)


def _told(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    held: dict[str, tuple[Any, bytes]],
    effects: SideEffects | None,
) -> list[Effect]:
    found = []
    try:
        drawn = drawn_from(held, held_generators(func, args, kwargs) if held else {})
        if drawn:
            text = f"the function {COPIED.format(' and '.join(drawn))}"
            # Where a function was called first it may have seeded each copy in another way.
            state = zlib.crc32(b"".join(drawn.values())) if effects is None else 0
            found.append(Effect(_ending(text), os.urandom(8), state))
        if effects is not None and (what := effects.changed()) is not None:
            text = (
                f"the function changes {what}, and none of the changes arrives: workers alone call it, and change "
                "copies. Return the value, and take it from the results"
            )
            found.append(Effect(_ending(text)))
    except Exception:  # as above
        return []
    return found


def _ending(text: str) -> str:
    return f"{text}. verify=False leaves this check out"
