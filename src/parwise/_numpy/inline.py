"""First elements of a vectorized function, computed in the calling thread: most calls need no workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import islice, repeat
from typing import Any

import numpy as np

from .._clock import perf_counter
from .._core.options.settings import Settings

# Workers gain nothing if one element takes less time than pickling its arguments, or if the rest of the call is short.
CHEAP_SECONDS = 0.5e-6
LEFT_SECONDS = 0.002
# As CHEAP_SECONDS, for batches of fewer than MIN_BATCH elements: the first calls of any function are slow.
LONG_SECONDS = 20e-6
# A first element that takes longer than this shows that workers are needed.
QUICK_SECONDS = 100e-6
# If no element was timed, the caller starts alone only with this many elements per worker: it then matters little that
# all workers wait for the first one.
ELEMENTS_PER_WORKER = 16
# Elements between two readings of the clock, at least and at most: a slow element is noticed only at the next reading.
MIN_BATCH, MAX_BATCH = 16, 256


def should_start_inline(settings: Settings, count: int, seconds: float | None) -> bool:
    """Return True if the caller should compute the first elements before workers are asked.

    `seconds` is the duration of the call for the first element, if it was made.
    """
    if settings.needs_runner:
        return False
    if seconds is not None:
        return seconds < QUICK_SECONDS
    return count >= ELEMENTS_PER_WORKER * (settings.workers or os.cpu_count() or 1)


class InlineCalls:
    """Calls of a function for the elements of 1-D object arrays, one after another, until workers would help."""

    def __init__(
        self, func: Callable[..., Any], arrays: list[np.ndarray], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._count = len(arrays[0])
        # `map` is as fast as a ufunc. If the function raises, `results` still has all results before that element.
        self._calls = map(partial(func, **kwargs) if kwargs else func, *arrays, *map(repeat, args))
        self.results: list[Any] = []

    def run(self) -> None:
        """Call the function until workers are worth it, no element is left, or the function raises."""
        results, clock = self.results, perf_counter
        batch, was_slow = 1, False
        start = clock()
        while len(results) < self._count:
            stop = min(len(results) + batch, self._count)
            results.extend(islice(self._calls, batch))
            if len(results) < stop:  # `map` ends if the function raises StopIteration
                raise StopIteration
            now = clock()
            seconds, start = (now - start) / batch, now
            # The first calls are slow whatever the function, so a small batch says little about a fast one. A single
            # slow batch may have waited for the CPU.
            slow = seconds > (CHEAP_SECONDS if batch >= MIN_BATCH else LONG_SECONDS)
            if slow and (was_slow or batch < MIN_BATCH) and seconds * (self._count - stop) > LEFT_SECONDS:
                return
            was_slow = slow
            batch = min(stop, MIN_BATCH if slow else max(MIN_BATCH, min(MAX_BATCH, stop // 8)))
