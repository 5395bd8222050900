"""What a function does beside its result where workers alone call it.

There is no result of the caller's own to compare with, and nothing that the function changes arrives. So each worker
looks at the copies that it has, before and after its first task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .effect import Effect
from .generators import COPIED, GLOBAL, changed, global_generators, held_generators
from .side_effects import SideEffects


class FirstTask:
    """Looks at the first task of a call in each process that computes some of its tasks.

    Parameters
    ----------
    several : bool
        True if several processes may compute: one alone draws all numbers from its copy of a generator in order.
    alone : bool
        True if the processes are parwise's own: in those of another library other threads may draw from what is global.
    """

    def __init__(self, several: bool, alone: bool) -> None:
        self._several, self._alone, self._taken = several, alone, False

    def begin(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], list[Effect]] | None:
        """Look before a task; return what tells what the function has done in it. None if another one was looked at."""
        if self._taken:
            return None
        self._taken = True
        effects, shared = SideEffects(func), global_generators() if self._alone else {}
        held = held_generators(func, args, kwargs) if self._several else {}

        def told() -> list[Effect]:
            texts = []
            if held and (drawn := changed(held, held_generators(func, args, kwargs))):
                texts.append(f"the function {COPIED.format(drawn)}")
            after = global_generators() if self._alone else {}
            self._taken = after.keys() == shared.keys()  # else the task has imported one, and the next one may draw
            if drawn := changed(shared, after):
                texts.append(f"the function {GLOBAL.format(drawn)}")
            if (what := effects.changed()) is not None:
                texts.append(
                    f"the function changes {what}, and none of the changes arrives: workers alone call it, and change "
                    "copies. Return the value, and take it from the results"
                )
            return [Effect(f"{text}. verify=False leaves this check out") for text in texts]

        return told
