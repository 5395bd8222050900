"""What is known of the time that a function takes, from its last calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TypeAlias

from ..._core.call import Call

# Functions whose pace is kept.
MOST_KNOWN = 100
# After so many calls of middling length the way that seemed slower is tried again, with or without workers; not if it
# took more than so many times as long, except with workers now and then.
TRIAL_CALLS, RARE_TRIAL_CALLS = 16, 128
CLOSE = 1.3
# A time grows at most by this factor with a call: any of them may have met a slow moment.
GROWTH = 1.5

#: The codes of a function and of those that it holds, and bytes of one element.
_Key: TypeAlias = tuple[Any, ...]


class KnownPace(NamedTuple):
    """Seconds of an element in the last call of a function, and whether BLAS threads took part.

    Attributes
    ----------
    alone, shared : float
        Seconds of an element in calls of middling length, which the caller computed alone, or shared with workers; 0 if
        there was none. What workers cost depends on the function, and for the same one 4 to 9 ms were measured.
    calls : int
        Such calls since the slower way was tried.
    """

    seconds: float
    threaded: bool
    alone: float = 0.0
    shared: float = 0.0
    calls: int = 0

    @property
    def to_share(self) -> bool:
        """True if the next call of middling length should be shared with workers."""
        ratio = max(self.alone, self.shared) / (min(self.alone, self.shared) or 1.0)
        if self.alone and ratio > CLOSE:
            return self._shared_is_faster or self.calls >= RARE_TRIAL_CALLS
        return self._shared_is_faster != (self.calls >= TRIAL_CALLS)

    @property
    def _shared_is_faster(self) -> bool:
        return not self.alone or self.shared < self.alone

    def after(self, elapsed: float, shared: bool) -> KnownPace:
        """What is known after a call of middling length that took `elapsed` seconds for each element."""
        before = self.shared if shared else self.alone
        elapsed = min(elapsed, GROWTH * before) if before else elapsed
        calls = 0 if not before or shared != self._shared_is_faster else self.calls + 1
        return self._replace(shared=elapsed, calls=calls) if shared else self._replace(alone=elapsed, calls=calls)


class KnownPaces:
    """Remembers how long functions took for elements of one size.

    A call that is known to take some milliseconds is shared with workers from its first element on. Where that was
    wrong it takes 0.5 ms more, and the next call knows better. Where it is doubtful whether workers pay, in calls of
    middling length, both ways are tried.
    """

    def __init__(self) -> None:
        # Not an `OrderedDict`: without the GIL, one that several threads change crashes the interpreter.
        self._known: dict[_Key, KnownPace] = {}

    def get(self, call: Call) -> KnownPace | None:
        """What is known of a call."""
        return self._known.get(_key(call)) if self._known else None

    def keep(
        self, call: Call, seconds: float, threaded: bool = False, elapsed: float = 0.0, shared: bool = False
    ) -> None:
        """Remember how long elements of a call took, and one of middling length as a whole: `elapsed` seconds."""
        key = _key(call)
        known = self._known.pop(key, None) or KnownPace(seconds, threaded)  # it becomes the latest
        known = known._replace(seconds=seconds, threaded=threaded)
        self._known[key] = known.after(elapsed / call.count, shared) if elapsed else known
        while len(self._known) > MOST_KNOWN:
            with contextlib.suppress(RuntimeError):  # another thread adds to it
                self._known.pop(next(iter(self._known)), None)


#: Those of this process.
known_paces = KnownPaces()


def _key(call: Call) -> _Key:
    func = call.func
    plain = type(func) is FunctionType and not func.__closure__ and not func.__dict__
    codes = (func.__code__,) if plain else _codes(func)
    return (*codes, sum(one.row_bytes for one in call.inputs), call.vectorized)


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
