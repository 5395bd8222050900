"""What a function changes beside its result, where only a part of it arrives: workers change copies.

Containers are compared by length, and numbers by value, before and after the elements that this process computes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import deque
from collections.abc import Iterator
from functools import partial
from numbers import Number
from types import CodeType, FunctionType, MethodType
from typing import Any

from ..errors import ReproducibilityWarning, user_level

CONTAINERS = (list, dict, set, deque, bytearray)
#: Methods that add to a container and return nothing that says what it holds.
WRITERS = frozenset({"add", "append", "appendleft", "extend", "extendleft", "insert", "update"})
# Attributes of an object that are looked at.
ATTRIBUTES = 50


class SideEffects:
    """Containers and numbers that a function names, as they were before the call.

    Those are globals, variables of enclosing functions, and attributes of the object whose method it is. A container
    that the function also reads is a cache, which each worker may have its own of: only what it writes to and never
    reads is told. A number that changes is a count or a sum. What is None or missing before is made when first needed.
    """

    def __init__(self, func: Any) -> None:
        self._function, self._own = _function_of(func)
        self._before = {} if self._function is None else dict(self._read(self._function))

    def _read(self, function: FunctionType) -> Iterator[tuple[tuple[str, str], Any]]:
        code, space = function.__code__, function.__globals__
        for name in code.co_names:
            if name in space:
                yield from _sized("the global", name, space[name])
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # not set yet
                yield from _sized("the variable", name, cell.cell_contents)
        own = getattr(self._own, "__dict__", None)
        if type(own) is dict and len(own) <= ATTRIBUTES and not isinstance(self._own, type):
            spaces = [own, *map(vars, type(self._own).__mro__)]  # a count may begin at what its class has
            for name in code.co_names:
                space = next((one for one in spaces if name in one), {})
                if name in space:
                    yield from _sized(f"the attribute of the {type(self._own).__name__} object", name, space[name])

    def changed(self) -> str | None:
        """What the function has changed, in words: the first such name, if any."""
        if not self._before or self._function is None:
            return None
        now = dict(self._read(self._function))
        for key, (value, size) in self._before.items():
            after, size_after = now.get(key, (None, None))
            grown = size is not None and after is value and size_after != size
            counted = size is None and size_after is None and isinstance(after, Number) and after is not value
            if grown and _is_only_written(self._function.__code__, key[1]):
                return f"{key[0]} {key[1]!r} ({type(value).__name__})"
            if counted and after != value:
                return f"{key[0]} {key[1]!r} ({type(value).__name__})"
        return None

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


def _function_of(func: Any) -> tuple[FunctionType | None, Any]:
    """The Python function that a callable calls, and the object that it is a method of."""
    while type(func) is partial:
        func = func.func
    if type(func) is FunctionType:
        return func, None
    own = func
    method = func if type(func) is MethodType else getattr(type(func), "__call__", None)  # noqa: B004
    if type(method) is MethodType:
        own, method = method.__self__, method.__func__
    return (method, own) if type(method) is FunctionType else (None, None)


def _sized(kind: str, name: str, value: Any) -> Iterator[tuple[tuple[str, str], tuple[Any, int | None]]]:
    """A container with its length, or a number with None."""
    if isinstance(value, CONTAINERS):
        yield (kind, name), (value, len(value))
    elif isinstance(value, int | float | complex) and not isinstance(value, bool):
        yield (kind, name), (value, None)


def _is_only_written(code: CodeType, name: str) -> bool:
    """True if code adds to a container and never reads it."""
    import dis  # 3 ms, and only where something has changed

    instructions = [one for one in dis.get_instructions(code) if one.opname not in ("PUSH_NULL", "CACHE", "NOP")]
    loads = [k for k, one in enumerate(instructions) if one.argval == name and one.opname.startswith("LOAD_")]
    reads = [k for k in loads if instructions[k + 1].argval not in WRITERS]
    stores = sum(one.opname == "STORE_SUBSCR" for one in instructions)
    return bool(loads) and len(reads) <= min(stores, 1)
