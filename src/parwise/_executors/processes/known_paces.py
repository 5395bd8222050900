"""What is known of the time that a function takes, from its last call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TypeAlias

from ..._core.call import Call

# Functions whose pace is kept.
MOST_KNOWN = 100

#: The codes of a function and of those that it holds, and bytes of one element.
_Key: TypeAlias = tuple[Any, ...]


class KnownPace(NamedTuple):
    """Seconds of an element in the last call of a function, and whether BLAS threads took part."""

    seconds: float
    threaded: bool


class KnownPaces:
    """Remembers how long functions took for elements of one size.

    A call that is known to take some milliseconds is shared with workers from its first element on. Where that was
    wrong it takes 0.5 ms more, and the next call knows better.
    """

    def __init__(self) -> None:
        # Not an `OrderedDict`: without the GIL, one that several threads change crashes the interpreter.
        self._known: dict[_Key, KnownPace] = {}

    def get(self, call: Call) -> KnownPace | None:
        """What is known of a call."""
        return self._known.get(_key(call)) if self._known else None

    def keep(self, call: Call, known: KnownPace) -> None:
        """Remember how long a call took."""
        key = _key(call)
        self._known.pop(key, None)  # it becomes the latest; another thread may have removed it
        self._known[key] = known
        while len(self._known) > MOST_KNOWN:
            with contextlib.suppress(RuntimeError):  # another thread adds to it
                self._known.pop(next(iter(self._known)), None)


#: Those of this process.
known_paces = KnownPaces()


def _key(call: Call) -> _Key:
    return (*_codes(call.func), sum(one.row_bytes for one in call.inputs), call.vectorized)


def _codes(func: Any, depth: int = 3) -> Iterator[Any]:
    """Codes of a function and of functions that it holds; the types of other objects, which may lack a hash."""
    while isinstance(func, partial | MethodType):
        func = func.func if isinstance(func, partial) else func.__func__
    # Not of other objects, which may have an answer to any name.
    function = isinstance(func, FunctionType)
    yield func.__code__ if function else id(type(func))
    held = getattr(func, "__dict__", None)
    for one in func.__closure__ or () if depth and function else ():
        yield from _codes_of_callable(one, depth)
    for one in list(held.values()) if depth and type(held) is dict else ():  # another thread may add to it
        if callable(one):
            yield from _codes(one, depth - 1)


def _codes_of_callable(cell: Any, depth: int) -> Iterator[Any]:
    try:
        held = cell.cell_contents
    except ValueError:  # not assigned yet
        return
    if callable(held):
        yield from _codes(held, depth - 1)
