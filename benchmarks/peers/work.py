"""The work that is measured: element functions, and the plain loop over them."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Processes in every benchmark. Figures of different numbers are not to be compared: two are what small machines have.
WORKERS = int(os.environ.get("BENCHMARK_WORKERS", "2"))

#: A function of one element.
Element = Callable[[np.ndarray], object]


def loop(func: Element, array: np.ndarray) -> np.ndarray:
    """Apply `func` to one element after another: the base of all comparisons."""
    out = np.empty_like(array)
    for i, x in enumerate(array):
        out[i] = func(x)
    return out


def burn(x: float, steps: int) -> float:
    """Compute in pure Python for a time proportional to `steps`.

    The logistic map is chaotic, so that every element ends at bits of its own.
    """
    value = float(x)
    for _ in range(steps):
        value = 3.9 * value * (1.0 - value)
    return value


def burn_unevenly(x: float, steps_per_unit: float) -> float:
    """Compute in pure Python for a time proportional to `x`."""
    return burn(x, int(x * steps_per_unit))


def smooth(row: np.ndarray) -> np.ndarray:
    """Smooth a row with three taps; its ends stay as they are."""
    out = row.copy()
    out[1:-1] = 0.25 * row[:-2] + 0.5 * row[1:-1] + 0.25 * row[2:]
    return out


def vector(count: int) -> np.ndarray:
    """Numbers between 0 and 1, the same ones each time."""
    return np.random.default_rng(0).random(count)


def rows(count: int, length: int) -> np.ndarray:
    """Rows of numbers between 0 and 1, the same ones each time."""
    return np.random.default_rng(0).random((count, length))


@dataclass(frozen=True)
class Pace:
    """How long `burn` takes.

    Parameters
    ----------
    call : float
        Seconds for a call of no steps.
    step : float
        Seconds for each step.
    """

    call: float
    step: float

    def steps(self, seconds: float) -> int:
        """Return the number of steps that take so long."""
        return max(0, round((seconds - self.call) / self.step))

    def burner(self, seconds: float) -> Element:
        """Return an element function that takes so long."""
        return functools.partial(burn, steps=self.steps(seconds))


#: Fixed, so that the same work is done at every commit; near to what a server
#: of the early 2020s with CPython 3.11 needs.
NOMINAL = Pace(call=0.26e-6, step=0.037e-6)


def calibrate() -> Pace:
    """Measure how long `burn` takes on this machine."""
    steps = 1000
    call = _fastest(functools.partial(burn, steps=0))
    return Pace(call, (_fastest(functools.partial(burn, steps=steps)) - call) / steps)


def _fastest(func: Element, trials: int = 50, calls: int = 50) -> float:
    """Least time of a call: whatever else runs on the machine only adds to it."""
    x = np.float64(0.3)
    seconds = []
    for _ in range(trials):
        start = time.perf_counter()
        for _ in range(calls):
            func(x)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / calls
