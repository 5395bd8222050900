"""Portable workers beside forked ones, in turn: each round is a new process for each kind.

python -m benchmarks.portable
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

FIRST = """
import time, numpy as np
from parwise import parallel_apply
begun = time.perf_counter()
parallel_apply(np.negative, np.arange(8.0), isolate=True, workers={workers})
print(time.perf_counter() - begun)
"""

CALLS = """
def busy(x):
    end = time.perf_counter() + 20e-6
    while time.perf_counter() < end:
        pass
    return x

def median(call, count):
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return sorted(found)[count // 2]

short = np.arange(20_000.0)
print(median(lambda: parallel_apply(busy, short, isolate=True, workers=2), 5))
wide = np.random.default_rng(0).random((400, 125_000))
print(median(lambda: parallel_apply(np.sort, wide, isolate=True, workers=2), 3))
"""

NAMES = ["first call, 2 workers", "20,000 elements of 20 us", "400 MB sorted", "first call, 1 worker"]


def run(code: str, kind: str) -> list[float]:
    """What a new process prints."""
    env = {**os.environ, "PARWISE_WORKERS": "portable" if kind == "portable" else ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def import_numpy() -> float:
    """Seconds of a new interpreter that imports NumPy."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    return time.perf_counter() - begun


def main() -> None:
    """Print medians of all rounds, and those of the ratios within a round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found: dict[str, list[list[float]]] = {"forked": [], "portable": []}
    imports = []
    for _ in range(rounds):
        for kind, rows in found.items():
            rows.append(run(FIRST.format(workers=2) + CALLS, kind) + run(FIRST.format(workers=1), kind))
        imports.append(import_numpy())
    columns = [list(zip(*rows, strict=True)) for rows in found.values()]
    for name, forked, portable in zip(NAMES, *columns, strict=True):
        ratio = statistics.median(b / a for a, b in zip(forked, portable, strict=True))
        medians = statistics.median(forked), statistics.median(portable)
        print(f"{name}: forked {medians[0]:.3f} s, portable {medians[1]:.3f} s, {ratio:.2f} times")
    print(
        f"import numpy: {statistics.median(imports):.3f} s; one portable worker "
        f"{statistics.median(b / a for a, b in zip(imports, columns[1][3], strict=True)):.2f} times"
    )


if __name__ == "__main__":
    main()
