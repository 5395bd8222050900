"""What a function changes beside its result, where only a part of it arrives: workers change copies.

Containers are compared by length, and numbers by value, before and after the elements that this process computes.
Nothing of their own classes is called: the check must not fail where the loop does not.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ReproducibilityWarning, user_level
from .functions import attributes_of, codes_of, function_of, named_values

if TYPE_CHECKING:
    from dis import Instruction

CONTAINERS: tuple[Any, ...] = (list, dict, set, deque, bytearray)
NUMBERS = (int, float, complex, np.number)
#: Methods that add to a container and return nothing that says what it holds.
WRITERS = frozenset({"add", "append", "appendleft", "extend", "extendleft", "insert", "update"})
_STORES = ("STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR")
# Attributes of an object that are looked at.
ATTRIBUTES = 50


class SideEffects:
    """Containers and numbers that a function names, as they were before the call.

    Those are globals, variables of enclosing functions, and attributes of the object whose method it is. A container
    that the function also reads is a cache, which each worker may have its own of: only what it writes to and never
    reads is told, neither itself nor by functions that it calls. A number that it sets is a count or a sum. What is
    None or missing before is made when first needed.
    """

    def __init__(self, func: Any) -> None:
        self._function, self._own = function_of(func)
        self._before = {} if self._function is None else dict(self._read(self._function))

    def _read(self, function: FunctionType) -> Iterator[tuple[tuple[str, str], Any]]:
        kind = f"the attribute of the {type(self._own).__name__} object"
        labels = {"global": "the global", "variable": "the variable", "attribute": kind}
        own = self._own if len(attributes_of(self._own)) <= ATTRIBUTES else None
        for where, name, value in named_values(function, own, function.__code__.co_names):
            yield from _sized(labels[where], name, value)

    def changed(self) -> str | None:
        """What the function has changed, in words: the first such name, if any."""
        if not self._before or self._function is None:
            return None
        now = dict(self._read(self._function))
        for key, (value, size) in self._before.items():
            after, size_after = now.get(key, (value, size))
            if size is None:
                differs = size_after is None and after is not value and _plain(after) != _plain(value)
                changed = differs and self._sets(key[1])
            else:
                changed = after is value and size_after != size and self._only_adds(key[1])
            if changed:
                return f"{key[0]} {key[1]!r} ({type(value).__name__})"
        return None

    def _sets(self, name: str) -> bool:
        """True if the function gives a name another value, and not another thread; nor for itself alone, to read it."""
        uses = [[one for one in _instructions(code) if one.argval == name] for code in self._codes()]
        stored = any(one.opname in _STORES for found in uses for one in found)
        first = next((found[0] for found in uses if found), None)
        for_itself = (
            first is not None
            and first.opname in _STORES
            and any(one.opname.startswith("LOAD_") for found in uses for one in found)
        )
        return stored and not for_itself

    def _only_adds(self, name: str) -> bool:
        """True if the function never reads what a container holds."""
        return all(_only_adds(_instructions(code), name) for code in self._codes())

    def _codes(self) -> list[CodeType]:
        assert self._function is not None
        return codes_of(self._function, self._own)

    def warn(self) -> None:
        """Warn if the function has changed something, of which workers have changed copies."""
        what = self.changed()
        if what is not None:
            warnings.warn(
                f"the function changes {what}, and only the changes of elements that this process computed have "
                "arrived: workers change copies. Return the value, and take it from the results; or use "
                "executor='threads', which runs in this process. verify=False leaves this check out",
                ReproducibilityWarning,
                stacklevel=user_level(),
            )


def _plain(number: Any) -> Any:
    """A number without what a class of the user's makes of it."""
    base = next((one for one in (int, float, complex) if isinstance(number, one)), None)
    return np.generic.item(number) if base is None else base.__pos__(number)


def _sized(kind: str, name: str, value: Any) -> Iterator[tuple[tuple[str, str], tuple[Any, int | None]]]:
    """A container with its length, or a number with None."""
    if issubclass(type(value), CONTAINERS):
        base = next(one for one in CONTAINERS if issubclass(type(value), one))
        yield (kind, name), (value, base.__len__(value))
    elif issubclass(type(value), NUMBERS) and type(value) is not bool:
        yield (kind, name), (value, None)


def _instructions(code: CodeType) -> list[Instruction]:
    import dis  # 3 ms, and only where something has changed

    return [one for one in dis.get_instructions(code) if one.opname not in ("PUSH_NULL", "NOP")]


def _only_adds(instructions: list[Instruction], name: str) -> bool:
    """True if code does nothing with what `name` holds, but add to it."""
    loads = [k for k, one in enumerate(instructions) if one.argval == name and one.opname.startswith("LOAD_")]
    return all(_adds(instructions, k) for k in loads if instructions[k].opname != "LOAD_CONST")


def _adds(instructions: list[Instruction], at: int) -> bool:
    """True if what one instruction loads is only added to: by a method, or by ``x[key] = value`` or ``+=``."""
    import dis

    if instructions[at + 1].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        return instructions[at + 1].argval in WRITERS
    above = 0  # values on the stack above what was loaded
    for before, one in zip(instructions[at:], instructions[at + 1 :], strict=False):
        if one.opname == "STORE_SUBSCR":
            return above == 1 or (above == 2 and before.opname == "SWAP")
        above += dis.stack_effect(one.opcode, one.arg, jump=False)
        if above < 1:
            return False
    return False
