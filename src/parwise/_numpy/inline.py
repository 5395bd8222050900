"""The first elements of a vectorized function, called as plainly as can be: many calls end there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from itertools import islice, repeat
from typing import Any

import numpy as np

from .._core.settings import Settings

# Workers gain nothing where the function takes less than its arguments' pickling, or so little is left.
CHEAP_SECONDS = 0.5e-6
LEFT_SECONDS = 0.002
LONG_SECONDS = 20e-6
# A first call that takes longer than this has shown that workers are needed.
QUICK_SECONDS = 100e-6
# If there was none: so many elements for each worker make it unimportant that it waits for one.
ELEMENTS_EACH = 16
# Elements between two looks at the clock: a function that is slow from some element on is noticed late.
FEW, MANY = 16, 256


def is_worth_a_try(settings: Settings, count: int, seconds: float | None) -> bool:
    """Whether the caller should begin by itself.

    Parameters
    ----------
    settings : Settings
    count : int
        Elements.
    seconds : float, optional
        How long the function took for the first one.
    """
    if settings.needs_runner:
        return False
    if seconds is not None:
        return seconds < QUICK_SECONDS
    return count >= ELEMENTS_EACH * (settings.workers or os.cpu_count() or 1)


class InlineCalls:
    """Calls a function for one element after another, as long as workers would be no help.

    Parameters
    ----------
    func : callable
    arrays : list of ndarray
        Objects, in one dimension.
    args, kwargs : tuple and dict
        What every call gets behind an element of each.

    Attributes
    ----------
    results : list
        What the function gave so far.
    """

    def __init__(
        self, func: Callable[..., Any], arrays: list[np.ndarray], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._count = len(arrays[0])
        # This is as fast as a ufunc, and keeps what there is when the function raises.
        self._calls = map(partial(func, **kwargs) if kwargs else func, *arrays, *map(repeat, args))
        self.results: list[Any] = []

    def run(self) -> None:
        """Go on until workers are worth it, nothing is left, or the function raises."""
        results, clock = self.results, time.perf_counter
        batch, suspicious = 1, False
        begun = clock()
        while len(results) < self._count:
            stop = min(len(results) + batch, self._count)
            results.extend(islice(self._calls, batch))
            if len(results) < stop:  # `map` takes a StopIteration from the function for its own end
                raise StopIteration
            now = clock()
            pace, begun = (now - begun) / batch, now
            # Few elements tell little of short ones: the first time everything
            # is slow. And one run of them may have had to wait for the CPU.
            slow = pace > (CHEAP_SECONDS if batch >= FEW else LONG_SECONDS)
            if slow and (suspicious or batch < FEW) and pace * (self._count - stop) > LEFT_SECONDS:
                return
            suspicious = slow
            batch = min(stop, FEW if slow else max(FEW, min(MANY, stop // 8)))
