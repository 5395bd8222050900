"""What a function does beside its result where workers alone call it.

There is no result of the caller's own to compare with, and nothing that the function changes arrives. So each process
looks at the copies that it has, before and after its first task.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from . import generators, readers
from .effect import Effect
from .side_effects import SideEffects

_LEAVE_OUT = "verify=False leaves this check out"


class FirstTask:
    """Finds the first task of a call in each process that computes some of its tasks."""

    def __init__(self) -> None:
        self._taken = False

    def look(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], prepared: bool) -> Look | None:
        """Look before a task; None at any but the first, or where a class of the user's cannot be looked at.

        A process is `prepared` if it has called another function first, as an initializer: what this one changes may
        then belong to the process.
        """
        taken, self._taken = self._taken, True
        with contextlib.suppress(Exception):  # the call must not fail where the loop does not
            return None if taken else Look(func, args, kwargs, prepared)
        return None


class Look:
    """Generators, iterators, containers and numbers of a function before a task; see `FirstTask.look`."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], prepared: bool) -> None:
        self._call = func, args, kwargs
        objects = generators.objects_of(*self._call)
        self._generators = generators.held_generators(objects)
        if self._generators and generators.seeds(func):
            self._generators = {}
        self._readers = readers.unread(func, objects)
        self._effects = None if prepared else SideEffects(func)

    def effects(self) -> list[Effect]:
        """What the function has done in the task."""
        found: list[Effect] = []
        with contextlib.suppress(Exception):  # as above
            found += self._drawn(generators.COPIED, self._generators, generators.held_generators)
            found += self._drawn(readers.COPIED, self._readers, readers.held_readers)
            found += self._changed()
        return found

    def _drawn(self, copied: str, held: generators.Held, look: Callable[..., generators.Held]) -> Iterator[Effect]:
        drawn = generators.drawn_from(held, look(generators.objects_of(*self._call))) if held else {}
        if drawn:
            # Where another function was called first it may have seeded each copy in another way.
            state = zlib.crc32(b"".join(drawn.values())) if self._effects is None else 0
            text = f"the function {copied.format(' and '.join(drawn))}. {_LEAVE_OUT}"
            yield Effect(text, os.urandom(8), state)

    def _changed(self) -> Iterator[Effect]:
        what = None if self._effects is None else self._effects.changed()
        if what is not None:
            yield Effect(
                f"the function changes {what}, and none of the changes arrives: workers alone call it, and change "
                f"copies. Return the value, and take it from the results. {_LEAVE_OUT}"
            )
