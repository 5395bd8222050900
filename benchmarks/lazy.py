"""Set lazy ``.par.map`` beside `xarray.apply_ufunc` on Dask's blocks: ``python -m benchmarks.lazy``.

Both run in turn in one process, in threads of Dask; figures are medians. Each chunk has little to compute, so that
what is seen is what a chunk costs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr

import parwise.xarray  # noqa: F401 - has .par

from .peers.work import WORKERS


class Cost(NamedTuple):
    """Tasks in the graph before and after Dask's optimizer, and seconds to make, optimize and compute it."""

    tasks: float
    optimized: float
    build: float
    optimize: float
    compute: float


def total(values: np.ndarray) -> Any:
    """Stand for a cheap function."""
    return values.sum()


def per_element(array: xr.DataArray) -> dict[str, Callable[[], xr.DataArray]]:
    """One call for each pixel."""
    return {
        "xarray": lambda: xr.apply_ufunc(
            total, array, input_core_dims=[["time"]], vectorize=True, dask="parallelized", output_dtypes=[float]
        ),
        "parwise": lambda: array.par.map(total, ("y", "x"), output_dtypes=float, output_core_dims=[]),
    }


def per_block(array: xr.DataArray) -> dict[str, Callable[[], xr.DataArray]]:
    """One call for each block of rows."""
    return {
        "xarray": lambda: xr.apply_ufunc(np.negative, array, dask="parallelized", output_dtypes=[float]),
        "parwise": lambda: array.par.map(
            np.negative, "y", vectorized=True, chunk=array.chunksizes["y"][0], output_dtypes=float
        ),
    }


def cost(call: Callable[[], xr.DataArray]) -> tuple[Cost, np.ndarray]:
    """Cost of one lazy map, and its result."""
    begun = time.perf_counter()
    lazy = call().data
    built = time.perf_counter()
    (optimized,) = dask.optimize(lazy)
    done = time.perf_counter()
    result = optimized.compute(optimize_graph=False)
    end = time.perf_counter()
    tasks, left = (len(dict(one.__dask_graph__())) for one in (lazy, optimized))
    return Cost(tasks, left, built - begun, done - built, end - done), result


def in_turn(calls: dict[str, Callable[[], xr.DataArray]], rounds: int) -> dict[str, Cost]:
    """Medians of each call, after one that does not count; all must give the same bits."""
    found: dict[str, list[Cost]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        results = set()
        for name, call in calls.items():
            one, result = cost(call)
            results.add(result.tobytes())
            if number:
                found[name].append(one)
        assert len(results) == 1, "not the same bits"
    return {
        name: Cost(*(statistics.median(column) for column in zip(*each, strict=True))) for name, each in found.items()
    }


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Cost]]:
    """Measure, print and return medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lazy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times that each runs (default: 3)")
    parser.add_argument("--side", type=int, default=100, help="chunks along each of two dimensions (default: 100)")
    given = parser.parse_args(argv)
    side = given.side
    pixels = xr.DataArray(da.ones((2 * side, 2 * side, 10), chunks=(2, 2, 10)), dims=("y", "x", "time"))
    rows = xr.DataArray(da.ones((20 * side, 1000), chunks=(2, 1000)), dims=("y", "x"))
    cases = {
        f"{side**2} chunks of 4 pixels": (per_element(pixels), side**2),
        f"{10 * side} blocks of 2 rows": (per_block(rows), 10 * side),
    }
    result = {}
    with ThreadPoolExecutor(WORKERS) as threads, dask.config.set(scheduler="threads", pool=threads):
        for title, (calls, chunks) in cases.items():
            result[title] = medians = in_turn(calls, given.rounds)
            print(title)
            for name, one in medians.items():
                print(
                    f"  {name:<8} {one.tasks:.0f} tasks, {one.optimized:.0f} once optimized; "
                    f"made in {1e3 * one.build:.1f} ms, optimized in {1e3 * one.optimize:.0f} ms, "
                    f"computed in {1e3 * one.compute / chunks:.3f} ms a chunk"
                )
    return result


if __name__ == "__main__":
    main()
