"""Items of any kind, from sequences and iterators, seen as arrays of objects."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sized
from operator import itemgetter
from typing import Any

import numpy as np

from .layout import Layout

#: Length of what has not come to its end yet.
ENDLESS = 2**62

# Items that are taken from an iterator before they are needed: while the caller
# computes one, workers have these. Not if each takes so long to come: a result
# is not to wait for items behind it.
LOOK_AHEAD = 8
SLOW_SECONDS = 0.050
# So long, about, items are taken for one task: with a function faster than they
# come, 40 ms of its work could be all there are, or more than the memory holds.
TAKING_SECONDS = 0.004

_OBJECT = np.dtype(object)


class ItemFeed:
    """Items of some iterables in step, taken from them no sooner than needed.

    They are taken by the thread that made this, and by no other unless that is
    asked for: a generator may hold what belongs to its thread.

    Parameters
    ----------
    iterables : tuple of iterable
    any_thread : bool
        Whether others may take them too, one at a time.
    keep : bool
        Whether to keep items whose results are there.

    Attributes
    ----------
    count : int
        How many there are: `ENDLESS` until that is known.
    limit : int
        So many are taken for now.
    error : BaseException or None
        What an iterator raised.
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
        # Whether the last item was long in coming.
        self._slow = False
        self.limit = ENDLESS
        self.count = (
            lengths.pop() if len(lengths) == 1 and all(isinstance(one, Sized) for one in iterables) else ENDLESS
        )
        self.error: BaseException | None = None

    def fill(self, stop: int, least: int | None = None) -> int:
        """Have the items before `stop` ready, and tell how many there are: fewer at the end, or in another thread.

        Those behind `least` may be left for later, if they are long in coming.
        """
        if self._thread in (None, threading.get_ident()):
            self._fill(min(stop, self.count, self.limit), stop if least is None else least)
        return min(stop, self._taken)

    def _fill(self, stop: int, least: int) -> None:
        size, begun, clock = 1, time.perf_counter(), time.perf_counter
        now = begun
        while self._taken < min(stop, self.count):
            ahead = self._taken - least
            if ahead >= 0 and (self._slow or (ahead >= LOOK_AHEAD and now - begun > TAKING_SECONDS)):
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
            # What came before an error is there.
            while taken < stop and taken in items:
                taken += 1
            self._taken = taken
            if taken < stop:
                self.count = taken

    def adopt_thread(self) -> None:
        """Take items in this thread from now on."""
        if self._thread is not None:
            self._thread = threading.get_ident()

    def column(self, k: int, lo: int, hi: int) -> np.ndarray:
        """Items ``lo:hi`` of one iterable."""
        self.fill(hi)
        # At C speed, 60 ns for each; `fromiter` keeps lists and arrays as objects.
        return np.fromiter(map(itemgetter(k), map(self._items.__getitem__, range(lo, hi))), object, hi - lo)

    def drop(self, lo: int, hi: int) -> None:
        """Let go of items whose results are there; the first is kept, to compare workers with."""
        for index in range(max(1, lo), 0 if self._keep else hi):
            self._items.pop(index, None)


def _length(iterable: Any) -> str:
    return f"{len(iterable)}" if isinstance(iterable, Sized) else f"unknown ({type(iterable).__name__})"


class ItemColumn:
    """One of the iterables, as an input of a call."""

    as_object = True
    scalars = False
    run_end: int | None = None
    row_bytes = 8

    def __init__(self, feed: ItemFeed, k: int) -> None:
        self._feed = feed
        self._k = k

    @property
    def loaded(self) -> bool:
        """Whether all items can be looked at."""
        return self._feed.count < ENDLESS

    def layout(self, count: int) -> Layout:
        """Geometry of a run of items."""
        return Layout("ndarray", _OBJECT, True, (count,), (8,))

    def address(self, lo: int) -> int:
        """Objects lie anywhere."""
        return 0

    def objects(self, lo: int, hi: int, layout: Layout) -> np.ndarray:
        """Items ``lo:hi``."""
        return self._feed.column(self._k, lo, hi)

    def private(self, lo: int, hi: int, layout: Layout | None = None) -> np.ndarray:
        """Items ``lo:hi``: the user's own objects, as in the plain loop."""
        return self._feed.column(self._k, lo, hi)
