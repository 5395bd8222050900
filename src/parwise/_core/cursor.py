"""Cursor in shared memory: the index being computed, readable after the worker has died."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._clock import monotonic_ns

NOWHERE = -1
#: Bytes of shared memory that a cursor takes.
CURSOR_BYTES = 6 * 8
_INDEX, _SINCE, _SLOT, _COUNT, _PATTERN, _CALL = range(6)


class Cursor:
    """The index of the element that a worker computes, which the caller can read.

    Writing the index costs 80 ns an element, which is much beside a function of
    400 ns. So results that are numbers of 8 bytes go to their slot one by one,
    which is the cheapest way to store them, over a pattern that no result has:
    the first pattern that is left marks the current element.

    Parameters
    ----------
    memory : memoryview
        `CURSOR_BYTES` of shared memory.
    outputs : list of memoryview
        Slots for results, also in shared memory.

    Attributes
    ----------
    slot : int
        Number of the slot for results of the current task, or -1.
    last : int
        The last element of the current task: past it the cursor is at the next one.
    """

    def __init__(self, memory: memoryview, outputs: list[memoryview]) -> None:
        self._words = memory.cast("q")
        self._outputs = outputs
        # 64 random bits: the chance that a result is the same is 5e-20.
        self._pattern = int.from_bytes(os.urandom(8), "little", signed=True)
        self.slot = self.last = NOWHERE

    @property
    def index(self) -> int:
        """The current element, or -1."""
        words = self._words
        index, count = words[_INDEX], words[_COUNT]
        if index < 0 or not count:
            return index
        pattern, results = words[_PATTERN], self._outputs[words[_SLOT]][: 8 * count].cast("q")
        return index + bisect_left(range(count), True, key=lambda k: results[k] == pattern)

    @property
    def element(self) -> int:
        """The element that what happens in this process now belongs to, or -1."""
        return min(self.index, self.last)

    @property
    def since(self) -> float:
        """When the worker began that element, in seconds of the monotonic clock; kept only for timed calls."""
        return self._words[_SINCE] * 1e-9

    @property
    def call(self) -> int:
        """Number of the call that the worker has begun to load last, or 0."""
        return abs(self._words[_CALL])

    @call.setter
    def call(self, number: int) -> None:
        self._words[_CALL] = number

    @property
    def loaded(self) -> bool:
        """True if the worker has loaded that call."""
        return self._words[_CALL] < 0

    def end_load(self) -> None:
        """Note that the worker has loaded the call."""
        self._words[_CALL] = -self.call

    def leave(self) -> None:
        """Note that no element is being computed."""
        self._words[_INDEX] = NOWHERE
        self._words[_COUNT] = 0

    def enter(self, index: int) -> None:
        """Note that element `index` is being computed from now on."""
        words = self._words
        # The time first, so that no index stands beside the time of an earlier element.
        words[_SINCE], words[_INDEX] = monotonic_ns(), index
        words[_COUNT] = 0

    def follow(self, calls: Iterator[Any], index: int, timed: bool) -> Iterator[Any]:
        """Yield the results of `calls` and keep the cursor at the element being computed, first at `index`."""
        self.enter(index)
        words = self._words
        if timed:
            for at, result in enumerate(calls, index + 1):
                words[_SINCE], words[_INDEX] = monotonic_ns(), at
                yield result
        else:
            for words[_INDEX], result in enumerate(calls, index + 1):
                yield result

    def fill_pattern(self, count: int, dtype: type) -> np.ndarray | None:
        """Fill memory for `count` results of 8 bytes with the pattern, and return it as an array.

        From then on the results themselves show which element is being computed.
        Returns None if no slot in shared memory is large enough.
        """
        if self.slot < 0 or 8 * count > len(self._outputs[self.slot]):
            return None
        memory = self._outputs[self.slot][: 8 * count]
        np.frombuffer(memory, np.int64).fill(self._pattern)
        words = self._words
        words[_PATTERN], words[_SLOT] = self._pattern, self.slot
        words[_COUNT] = count
        return np.frombuffer(memory, dtype)
