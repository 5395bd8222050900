"""Where parwise is slower than the plain loop, or lazy: ``python -m benchmarks.grid``.

A grid of calls: how many elements, how long the function takes for one, and how many bytes one has. Workers are up. The
loop and parwise run in turn in one process, for several rounds; medians are compared. A cell is slow if parwise takes
more than 1.05 times the loop's time and 0.2 ms, and lazy if the loop takes more than 50 ms and parwise is less than
1.7 times faster, although the function takes longer than to copy its element. On some machines no two processes are so
much faster than one. So where a cell is lazy two bare processes run in turn with parwise. Each computes half of the
elements and transfers nothing. The cell is only lazy if parwise takes over 1.1 times as long as they do.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

import parwise

from .peers.work import WORKERS, burn, calibrate

COUNTS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
SECONDS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
NBYTES = (8, 1_000, 100_000, 1_000_000)
#: Cells between: calls that a busy machine delays most.
MIDDLING = ((20, 70e-6, 8), (100, 70e-6, 8), (20, 0.8e-3, 8), (2, 9e-3, 8), (1_000, 5e-6, 8), (100, 9e-6, 1_000_000))
#: Larger cells are left out.
MOST_SECONDS, MOST_BYTES = 2.0, 200_000_000

SLOWER, SLOWER_SECONDS = 1.05, 0.2e-3
FASTER, FASTER_FROM_SECONDS = 1.7, 0.05
#: Where two bare processes are slower than that: at most so many times their time.
SLOWER_THAN_HALVES = 1.1
#: To read an element and to write it takes longer than this.
SECONDS_PER_BYTE = 1e-9


class Cell(NamedTuple):
    """One kind of call: elements, seconds that the function takes for one, and bytes of one."""

    count: int
    seconds: float
    nbytes: int

    @property
    def fits(self) -> bool:
        """True if it is not too large for the grid."""
        return self.count * self.seconds <= MOST_SECONDS and self.count * self.nbytes <= MOST_BYTES

    @property
    def array(self) -> np.ndarray:
        """Its elements."""
        array = np.random.default_rng(0).random((self.count, self.nbytes // 8))
        return array[:, 0].copy() if self.nbytes == 8 else array

    def fault(self, loop: float, taken: float, halves: float = 0.0) -> str:
        """What parwise fell short of: "slow", "lazy", or nothing; by seconds of the loop, of it, and of bare halves."""
        if taken > SLOWER * loop + SLOWER_SECONDS:
            return "slow"
        memory_bound = loop < self.count * self.nbytes * SECONDS_PER_BYTE
        shareable = self.count > 1 and not memory_bound
        fast = loop >= FASTER * taken or taken <= SLOWER_THAN_HALVES * halves
        return "lazy" if loop > FASTER_FROM_SECONDS and shareable and not fast else ""


def read_one(x: np.ndarray, steps: int) -> float:
    """Compute with one number of an element."""
    return burn(x if x.ndim == 0 else x[0], steps)


def plain_loop(func: Callable[[np.ndarray], float], array: np.ndarray) -> np.ndarray:
    """What parwise is compared with."""
    return np.asarray([func(x) for x in array])


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Run other programs beside the calls, each on a CPU."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def compute_halves() -> None:
    """In a process of its own: compute half of the elements of a cell for each line that names it, and say so."""
    cell, array = None, np.empty(0)
    for line in sys.stdin:
        count, seconds, nbytes, steps, number = map(float, line.split())
        if cell != (cell := Cell(int(count), seconds, int(nbytes))):
            array = cell.array[cell.count // 2 :]
        if number:
            plain_loop(functools.partial(read_one, steps=int(steps)), array)
        print("done", flush=True)


class Halves:
    """A bare process that computes half of the elements of a cell beside this one; a context manager."""

    def __enter__(self) -> Halves:
        code = "from benchmarks.grid import compute_halves; compute_halves()"
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def begin(self, cell: Cell, steps: int, number: int) -> None:
        """Have it compute its half; it only makes the array if the number is 0."""
        assert self._process.stdin is not None
        print(*cell, steps, number, file=self._process.stdin, flush=True)

    def wait(self) -> None:
        """Wait until it is done."""
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the process that computes the other half has ended")


def measured(cell: Cell, steps: int, rounds: int, other: Halves | None = None) -> list[float]:
    """Median seconds of the loop and of parwise, and of bare halves with `other`, in turn."""
    func, array = functools.partial(read_one, steps=steps), cell.array

    def halves() -> np.ndarray:
        assert other is not None
        other.begin(cell, steps, 1)
        half = plain_loop(func, array[: cell.count // 2])
        other.wait()
        return half

    calls = {
        "loop": lambda: plain_loop(func, array),
        "parwise": lambda: parwise.parallel_apply(func, array, workers=WORKERS),
    }
    if other is not None:
        other.begin(cell, steps, 0)
        other.wait()
        calls["halves"] = halves
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):  # the first one is not counted
        for name in sorted(calls, reverse=bool(number % 2)):
            begun = time.perf_counter()
            results[name] = calls[name]()
            seconds[name].append(time.perf_counter() - begun)
        assert results["parwise"].tobytes() == results["loop"].tobytes(), "not the loop's bytes"
    return [statistics.median(seconds[name][1:]) for name in calls]


def main(argv: Sequence[str] | None = None) -> dict[Cell, list[float]]:
    """Measure, print cells that fall short, and return the seconds of loop and parwise of all cells."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="times that each runs (default: 5)")
    parser.add_argument("--beside", type=int, default=0, help="busy loops of other programs (default: 0)")
    parser.add_argument("--middling", action="store_true", help="only the cells between")
    parser.add_argument("--all", action="store_true", help="print cells without a fault too")
    parser.add_argument("--longest", type=float, default=MOST_SECONDS, help="seconds of the loop (default: 2)")
    given = parser.parse_args(argv)
    cells = [Cell(*one) for one in ([] if given.middling else itertools.product(COUNTS, SECONDS, NBYTES))]
    cells = [cell for cell in cells if cell.fits] + [Cell(*one) for one in MIDDLING]
    pace, found = calibrate(), dict[Cell, list[float]]()
    with busy_loops(given.beside), Halves() as other:
        parwise.parallel_apply(np.sum, np.ones((9, 2)), workers=WORKERS, isolate=True)  # starts the workers
        for cell in (one for one in cells if one.count * one.seconds <= given.longest):
            steps = pace.steps(cell.seconds)
            found[cell] = measured(cell, steps, given.rounds)
            if cell.fault(*found[cell]) == "lazy":
                found[cell] = measured(cell, steps, given.rounds, other)
            if cell.fault(*found[cell]) or given.all:
                print(described(cell, *found[cell]), flush=True)
    faults = [cell.fault(*seconds) for cell, seconds in found.items()]
    print(f"{len(found)} cells: {faults.count('slow')} slow, {faults.count('lazy')} lazy")
    return found


def described(cell: Cell, loop: float, taken: float, halves: float = 0.0) -> str:
    """A line for a cell."""
    return (
        f"{cell.count:>8} x {1e6 * cell.seconds:>9.1f} us, {cell.nbytes:>8} bytes: loop {1e3 * loop:>8.2f} ms, parwise "
        f"{1e3 * taken:>8.2f} ms, {taken / loop:.2f} {cell.fault(loop, taken, halves)}"
        + (f" (bare halves {1e3 * halves:.2f} ms)" if halves else "")
    )


if __name__ == "__main__":
    main()
