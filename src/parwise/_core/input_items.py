"""Items of lists and iterators, as arrays of objects."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sized
from operator import itemgetter
from typing import Any

import numpy as np

from .layout import Layout

#: Length of an iterator that has not ended yet.
ENDLESS = 2**62

# Number of items that are read before they are needed: workers compute these
# while the caller computes one. Items slower than SLOW_SECONDS each are not read
# ahead: a result does not wait for items behind it.
LOOK_AHEAD = 8
SLOW_SECONDS = 0.050
# Seconds, about, spent on reading items for one task. If the function is faster
# than the iterator, the items for 40 ms of its work could be all of them, or more
# than memory holds.
READ_SECONDS = 0.004

_OBJECT = np.dtype(object)


class ItemFeed:
    """Items of some iterables in step, read only as they are needed.

    Only the thread that made the feed reads items, unless any thread may: a
    generator may hold objects of its thread.

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
    limit : int
        Index up to which items may be read for now.
    error : BaseException or None
        The exception that an iterator raised.
    """

    def __init__(self, iterables: tuple[Iterable[Any], ...], any_thread: bool, keep: bool) -> None:
        lengths = {len(one) for one in iterables if isinstance(one, Sized)}
        if len(lengths) > 1:
            raise ValueError(
                f"iterables differ in length: {', '.join(_length(one) for one in iterables)}; what every call is to "
                "get goes in args"
            )
        self._iterator = zip(*iterables, strict=True)
        self._items: dict[int, tuple[Any, ...]] = {}
        self._taken = 0
        self._thread = None if any_thread else threading.get_ident()
        self._keep = keep
        # True if the last items took more than SLOW_SECONDS each.
        self._slow = False
        self.limit = ENDLESS
        self.count = (
            lengths.pop() if len(lengths) == 1 and all(isinstance(one, Sized) for one in iterables) else ENDLESS
        )
        self.error: BaseException | None = None

    def fill(self, stop: int, least: int | None = None) -> int:
        """Read the items before `stop`; return the index up to which they have been read.

        That is less than `stop` at the end, and in a thread that may not read.
        Items from `least` on are left for later if they are slow.
        """
        if self._thread in (None, threading.get_ident()):
            self._fill(min(stop, self.count, self.limit), stop if least is None else least)
        return min(stop, self._taken)

    def _fill(self, stop: int, least: int) -> None:
        size, begun, clock = 1, time.perf_counter(), time.perf_counter
        now = begun
        while self._taken < min(stop, self.count):
            ahead = self._taken - least
            if ahead >= 0 and (self._slow or (ahead >= LOOK_AHEAD and now - begun > READ_SECONDS)):
                return
            self._read(min(stop, self._taken + size))
            before, now = now, clock()
            self._slow = now - before > SLOW_SECONDS * size
            size *= 2

    def _read(self, stop: int) -> None:
        items, taken = self._items, self._taken
        try:
            items.update(zip(range(taken, stop), self._iterator, strict=False))
        except Exception as error:
            self.error = error
        finally:
            # Items before the error have been read.
            while taken < stop and taken in items:
                taken += 1
            self._taken = taken
            if taken < stop:
                self.count = taken

    def adopt_thread(self) -> None:
        """Read items in this thread from now on."""
        if self._thread is not None:
            self._thread = threading.get_ident()

    def column(self, k: int, lo: int, hi: int) -> np.ndarray:
        """The items ``lo:hi`` of one iterable."""
        self.fill(hi)
        # At C speed, 60 ns for each; `fromiter` keeps lists and arrays as objects.
        return np.fromiter(map(itemgetter(k), map(self._items.__getitem__, range(lo, hi))), object, hi - lo)

    def drop(self, lo: int, hi: int) -> None:
        """Release items that have a result; the first is kept for the handshake."""
        for index in range(max(1, lo), 0 if self._keep else hi):
            self._items.pop(index, None)


def _length(iterable: Any) -> str:
    return f"{len(iterable)}" if isinstance(iterable, Sized) else f"unknown ({type(iterable).__name__})"


class ItemColumn:
    """One of the iterables, as an input of a call: it has the methods of `InputArray`."""

    as_object = True
    scalars = False
    run_end: int | None = None
    row_bytes = 8

    def __init__(self, feed: ItemFeed, k: int) -> None:
        self._feed = feed
        self._k = k

    @property
    def loaded(self) -> bool:
        """True if the number of items is known."""
        return self._feed.count < ENDLESS

    def layout(self, count: int) -> Layout:
        """Layout of a run of items."""
        return Layout("ndarray", _OBJECT, True, (count,), (8,))

    def address(self, lo: int) -> int:
        """No address matters to objects."""
        return 0

    def objects(self, lo: int, hi: int, layout: Layout) -> np.ndarray:
        """The items ``lo:hi``."""
        return self._feed.column(self._k, lo, hi)

    def private(self, lo: int, hi: int, layout: Layout | None = None) -> np.ndarray:
        """The items ``lo:hi``: the user's own objects, as in the plain loop."""
        return self._feed.column(self._k, lo, hi)
