"""The cases that asv follows over time, each with the plain loop beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.observer_cost import WATCHES, watched
from benchmarks.peers.memory import PeakMemory
from benchmarks.peers.work import NOMINAL, WORKERS, Element, burn_unevenly, rows, smooth, vector
from parwise import parallel_apply, parallel_map

from .base import Case, TimedCase

if TYPE_CHECKING:
    import xarray as xr

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


class Handshake(TimedCase):
    """What it costs that one element is computed on both sides: warm workers, 20 us and 10 ms a piece."""

    params = (("default", "none"), ((20e-6, 5_000), (10e-3, 100)))
    param_names = ("verify", "seconds and elements")
    small_params = (("default", "none"), ((1e-6, 20),))

    def work(self, verify: str, elements: tuple[float, int]) -> tuple[Element, np.ndarray]:
        self.verify = {"default": None, "none": False}[verify]
        seconds, count = elements
        return NOMINAL.burner(seconds), vector(count)

    def parwise(self) -> np.ndarray:
        return parallel_apply(self.func, self.array, workers=WORKERS, verify=self.verify)


class Watched(TimedCase):
    """One call that is left alone, shows its progress, or is reported on; warm workers, 20 us a piece."""

    params = (WATCHES, (20_000,))
    param_names = ("watch", "elements")
    small_params = (WATCHES, (20,))

    def work(self, watch: str, elements: int) -> tuple[Element, np.ndarray]:
        self.watch = watch
        return NOMINAL.burner(20e-6), vector(elements)

    def parwise(self) -> np.ndarray:
        return watched(self.watch, self.func, self.array)


class Random(TimedCase):
    """A generator for each element, in this process: NumPy's own way, and parwise's."""

    params = ((20_000,),)
    param_names = ("elements",)
    small_params = ((20,),)

    def work(self, elements: int) -> tuple[Element, np.ndarray]:
        return _draw, vector(elements)

    def loop(self) -> np.ndarray:
        seeds = np.random.SeedSequence(0).spawn(len(self.array))
        drawn = zip(self.array, seeds, strict=True)
        return np.asarray([_draw(x, np.random.default_rng(seed)) for x, seed in drawn])

    def parwise(self) -> np.ndarray:
        return parallel_apply(_draw, self.array, rng=0, workers=1)


def _draw(x: float, rng: np.random.Generator) -> float:
    return x + rng.random()


class Items(TimedCase):
    """A function that takes less time than the transfer of its item: the call stays in this process."""

    params = (("range", "list", "generator", "records"), (2_000_000,))
    param_names = ("source", "items")
    small_params = (("range", "list", "generator", "records"), (20,))

    def work(self, source: str, items: int) -> tuple[Element, np.ndarray]:
        self.source = source
        return (lambda x: x + 1) if source != "records" else len, np.arange(items)

    def items(self) -> Any:
        """The items of one call."""
        numbers: Any = range(len(self.array))
        if self.source == "list":
            return self.array.tolist()
        if self.source == "generator":
            return (k for k in numbers)
        return numbers if self.source == "range" else ([k] for k in numbers)

    def loop(self) -> Any:
        func = self.func
        return [func(item) for item in self.items()]

    def parwise(self) -> Any:
        return parallel_map(self.func, self.items(), workers=WORKERS)


class Labelled(TimedCase):
    """One call per pixel of a cube with names: xarray's own vectorized loop, and parwise's."""

    params = ((365,), (60, 200))
    param_names = ("days", "side")
    small_params = ((5,), (3,))

    def work(self, days: int, side: int) -> tuple[Element, np.ndarray]:
        return _slope, np.random.default_rng(0).standard_normal((days, side, side))

    def cube(self) -> xr.DataArray:
        import xarray as xr  # only for this case: it takes long

        return xr.DataArray(self.array, dims=("time", "lat", "lon"))

    def loop(self) -> np.ndarray:
        import xarray as xr

        done = xr.apply_ufunc(self.func, self.cube(), input_core_dims=[["time"]], vectorize=True)
        return done.to_numpy()

    def parwise(self) -> np.ndarray:
        import parwise.xarray  # noqa: F401 - has .par

        return self.cube().par.map(self.func, ("lat", "lon"), workers=WORKERS).to_numpy()


def _slope(series: np.ndarray) -> float:
    return np.polyfit(np.arange(len(series)), series, 1)[0]


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
