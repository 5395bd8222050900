"""Where a worker is: the element at hand, for whoever finds it dead."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import numpy as np

NOWHERE = -1
#: Bytes of shared memory that a mark takes.
CURSOR_BYTES = 5 * 8
_INDEX, _SINCE, _SLOT, _COUNT, _BLANK = range(5)


class Cursor:
    """The element that a worker is at, seen from either side.

    To write it down costs 80 ns an element, which is much beside a function of
    400. So where results are numbers of 8 bytes, they are put in their slot one
    by one, which nothing else costs less than, over a pattern that no result
    has: the first of those left is the element at hand.

    Parameters
    ----------
    memory : memoryview
        `CURSOR_BYTES` of shared memory.
    outputs : list of memoryview
        Slots for results, in shared memory too.

    Attributes
    ----------
    slot : int
        Where results of the task at hand may go, or -1.
    """

    def __init__(self, memory: memoryview, outputs: list[memoryview]) -> None:
        self._words = memory.cast("q")
        self._outputs = outputs
        # 64 random bits: no result of a function is the same, but once in an age of the universe.
        self._blank = int.from_bytes(os.urandom(8), "little", signed=True)
        self.slot = NOWHERE

    @property
    def index(self) -> int:
        """The element at hand, or -1."""
        words = self._words
        index, count = words[_INDEX], words[_COUNT]
        if index < 0 or not count:
            return index
        blank, results = words[_BLANK], self._outputs[words[_SLOT]][: 8 * count].cast("q")
        return index + bisect_left(range(count), True, key=lambda k: results[k] == blank)

    @property
    def since(self) -> float:
        """When the worker came to that element, by the monotonic clock, in seconds, if that is kept."""
        return self._words[_SINCE] * 1e-9

    def leave(self) -> None:
        """No element is at hand."""
        self._words[_INDEX] = NOWHERE
        self._words[_COUNT] = 0

    def enter(self, index: int) -> None:
        """Element `index` is at hand from now on."""
        words = self._words
        # The time first, so that no element has an earlier one's.
        words[_SINCE], words[_INDEX] = time.monotonic_ns(), index
        words[_COUNT] = 0

    def follow(self, calls: Iterator[Any], index: int, timed: bool) -> Iterator[Any]:
        """The same results, with the mark at the element that is being computed, `index` for the first."""
        self.enter(index)
        words = self._words
        if timed:
            for at, result in enumerate(calls, index + 1):
                words[_SINCE], words[_INDEX] = time.monotonic_ns(), at
                yield result
        else:
            for words[_INDEX], result in enumerate(calls, index + 1):
                yield result

    def fill_pattern(self, count: int, dtype: type) -> np.ndarray | None:
        """Memory for `count` results of 8 bytes, from the element at hand on, which tells how far they came.

        None if there is none that others see.
        """
        if self.slot < 0 or 8 * count > len(self._outputs[self.slot]):
            return None
        memory = self._outputs[self.slot][: 8 * count]
        np.frombuffer(memory, np.int64).fill(self._blank)
        words = self._words
        words[_BLANK], words[_SLOT] = self._blank, self.slot
        words[_COUNT] = count
        return np.frombuffer(memory, dtype)
