"""How many workers one caller can feed: elements that sleep, so that the workers of a large machine fit a small one.

Run it as ``python -m benchmarks.scale``. The efficiency is the time that the elements sleep, divided by the number of
workers and by the time of the call. CPU is that of the caller, for each task that a worker was sent. Bare processes,
which have their share of the elements from the start and send nothing, show how efficient the machine lets any of them
be: to wake 64 processes each ms takes most of two CPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

import parwise


def rest(element: np.ndarray, seconds: float) -> float:
    """Stands for a function that takes so long."""
    time.sleep(seconds)
    return float(np.ravel(element)[0])


class Case(NamedTuple):
    """Elements, seconds that one sleeps, and its bytes."""

    count: int
    seconds: float
    nbytes: int


CASES = {"1 ms, 8 bytes": Case(64_000, 1e-3, 8), "10 ms, 100 kB": Case(6_400, 1e-2, 100_000)}


class Found(NamedTuple):
    """The efficiency of a call, the caller's CPU seconds for each task, and the number of tasks."""

    efficiency: float
    cpu: float
    tasks: int


def with_parwise(case: Case, array: np.ndarray, workers: int) -> Callable[[], int]:
    """A call of `parallel_apply`, which returns the number of tasks."""

    def call() -> int:
        with parwise.report() as report:
            parwise.parallel_apply(rest, array, args=(case.seconds,), workers=workers)
        return sum(row["tasks"] for row in report.to_dict()["calls"][0]["per_worker"])

    return call


def with_multiprocessing(pool: multiprocessing.pool.Pool, case: Case, array: np.ndarray) -> Callable[[], int]:
    """A call of `multiprocessing.Pool.map`, whose tasks are its chunks."""

    def call() -> int:
        workers: int = pool._processes  # type: ignore[attr-defined]
        chunk = -(-len(array) // (4 * workers))  # its own choice
        pool.map(functools.partial(rest, seconds=case.seconds), array, chunk)
        return -(-len(array) // chunk)

    return call


@contextlib.contextmanager
def bare_processes(case: Case, array: np.ndarray, workers: int) -> Iterator[Callable[[], int]]:
    """Forked processes, each with its share of the elements; they wait for a message, and send one at their end."""

    def compute(part: np.ndarray, connection: Connection) -> None:
        for _ in iter(connection.recv, None):
            for element in part:
                rest(element, case.seconds)
            connection.send(True)

    def call() -> int:
        for one in connections:
            one.send(True)
        for one in connections:
            one.recv()
        return workers

    bounds = np.linspace(0, len(array), workers + 1).astype(int)
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(workers)]
    connections = [here for here, _ in pipes]
    parts = [array[start:stop] for start, stop in itertools.pairwise(bounds)]
    processes = [
        fork.Process(target=compute, args=(part, there)) for part, (_, there) in zip(parts, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        yield call
    finally:
        for one in connections:
            one.send(None)
        for process in processes:
            process.join()
            process.close()
        for pipe in pipes:
            for one in pipe:
                one.close()


def measured(call: Callable[[], int], case: Case, workers: int) -> Found:
    """Make a call and measure it."""
    begun, used = time.perf_counter(), time.process_time()
    tasks = call()
    elapsed, cpu = time.perf_counter() - begun, time.process_time() - used
    return Found(case.count * case.seconds / workers / elapsed, cpu / tasks, tasks)


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, Found]]:
    """Compare, print, and return medians."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.scale")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", type=float, default=1.0, help="of the elements")
    given = parser.parse_args(arguments)
    found: dict[str, dict[str, Found]] = {}
    with multiprocessing.get_context("fork").Pool(given.workers) as pool:
        for name, whole in CASES.items():
            case = whole._replace(count=int(whole.count * given.part))
            array = np.random.default_rng(0).random((case.count, case.nbytes // 8))
            with bare_processes(case, array, given.workers) as bare:
                calls = {
                    "multiprocessing.Pool": with_multiprocessing(pool, case, array),
                    "parwise": with_parwise(case, array, given.workers),
                    "bare processes": bare,
                }
                for call in calls.values():
                    call()  # starts the workers
                rounds = [
                    {who: measured(call, case, given.workers) for who, call in calls.items()}
                    for _ in range(given.rounds)
                ]
            found[name] = {
                who: Found(*map(statistics.median, zip(*(one[who] for one in rounds), strict=True))) for who in calls
            }
            for who, one in found[name].items():
                print(
                    f"{name}: {who:<20} efficiency {one.efficiency:.2f}, {1e6 * one.cpu:.0f} us of the caller's CPU "
                    f"for each of {one.tasks:.0f} tasks"
                )
    return found


if __name__ == "__main__":
    main()
