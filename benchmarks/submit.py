"""Short calls, one by one: `Pool.submit` beside the executor of the standard library, in turn.

Run it as ``python -m benchmarks.submit``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor

import parwise

from .peers.work import WORKERS


def nothing() -> None:
    """Stands for the shortest call."""


def submit_all(executor: Executor, calls: int) -> tuple[float, float]:
    """Submit calls and wait for all results; return the seconds of a call, and those of this process's CPU."""
    begun, used = time.perf_counter(), time.process_time()
    futures = [executor.submit(nothing) for _ in range(calls)]
    assert [future.result() for future in futures] == [None] * calls
    return (time.perf_counter() - begun) / calls, (time.process_time() - used) / calls


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Compare, print, and return the seconds of a call by each executor, by medians."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.submit")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args(arguments)
    found: dict[str, list[tuple[float, float]]] = {}
    forked = ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork"))
    with forked, parwise.Pool(WORKERS) as pool:
        executors = {"ProcessPoolExecutor": forked, "parwise.Pool": pool}
        for executor in executors.values():
            submit_all(executor, 2 * WORKERS)  # starts the workers
        for number in range(given.rounds):
            for name in list(executors)[:: 1 if number % 2 else -1]:
                found.setdefault(name, []).append(submit_all(executors[name], given.calls))
    medians = {name: statistics.median(seconds for seconds, _ in each) for name, each in found.items()}
    for name, each in found.items():
        low, high = min(each)[0], max(each)[0]
        cpu = statistics.median(used for _, used in each)
        print(
            f"{name:<20} {1e6 * medians[name]:.0f} us a call ({1e6 * low:.0f} to {1e6 * high:.0f}), "
            f"of which CPU here {1e6 * cpu:.0f} us"
        )
    ours, theirs = medians["parwise.Pool"], medians["ProcessPoolExecutor"]
    print(f"parwise takes {ours / theirs:.2f} times the time of the standard library's executor")
    return medians


if __name__ == "__main__":
    main()
