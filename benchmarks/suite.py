"""The cases that asv follows over time, each with the plain loop beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from .base import Case, TimedCase
from .memory import PeakMemory
from .work import NOMINAL, Element, burn_unevenly, rows, smooth, vector

ROW_LENGTH = 25_000


class Dispatch(TimedCase):
    """Many calls in a row, with elements of 20 us; 250 of them are worth workers."""

    params = ((10, 250),)
    param_names = ("elements",)
    small_params = ((10,),)
    calls = 20

    def work(self, elements: int) -> tuple[Element, np.ndarray]:
        return NOMINAL.burner(20e-6), vector(elements)


class Compute(TimedCase):
    """One call with elements of 20 us, all of it pure Python."""

    params = ((5_000,),)
    param_names = ("elements",)
    small_params = ((50,),)

    def work(self, elements: int) -> tuple[Element, np.ndarray]:
        return NOMINAL.burner(20e-6), vector(elements)


class Tiny(TimedCase):
    """One call with elements of 0.4 us."""

    params = ((100, 100_000),)
    param_names = ("elements",)
    small_params = ((10, 100),)

    def work(self, elements: int) -> tuple[Element, np.ndarray]:
        return NOMINAL.burner(0.4e-6), vector(elements)


class Data(TimedCase):
    """One call with rows of 200 kB, and little to do for each."""

    params = (("sort", "smooth"), (400,))
    param_names = ("function", "rows")
    small_params = (("sort", "smooth"), (4,))

    def work(self, function: str, count: int) -> tuple[Element, np.ndarray]:
        return {"sort": np.sort, "smooth": smooth}[function], rows(count, ROW_LENGTH)


class Uneven(TimedCase):
    """One call with a few elements of very different length, from 0.1 to 0.4 s."""

    params = ((0.4,),)
    param_names = ("longest",)
    small_params = ((0.004,),)

    def work(self, longest: float) -> tuple[Element, np.ndarray]:
        array = np.random.default_rng(0).uniform(0.1, 0.4, 6)
        return functools.partial(burn_unevenly, steps_per_unit=NOMINAL.steps(longest / 0.4)), array


class Memory(Case):
    """Peak memory of a call beyond its input and output, in this process and all its descendants."""

    params = ((400,),)
    param_names = ("rows",)
    small_params = ((4,),)
    unit = "MiB"

    def work(self, count: int) -> tuple[Element, np.ndarray]:
        return np.sort, rows(count, ROW_LENGTH)

    def track_loop(self, count: int) -> float:
        return _mebibytes_beyond(self.loop)

    def track_parwise(self, count: int) -> float:
        self.parwise()  # the first call starts the workers
        return _mebibytes_beyond(self.parwise)


def _mebibytes_beyond(call: Callable[[], np.ndarray]) -> float:
    with PeakMemory() as peak:
        out = call()
    return (peak.beyond - out.nbytes) / 2**20
