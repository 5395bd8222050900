"""What is known of the time that a function takes, from its last calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TypeAlias

from ..._clock import perf_counter
from ..._core.call import Call

# Functions whose pace is kept.
MOST_KNOWN = 100
# After so many calls of middling length the way that seemed slower is tried again, with or without workers, and after
# twice as many each time that it was slower again. A trial with workers is two calls, of which the second one counts:
# in the first one all that only shared calls need is in no cache, and 20 elements of 0.8 ms took 14 ms where one such
# call after the other took 11.5, and the loop 13.
TRIAL_CALLS, MOST_TRIAL_CALLS = 4, 128
# Beside a worker on the same core an element takes up to so many times as long as alone; with more than that it is
# another kind of element, or of machine.
MOST_SLOWER = 4
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
    calls, trial_calls : int
        Such calls since the slower way was tried, and how many there are to be until it is tried again; one more where
        the trial is to go on with a second call.
    """

    seconds: float
    threaded: bool
    alone: float = 0.0
    shared: float = 0.0
    calls: int = 0
    trial_calls: int = TRIAL_CALLS

    @property
    def work(self) -> float:
        """Seconds of an element where nothing runs beside it, as far as is known."""
        return self.alone or self.seconds

    @property
    def to_share(self) -> bool:
        """True if the next call of middling length should be shared with workers."""
        if not (self.alone and self.shared):
            return not self.shared
        return self._shared_is_faster != (self.calls >= self.trial_calls)

    @property
    def _shared_is_faster(self) -> bool:
        return self.shared < self.alone

    def with_pace(self, seconds: float, threaded: bool) -> KnownPace:
        """What is known after a call whose elements took so many `seconds`."""
        known = self._replace(seconds=seconds, threaded=threaded)
        alike = self.alone / MOST_SLOWER < seconds < self.alone * MOST_SLOWER
        return known if alike or not self.alone else KnownPace(seconds, threaded)

    def after(self, elapsed: float, shared: bool) -> KnownPace:
        """What is known after a call of middling length that took `elapsed` seconds for each element."""
        before = self.shared if shared else self.alone
        elapsed = min(elapsed, GROWTH * before) if before else elapsed
        known = self._replace(shared=elapsed) if shared else self._replace(alone=elapsed)
        first = not (self.alone and self.shared)
        if first or known._shared_is_faster != self._shared_is_faster:
            again = first and not known._shared_is_faster
            return known._replace(calls=TRIAL_CALLS + 1 if again else 0, trial_calls=TRIAL_CALLS)
        if shared == self._shared_is_faster or (shared and self.calls == self.trial_calls):
            return known._replace(calls=self.calls + 1)
        return known._replace(calls=0, trial_calls=min(2 * self.trial_calls, MOST_TRIAL_CALLS))


class KnownPaces:
    """Remembers how long functions took for elements of one size.

    A call that is known to take some milliseconds is shared with workers from its first element on. Where that was
    wrong it takes 0.5 ms more, and the next call knows better. Where it is doubtful whether workers pay, in calls of
    middling length, both ways are tried.

    Attributes
    ----------
    serial_seconds : float
        Work of calls of middling length that workers could have shared, had they been up.
    """

    def __init__(self) -> None:
        self.serial_seconds = 0.0
        # Not an `OrderedDict`: without the GIL, one that several threads change crashes the interpreter.
        self._known: dict[_Key, KnownPace] = {}

    def of(self, call: Call) -> PaceOfCall:
        """What is known of a call, and the place to note what it shows."""
        return PaceOfCall(self, call)

    def get(self, key: _Key) -> KnownPace | None:
        """What is known of calls of one kind."""
        return self._known.get(key)

    def set(self, key: _Key, known: KnownPace) -> None:
        """Remember what is known of calls of one kind, which become the latest."""
        self._known.pop(key, None)
        self._known[key] = known
        while len(self._known) > MOST_KNOWN:
            with contextlib.suppress(RuntimeError):  # another thread adds to it
                self._known.pop(next(iter(self._known)), None)


class PaceOfCall:
    """What is known of the time that one call takes, which begins with this object.

    Attributes
    ----------
    known : KnownPace or None
        From earlier calls of its kind, as this one begins.
    """

    def __init__(self, paces: KnownPaces, call: Call) -> None:
        self._begun = perf_counter()
        self._paces, self._call, self._key = paces, call, _key(call)
        self.known = paces.get(self._key)

    def keep(self, seconds: float, threaded: bool = False) -> None:
        """Remember how long an element took, and whether BLAS threads took part."""
        known = self._paces.get(self._key) or KnownPace(seconds, threaded)
        self._paces.set(self._key, known.with_pace(seconds, threaded))

    def keep_way(self, shared: bool, elapsed: float | None = None) -> None:
        """Remember that the call, one of middling length, was shared with workers or not, and how long all of it took.

        That is the time until now, if no other is given.
        """
        known = self._paces.get(self._key)
        if known is not None:
            elapsed = perf_counter() - self._begun if elapsed is None else elapsed
            self._paces.set(self._key, known.after(elapsed / self._call.count, shared))


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
