"""Set ``.par`` beside xarray's own loops: ``python -m benchmarks.labelled``.

All run in turn in one process, for several rounds; ratios are those of medians.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import xarray as xr

import parwise.xarray  # noqa: F401 - has .par
from parwise import parallel_apply
from parwise._xarray import request

from .peers.work import WORKERS, burn

DAYS = np.arange("2001-01-01", "2002-01-01", dtype="M8[D]").astype("M8[ns]")


def make_cube(days: int, side: int) -> xr.DataArray:
    """Noise with a yearly cycle, on a grid."""
    phase = 2 * np.pi * np.arange(days) / 365.25
    values = np.random.default_rng(0).standard_normal((days, side, side)) + np.cos(phase)[:, None, None]
    coords = {"time": DAYS[:days], "lat": np.linspace(-90, 90, side), "lon": np.arange(side) * 360 / side}
    return xr.DataArray(values, coords, ("time", "lat", "lon"), name="t2m", attrs={"units": "K"})


def trend(series: np.ndarray) -> float:
    """Fit a straight line: 0.1 ms for a year of days."""
    slope: float = np.polyfit(np.arange(len(series)), series, 1)[0]
    return slope


def pixels(cube: xr.DataArray) -> dict[str, Callable[[], np.ndarray]]:
    """One call per pixel: xarray's loop, ``.par`` and what that is built on."""
    return {
        "xarray": lambda: xr.apply_ufunc(trend, cube, input_core_dims=[["time"]], vectorize=True).to_numpy(),
        "parwise": lambda: cube.par.map(trend, ("lat", "lon"), workers=WORKERS).to_numpy(),
        "parallel_apply": lambda: parallel_apply(trend, cube.data, axis=(1, 2), workers=WORKERS),
    }


def groups(array: xr.DataArray, name: str, func: Callable[..., Any]) -> dict[str, Callable[[], np.ndarray]]:
    """One call per group."""
    return {
        "xarray": lambda: array.groupby(name).map(func).to_numpy(),
        "parwise": lambda: array.par.map_groups(func, name, workers=WORKERS).to_numpy(),
    }


def mean(group: xr.DataArray) -> xr.DataArray:
    """Take the mean over the first dimension: as little work as there is."""
    return group.mean(group.dims[0])


def slow_mean(group: xr.DataArray, steps: int) -> xr.DataArray:
    """Take the mean, and more time than that needs."""
    return mean(group) + 0 * burn(0.3, steps)


def make_series(count: int, days: int) -> xr.DataArray:
    """A series in many groups of some days each."""
    values = np.random.default_rng(0).standard_normal(count * days)
    return xr.DataArray(values, {"station": ("time", np.arange(count * days) % count)}, ("time",), name="rain")


def in_turn(calls: dict[str, Callable[[], np.ndarray]], rounds: int) -> dict[str, float]:
    """Median time of each call, after one that does not count; all must give the same bits."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        found = set()
        for name, call in calls.items():
            start = time.perf_counter()
            out = call()
            elapsed = time.perf_counter() - start
            found.add(out.tobytes())
            if number:
                seconds[name].append(elapsed)
        assert len(found) == 1, "not the same bits"
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def overhead(cube: xr.DataArray, rounds: int) -> float:
    """Median time that ``.par.map`` takes beside the computation itself.

    Too little to be seen in a difference of two calls of seconds: what is
    within the call is measured, and taken from the whole.
    """
    inside = 0.0
    compute = request.compute

    def timed(call: Any) -> Any:
        nonlocal inside
        start = time.perf_counter()
        try:
            return compute(call)
        finally:
            inside = time.perf_counter() - start

    seconds = []
    with mock.patch.object(request, "compute", timed):
        for _ in range(rounds):
            start = time.perf_counter()
            cube.par.map(np.ptp, ("lat", "lon"), workers=WORKERS)
            seconds.append(time.perf_counter() - start - inside)
    return statistics.median(seconds)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure, print and return medians in seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labelled", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="times that each runs (default: 5)")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that all works")
    given = parser.parse_args(argv)
    cube = make_cube(20, 5) if given.small else make_cube(365, 200)
    few, many = make_series(5, 20), make_series(20 if given.small else 2000, 10)
    slow = functools.partial(slow_mean, steps=100 if given.small else 100_000)
    cases = {
        "a line fitted to each pixel": pixels(cube),
        "12 months of days, mean": groups(cube, "time.month", mean),
        "5 small groups, mean": groups(few, "station", mean),
        "2000 small groups, mean": groups(many, "station", mean),
        "200 groups, 4 ms each": groups(many[:200], "station", slow),
    }
    result = {title: in_turn(calls, given.rounds) for title, calls in cases.items()}
    for title, medians in result.items():
        told = ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in medians.items())
        print(f"{title}: {told}; {medians['xarray'] / medians['parwise']:.2f} times xarray's speed")
    result["overhead"] = {"parwise": overhead(cube, 4 * given.rounds)}
    print(f"beyond the computation itself: {1e3 * result['overhead']['parwise']:.2f} ms a call")
    return result


if __name__ == "__main__":
    main()
