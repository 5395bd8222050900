"""The cost of progress and reports: the same call plain, with a progress function, and within a report, in turn.

Run it as ``python -m benchmarks.observer_cost``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np

import parwise

from .peers.work import WORKERS, Element, calibrate, vector

WATCHES = ("plain", "progress", "report")


def watched(watch: str, func: Element, array: np.ndarray) -> np.ndarray:
    """Make one call in one of these ways."""
    if watch == "report":
        with parwise.report():
            return parwise.parallel_apply(func, array, workers=WORKERS)
    return parwise.parallel_apply(func, array, workers=WORKERS, progress=_look if watch == "progress" else None)


def _look(done: int, total: int | None) -> None:
    """Stands in for what a user does with it."""


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Compare, print, and return each way's time as a multiple of the plain call's, by medians."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.observer_cost")
    parser.add_argument("--elements", type=int, default=20_000)
    parser.add_argument("--microseconds", type=float, default=20.0, help="that each element takes")
    parser.add_argument("--calls", type=int, default=1, help="that are timed together")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args(arguments)
    func, array = calibrate().burner(given.microseconds * 1e-6), vector(given.elements)
    seconds: dict[str, list[float]] = {watch: [] for watch in WATCHES}
    # Of this process, where all that watching costs is spent; other programs disturb that less.
    busy: dict[str, list[float]] = {watch: [] for watch in WATCHES}
    watched("plain", func, array)  # starts the workers
    for number in range(given.rounds):
        # Each comes first in a third of the rounds.
        for watch in np.roll(WATCHES, number).tolist():
            begun, used = time.perf_counter(), time.process_time()
            for _ in range(given.calls):
                watched(watch, func, array)
            seconds[watch].append(time.perf_counter() - begun)
            busy[watch].append(time.process_time() - used)
    medians = {watch: statistics.median(each) / given.calls for watch, each in seconds.items()}
    best = {watch: min(each) / given.calls for watch, each in seconds.items()}
    cpu = {watch: statistics.median(each) / given.calls for watch, each in busy.items()}
    plain, least, own = (1e3 * each["plain"] for each in (medians, best, cpu))
    print(f"plain     {plain:.3f} ms (at best {least:.3f}), of which CPU here {own:.3f} ms")
    ratios = {watch: medians[watch] / medians["plain"] for watch in WATCHES[1:]}
    for watch, ratio in ratios.items():
        more = (cpu[watch] - cpu["plain"]) / best["plain"]
        print(
            f"{watch:<10}{ratio:.4f} times the plain call's time (at best {best[watch] / best['plain']:.4f}), "
            f"and {more:+.2%} of it as CPU here"
        )
    return ratios


if __name__ == "__main__":
    main()
