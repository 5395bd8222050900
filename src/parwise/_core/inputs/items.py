"""Items of lists and iterators, as arrays of objects."""

from __future__ import annotations

import array
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from enum import Enum
from operator import itemgetter
from types import BuiltinFunctionType, FunctionType, ModuleType, NoneType
from typing import Any

import numpy as np

from ..._clock import perf_counter
from ..layout import Layout
from ..results import SCALARS

#: Length of an iterator that has not ended yet.
ENDLESS = 2**62

# Number of items that are read before they are needed: workers compute these
# while the caller computes one. Items slower than SLOW_SECONDS each are not read
# ahead: a result does not wait for items behind it.
LOOK_AHEAD = 8
SLOW_SECONDS = 0.050
# Seconds, about, spent on reading items for one task. If the function is faster
# than the iterator, the items for 40 ms of its work could be all of them, or more
# than memory holds. Items that must be copied are read ahead for a shorter time:
# the caller does not need these copies.
READ_SECONDS = 0.004
PACK_SECONDS = 0.001

_OBJECT = np.dtype(object)

# Containers that return any item at any time, in any thread, and change none as they do. A subclass may do otherwise.
_INDEXED = frozenset({list, tuple, range, str, bytes, bytearray, array.array, np.ndarray, np.memmap})
_COLLECTIONS = frozenset({dict, set, frozenset, deque, type({}.keys()), type({}.values()), type({}.items())})

# What iterators raise is told after the results before it; Ctrl-C ends the call at once.
STREAM_ERRORS = (Exception, SystemExit, GeneratorExit)
# Types whose values nobody changes, so that they need no copy while they wait.
_CONSTANT = SCALARS | {NoneType, type, range, FunctionType, BuiltinFunctionType, ModuleType}
_CONSTANT_NAMES = frozenset(
    {
        *(("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *(("pathlib", name) for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
        *(("pathlib._local", name) for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
    }
)


def is_container(iterable: Any) -> bool:
    """True for lists and the like, which change none of their items as these are read."""
    return type(iterable) in _INDEXED or type(iterable) in _COLLECTIONS


def is_constant(item: Any) -> bool:
    """True if nobody can change an item."""
    kind = type(item)
    if kind in _CONSTANT:
        return True
    if kind is tuple or kind is frozenset:
        return all(map(is_constant, item))
    return (kind.__module__, kind.__qualname__) in _CONSTANT_NAMES or issubclass(kind, Enum)


def make_feed(iterables: tuple[Iterable[Any], ...], any_thread: bool, keep: bool) -> ItemSequence | ItemStream:
    """Make the source of items for one call.

    Parameters
    ----------
    any_thread : bool
        True if any thread may read items, one thread at a time.
    keep : bool
        True to keep items that have a result, as they were before the function got them.
    """
    containers = [one for one in iterables if is_container(one)]
    if len({len(one) for one in containers}) > 1:  # type: ignore[arg-type]
        raise ValueError(
            f"iterables differ in length: {', '.join(_length(one) for one in iterables)}; pass what all "
            "calls get in args=(...,)"
        )
    if keep or len(containers) < len(iterables):
        return ItemStream(iterables, any_thread, keep)
    return ItemSequence(tuple(one if type(one) in _INDEXED else list(one) for one in iterables))  # type: ignore[misc]


def _length(iterable: Any) -> str:
    return f"{len(iterable)}" if isinstance(iterable, Sized) else f"unknown ({type(iterable).__name__})"


def still(item: Any, snapshot: Any) -> Any:
    """An item in a form that does not change while it waits: its snapshot, unless it is constant."""
    return item if is_constant(item) else snapshot(item)


def restored(item: Any, snapshot: Any) -> Any:
    """An item as the function gets it, a copy if it had to wait as a snapshot."""
    return item.restore() if type(item) is snapshot else item


class ItemSequence:
    """Items of lists and other containers: any thread gets any of them at any time.

    Attributes
    ----------
    count, expected : int
        Number of items.
    """

    error: BaseException | None = None

    def __init__(self, sources: tuple[Sequence[Any], ...]) -> None:
        self._sources = sources
        self.count = self.expected = len(sources[0])

    def items(self, k: int, lo: int, hi: int) -> Sequence[Any]:
        """The items ``lo:hi`` of one container: the user's own objects, as in the plain loop."""
        return self._sources[k][lo:hi]

    def sample(self, count: int) -> list[Any]:
        """At most so many items, to find out how long it takes to send one."""
        return list(self._sources[0][:count])

    def adopt_thread(self) -> None:
        """Do nothing: any thread may read."""

    def release(self, lo: int, hi: int) -> None:
        """Do nothing: the containers are the user's."""


class ItemStream:
    """Items of iterators in step, read only as they are needed.

    Only the thread that made the stream reads, unless any thread may: a generator
    may hold objects of its thread. An item is *waiting* from the time it is read;
    then it is *taken* for one task, until that has its result. A waiting item is
    a snapshot, unless it is constant: iterators that yield one object again and again,
    with other content, are common. The items of a task that the reading thread
    computes are not read before: each comes when it is due, as in the plain loop.

    Parameters
    ----------
    any_thread : bool
        True if any thread may read items, one thread at a time.
    keep : bool
        True to keep items that have a result.

    Attributes
    ----------
    count : int
        Number of items: `ENDLESS` until it is known.
    expected : int
        Number of items to plan for: a length is a hint, the iterator's end decides.
    first : int
        Index of the first item that is computed.
    read_to : int
        Index up to which items have been read.
    error : BaseException or None
        The exception that an iterator raised.
    snapshot : type
        Keeps an item as it is; its method ``restore`` makes a copy.
    """

    def __init__(self, iterables: tuple[Iterable[Any], ...], any_thread: bool, keep: bool) -> None:
        self._single = len(iterables) == 1
        self._iterator: Iterator[Any] = iter(iterables[0]) if self._single else zip(*iterables, strict=True)
        self._waiting: dict[int, Any] = {}
        self._taken: dict[int, Any] = {}
        self._thread = None if any_thread else threading.get_ident()
        self._reading: Any = threading.Lock() if any_thread else contextlib.nullcontext()
        self._keep = keep
        # True if the last item took more than SLOW_SECONDS; True once an item had to be copied.
        self._slow = self._changing = False
        # Index of an item that cannot be copied: the one behind it is read once it has been taken.
        self._fixed = -1
        self.read_to = self.first = 0
        self.count = ENDLESS
        self.expected = min(filter(None, map(_claimed_length, iterables)), default=ENDLESS)
        self.error: BaseException | None = None
        self.snapshot: Any = None

    @property
    def readable(self) -> bool:
        """True if this thread may read items."""
        return self._thread in (None, threading.get_ident())

    @property
    def lazy(self) -> bool:
        """True if the thread that computes a task may read its items one by one."""
        return not self._keep

    def read(self, stop: int, least: int | None = None) -> None:
        """Read the items before `stop`, if this thread may; items from `least` on are left for later if they are slow.

        An item that has been read is waiting.
        """
        if self.readable:
            with self._reading:
                self._read(stop, stop if least is None else least)

    def _read(self, stop: int, least: int) -> None:
        clock = perf_counter
        begun = now = clock()
        while self.read_to < min(stop, self.count) and self._fixed not in self._waiting:
            ahead = self.read_to - least
            if ahead >= 0 and (self._slow or self._long_enough(ahead, now - begun)):
                return
            try:
                item = next(self._iterator)
            except StopIteration:
                self.count = self.read_to
                return
            except STREAM_ERRORS as error:
                self.end(self.read_to, error)
                return
            self._waiting[self.read_to] = self._still(item) if self._single else tuple(map(self._still, item))
            self.read_to += 1
            before, now = now, clock()
            self._slow = now - before > SLOW_SECONDS

    def _long_enough(self, ahead: int, seconds: float) -> bool:
        return (
            seconds > PACK_SECONDS
            if self._changing and ahead < LOOK_AHEAD
            else (ahead >= LOOK_AHEAD and seconds > READ_SECONDS)
        )

    def _still(self, item: Any) -> Any:
        """The item in a form that does not change while it waits; itself if it can only be computed in this process."""
        try:
            waiting = still(item, self.snapshot)
        except Exception:  # whatever its library raises
            self._fixed, waiting = self.read_to, item
        self._changing |= waiting is not item
        return waiting

    def take(self, lo: int, hi: int) -> None:
        """Take waiting items for a task; items that are kept stay taken."""
        for index in range(lo, hi):
            if index in self._waiting:
                self._taken[index] = self._waiting.pop(index)

    def hold(self, index: int, item: Any) -> None:
        """Keep an item for which the function raised, which was computed as it was read, for the message."""
        self._taken[index] = item

    def items(self, k: int, lo: int, hi: int) -> list[Any]:
        """The taken items ``lo:hi`` of one iterator, copied unless they are constant."""
        rows = map(self._taken.__getitem__, range(lo, hi))
        return [restored(one, self.snapshot) for one in (rows if self._single else map(itemgetter(k), rows))]

    def sample(self, count: int) -> list[Any]:
        """At most so many items, to find out how long it takes to send one: there is but the first."""
        first = self.first
        return self.items(0, first, first + 1) * count if first in self._taken else []

    @property
    def unread(self) -> tuple[Iterator[Any], bool]:
        """An iterator over the items that have not been read, and True if it yields a tuple for each element."""
        return self._iterator, not self._single

    def end(self, count: int, error: BaseException | None = None) -> None:
        """Note the end of the iterators, and the exception that ended them."""
        self.count, self.error = count, error

    def watch(self, note: Callable[[Any], None]) -> None:
        """Call `note` with each item, or with the tuple of items of one element, as it is read."""
        self._iterator = _noted(self._iterator, note)

    def skip(self, count: int) -> None:
        """Read the first items, which are not computed."""
        for index in range(count):
            try:
                next(self._iterator)
            except StopIteration:
                raise ValueError(
                    f"the items end before item {index}, but {count} items have results already; pass the same "
                    "items as in the first run"
                ) from None
        self.first = self.read_to = count

    def adopt_thread(self) -> None:
        """Read items in this thread from now on."""
        if self._thread is not None:
            self._thread = threading.get_ident()

    def release(self, lo: int, hi: int) -> None:
        """Release taken items that have a result; the first is kept for the handshake."""
        if self._keep:
            return
        # Most items were never taken, if this process computes them as it reads.
        indices = range(lo, hi) if hi - lo <= len(self._taken) else [one for one in self._taken if lo <= one < hi]
        for index in indices:
            if index != self.first:
                self._taken.pop(index, None)


def _noted(items: Iterator[Any], note: Callable[[Any], None]) -> Iterator[Any]:
    for item in items:
        note(item)
        yield item


def _claimed_length(iterable: Any) -> int:
    """The length that an iterable claims to have, or 0."""
    try:
        return len(iterable)
    except Exception:  # iterators have none, and sparse matrices raise
        return 0


class ItemColumn:
    """One of the iterables, as an input of a call: it has the methods of `InputArray`."""

    as_object = True
    scalars = False
    element = None
    run_end: int | None = None
    row_bytes = 8

    def __init__(self, feed: ItemSequence | ItemStream, k: int) -> None:
        self._feed = feed
        self._k = k

    @property
    def loaded(self) -> bool:
        """True if any item is there at any time."""
        return isinstance(self._feed, ItemSequence)

    def layout(self, count: int) -> Layout:
        """Layout of a run of items."""
        return Layout("ndarray", _OBJECT, True, (count,), (8,))

    def address(self, lo: int) -> int:
        """No address matters to objects."""
        return 0

    def objects(self, lo: int, hi: int, layout: Layout) -> np.ndarray:
        """The items ``lo:hi``, for another process."""
        # At C speed; `fromiter` keeps lists and arrays as objects.
        return np.fromiter(self._feed.items(self._k, lo, hi), object, hi - lo)

    def private(self, lo: int, hi: int, layout: Layout | None = None) -> Sequence[Any]:
        """The items ``lo:hi``, for a call in this process."""
        return self._feed.items(self._k, lo, hi)
