"""How many workers one process can feed: a model, its constants, and a check: ``python -m benchmarks.throughput``.

The process that calls parwise hands each task to a worker, and puts its results together. With Dask the scheduler has a
part in each task, too. The busier of both is the limit: however many workers there are, they do not get more tasks and
bytes than it can handle. The model needs two constants, the CPU time of that process for a task and for a megabyte, in
and out together. They are measured with few workers, and the model is checked with many, whose elements only sleep: a
small machine has room for them.

Executors: ``own`` (parwise's workers), ``dask`` (a scheduler and workers on this machine, each a program of its own),
and ``mpi``, for which the command is
``mpiexec -n 3 python -m mpi4py.futures -m benchmarks.throughput --executor mpi``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import parwise
from parwise._executors.job.task_length import FED_WORKERS, TASK_SECONDS

MEGABYTE = 10**6
# Most bytes of the arguments of a task: a slot of parwise's own workers, and a task of others.
MOST_BYTES = {"own": 2**20, "dask": 2**23, "mpi": 2**23}
LENGTHS = {"own": TASK_SECONDS, "dask": 0.1, "mpi": 0.1}


class Cost(NamedTuple):
    """CPU seconds of the busiest process between array and workers, for a task and for a megabyte."""

    task: float
    megabyte: float


def efficiency(executor: str, cost: Cost, workers: int, seconds: float, nbytes: int) -> float:
    """Part of the time for which workers compute elements that take `seconds` and have `nbytes`, by the model."""
    length = LENGTHS[executor] * max(1.0, workers / FED_WORKERS)
    count = max(1, min(int(length / seconds), MOST_BYTES[executor] // nbytes))
    between = cost.task + cost.megabyte * 2 * nbytes * count / MEGABYTE
    return min(1.0, count * seconds / (workers * between))


def rest(element: np.ndarray, seconds: float) -> np.ndarray:
    """Stands for a function that takes so long and returns as much as it gets."""
    time.sleep(seconds)
    return element


class Setting(NamedTuple):
    """Options of a call, and a function that returns the CPU seconds of the processes between array and workers."""

    options: dict[str, Any]
    cpu: Callable[[], list[float]]


@contextlib.contextmanager
def own_workers(workers: int) -> Iterator[Setting]:
    """Parwise's own workers."""
    with parwise.Pool(workers) as pool:
        yield Setting({"executor": pool}, lambda: [time.process_time()])


@contextlib.contextmanager
def dask_cluster(workers: int) -> Iterator[Setting]:
    """Two processes with so many threads together, a scheduler, and a client."""
    import psutil
    from dask.distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "scheduler.json"))
        quiet = ["--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1"]
        threads = ["--no-nanny", "--nthreads", str(-(-workers // 2))]
        commands = [["scheduler", *quiet, "--port", "0"], *[["worker", *quiet, *threads]] * 2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        programs = [
            subprocess.Popen([sys.executable, "-m", "dask", *one], stderr=subprocess.DEVNULL, env=environment)
            for one in commands
        ]
        try:
            while not Path(file).exists():
                time.sleep(0.05)
            with Client(scheduler_file=file) as client:
                client.wait_for_workers(2)
                scheduler = psutil.Process(programs[0].pid)
                yield Setting({"executor": client}, lambda: [time.process_time(), sum(scheduler.cpu_times()[:2])])
        finally:
            for program in programs:
                program.kill()
                program.wait()


@contextlib.contextmanager
def mpi_ranks(workers: int) -> Iterator[Setting]:
    """The ranks of mpiexec; their number is that of its command."""
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor() as executor:
        yield Setting({"executor": executor}, lambda: [time.process_time()])


EXECUTORS = {"own": own_workers, "dask": dask_cluster, "mpi": mpi_ranks}


class Measured(NamedTuple):
    """Seconds of a call, and the CPU seconds of the busiest process between."""

    seconds: float
    cpu: float


def measure(setting: Setting, count: int, seconds: float, nbytes: int) -> Measured:
    """Map over `count` elements."""
    array = np.random.default_rng(0).random((count, nbytes // 8))
    call = {"args": (seconds,), "verify": False, **setting.options}
    parwise.parallel_apply(rest, array[: count // 8], **call)  # all workers are up
    before, begun = setting.cpu(), time.perf_counter()
    result = parwise.parallel_apply(rest, array, **call)
    elapsed, after = time.perf_counter() - begun, setting.cpu()
    assert np.array_equal(result, array)
    return Measured(elapsed, max(now - then for now, then in zip(after, before, strict=True)))


def cost_of(setting: Setting, part: float, spins: bool) -> Cost:
    """Measure the constants: tasks of one small element that is longer than a task is, and of one large one.

    A process that `spins` while it waits uses CPU time for nothing: then elements of no length are timed.
    """
    tasks = max(8, int(100 * part))
    small = measure(setting, tasks, 0.1, 8).cpu / tasks
    if spins:
        return Cost(small, measure(setting, tasks, 0.0, 4 * MEGABYTE).seconds / tasks / 8)
    large = measure(setting, tasks, 0.1, 4 * MEGABYTE).cpu / tasks
    return Cost(small, max(0.0, large - small) / 8)


def drawn(costs: dict[str, Cost], file: str) -> None:
    """Draw the model: workers at work of those that there are, for elements of four kinds."""
    from matplotlib.figure import Figure

    numbers = np.unique(np.geomspace(1, 10_000, 200).astype(int))
    figure = Figure(figsize=(4 * len(costs), 4))
    axes = figure.subplots(1, len(costs), sharey=True, squeeze=False)
    for axis, (executor, cost) in zip(axes[0], costs.items(), strict=True):
        for seconds, nbytes in ((0.01, 8), (1.0, 8), (0.01, MEGABYTE), (1.0, MEGABYTE)):
            busy = [n * efficiency(executor, cost, int(n), seconds, nbytes) for n in numbers]
            axis.loglog(numbers, busy, label=f"{seconds:g} s, {'1 MB' if nbytes > 8 else '8 bytes'}")
        axis.loglog(numbers, numbers, color="0.7", linewidth=1, zorder=0)
        axis.set_title({"own": "own workers", "dask": "Dask", "mpi": "MPI"}[executor])
        axis.set_xlabel("workers")
    axes[0][0].set_ylabel("workers at work")
    axes[0][0].legend(title="an element", frameon=False)
    figure.tight_layout()
    figure.savefig(file)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure the constants and check the model; or draw it from constants that were measured before."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--executor", choices=EXECUTORS, default="own")
    parser.add_argument("--workers", type=int, default=64, help="of the check (default: 64)")
    parser.add_argument("--part", type=float, default=1.0, help="of the elements")
    parser.add_argument("--results", default="", help="a file of constants, to which these are added")
    parser.add_argument("--draw", default="", help="measure nothing, and draw the model of these constants to a file")
    given = parser.parse_args(arguments)
    file = Path(given.results) if given.results else None
    found: dict[str, Any] = json.loads(file.read_text()) if file is not None and file.exists() else {}
    if given.draw:
        drawn({name: Cost(*one["cost"]) for name, one in found.items()}, given.draw)
        return found
    name = given.executor
    with EXECUTORS[name](4) as setting:
        cost = cost_of(setting, given.part, spins=name == "mpi")
    print(f"{name}: {1e3 * cost.task:.2g} ms for a task, {1e3 * cost.megabyte:.2g} ms for a megabyte")
    checks = []
    if name != "mpi":  # its ranks are those of the command
        with EXECUTORS[name](given.workers) as setting:
            for seconds, nbytes in ((0.01, 8), (0.1, 8), (0.1, 100_000), (0.1, MEGABYTE)):
                rounds = min(4 / seconds, 4 * MEGABYTE * 10 / nbytes)  # of all workers, at most 40 MB for each
                count = max(1, int(given.part * rounds)) * given.workers
                elapsed = measure(setting, count, seconds, nbytes).seconds
                at_work = count * seconds / given.workers / elapsed
                model = efficiency(name, cost, given.workers, seconds, nbytes)
                checks.append([given.workers, seconds, nbytes, model, at_work])
                print(f"{given.workers} workers, {seconds:g} s, {nbytes} bytes: model {model:.2f}, found {at_work:.2f}")
    found[name] = {"cost": cost, "checks": checks, "machine": f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}"}
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
