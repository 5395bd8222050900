"""How caller and workers share a call, by the time that it takes; and what is known of that from earlier calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TypeAlias

from ..._core.call import Call
from ..._core.inputs.items import ENDLESS
from ..task_queue import SHARES, TASK_SECONDS, TaskQueue

# Work up to which the caller goes on computing beside its workers. Longer calls are left to them: the caller then only
# waits for messages, and what the function prints comes soon.
BESIDE_SECONDS = 0.25
# Work for which one more worker pays: it takes 1 to 2 ms of a CPU to load the function.
WORKER_SECONDS = 0.003
# The least task of the caller between two looks at the messages of workers, which take 40 us.
OWN_SECONDS = 0.0005


class Sharing:
    """Decides whether the caller goes on computing beside its workers, and how many of them it needs then.

    In a call of some milliseconds the caller goes on from the first element, and workers get tasks from the last one
    back: no element waits for a worker that is late or has no CPU, and what the function prints in the caller is in
    order. One worker less than CPUs leaves the caller one.
    """

    def __init__(self, call: Call, queue: TaskQueue, stepwise: bool) -> None:
        self._queue = queue
        self._beside = not (stepwise or call.settings.isolate or call.stream is not None or call.count >= ENDLESS)
        # To read a file backwards takes longer.
        self._beside &= all(one.loaded for one in call.inputs)

    @property
    def beside(self) -> bool:
        """True as long as the caller goes on computing."""
        queue = self._queue
        self._beside = self._beside and (queue.pace is None or queue.seconds_left <= BESIDE_SECONDS)
        return self._beside

    def workers(self, most: int) -> int:
        """Number of workers that the rest of the call pays for, out of `most`."""
        if most < 2 or not self.beside:
            return most
        return max(1, min(most - 1, int(self._queue.seconds_left / WORKER_SECONDS)))

    def own_seconds(self, workers: int) -> float:
        """Length of the caller's next task beside so many workers."""
        return min(TASK_SECONDS / 10, max(OWN_SECONDS, self._queue.seconds_left / (2 * SHARES * (workers + 1))))


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
        self._known: OrderedDict[_Key, KnownPace] = OrderedDict()

    def get(self, call: Call) -> KnownPace | None:
        """What is known of a call."""
        return self._known.get(_key(call)) if self._known else None

    def keep(self, call: Call, known: KnownPace) -> None:
        """Remember how long a call took."""
        key = _key(call)
        self._known.pop(key, None)  # it becomes the latest; another thread may have removed it
        self._known[key] = known
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


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
