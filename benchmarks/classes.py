"""Classes of a script, with a large global, beside forked processes: ``python -m benchmarks.classes``.

The executor of `concurrent.futures` forks anew for each call, so that its processes have the class already. All run in
turn in one process, for several rounds; ratios are those of medians.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from parwise import Pool, parallel_imap, parallel_map

from .peers.work import WORKERS, burn

#: A global that a method uses: 40 MB.
TABLE = np.random.default_rng(0).random(5_000_000)


class Model:
    """A class of the script, whose instances are items and results."""

    def __init__(self, start: int, value: float = 0.0) -> None:
        self.start, self.value = start, value

    def fitted(self, steps: int) -> Model:
        """Compute for a time proportional to `steps`, with a number from the table."""
        return Model(self.start, burn(float(TABLE[self.start]), steps))


def fit(model: Model, steps: int) -> Model:
    """Call the method: the function that is mapped."""
    return model.fitted(steps)


def forked(func: Callable[[Model], Model], models: list[Model]) -> list[Model]:
    """Map in processes that are forked for this call."""
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork")) as executor:
        return list(executor.map(func, models))


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Measure, print and return medians in seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="times that each runs (default: 5)")
    parser.add_argument("--count", type=int, default=200, help="number of items (default: 200)")
    parser.add_argument("--steps", type=int, default=200_000, help="work for each item (default: 200000)")
    given = parser.parse_args(argv)
    models, func = [Model(k) for k in range(given.count)], functools.partial(fit, steps=given.steps)
    pool = Pool(WORKERS)
    calls: dict[str, Callable[[], list[Model]]] = {
        "loop": lambda: list(map(func, models)),
        "concurrent.futures, forked": lambda: forked(func, models),
        "parallel_map": lambda: parallel_map(func, models, workers=WORKERS),
        "parallel_map, isolated": lambda: parallel_map(func, models, workers=WORKERS, isolate=True),
        "parallel_imap": lambda: list(parallel_imap(func, models, workers=WORKERS)),
        "Pool.map": lambda: list(pool.map(func, models)),
    }
    with pool:
        medians = in_turn(calls, given.rounds)
    for name, median in medians.items():
        ratio = median / medians["concurrent.futures, forked"]
        print(f"{name}: {1e3 * median:.0f} ms, {ratio:.2f} times the forked executor's")
    return medians


def in_turn(calls: dict[str, Callable[[], list[Model]]], rounds: int) -> dict[str, float]:
    """Median time of each call; all must give instances of the caller's class."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        values = set()
        for name, call in calls.items():
            start = time.perf_counter()
            results = call()
            seconds[name].append(time.perf_counter() - start)
            assert {type(one) for one in results} == {Model}, "not the caller's class"
            values.add(tuple(one.value for one in results))
        assert len(values) == 1, "not the same results"
    return {name: statistics.median(taken) for name, taken in seconds.items()}


if __name__ == "__main__":
    main()
