"""``python -m parwise``: tell what this machine offers."""

from __future__ import annotations

import functools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import threadpoolctl

from ._api.apply import parallel_apply
from ._executors.background import COLD_SECONDS, WARM_SECONDS
from ._report.report import amount, duration
from ._system.limits import cpu_count, cpu_quota, memory_limit
from ._workers.default_pool import default_pool
from ._workers.shared_memory import HAS_MEMFD
from ._workers.worker_pool import WorkerPool
from .errors import ParwiseError

MESSAGES = 200
COPIED_BYTES = 2**25
BURN_STEPS = 2_000
BURNS_EACH = 200
TURNS = 5
# Workers that have not answered by then are not going to.
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Measured:
    """What worker processes can do here.

    Attributes
    ----------
    first, every : float
        Seconds until the first worker had started, and until all had.
    wake : float
        Seconds that a message takes to a worker that sleeps, and back.
    into, out : float
        Bytes per second to a worker's memory, and from there to a new array.
    gain : float
        How much faster all workers are than the plain loop, in pure Python.
    slot_bytes : int
    """

    first: float
    every: float
    wake: float
    into: float
    out: float
    gain: float
    slot_bytes: int


def describe() -> Iterator[str]:
    """Tell about this machine, line by line; the last one is a verdict."""
    cpus, quota = cpu_count(), cpu_quota()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, {sys.platform} {platform.machine()}"
    yield _line("parwise", f"{sys.modules['parwise'].__version__} on {versions}")
    limit = "no cgroup quota" if quota is None else f"a cgroup quota of {quota:g}"
    yield _line("CPUs", f"{cpus} to use: {allowed} of {os.cpu_count()} by affinity, {limit}")
    yield _line("BLAS", "; ".join(_libraries()) or "none found")
    kind = "memfd (anonymous, needs no /dev/shm)" if HAS_MEMFD else "multiprocessing.shared_memory"
    yield _line("memory", f"{amount(memory_limit())} to use; shared as {kind}")
    try:
        found = measure(cpus)
    except (ParwiseError, OSError) as error:
        yield _line("workers", f"cannot be started: {error}")
        yield _line("verdict", "no worker processes here; executor='threads' and the plain loop work")
        return
    yield _line(
        "start-up",
        f"{duration(found.first)} until the first worker is up, {duration(found.every)} until {_count(cpus)}",
    )
    yield _line("wake", f"{duration(found.wake)} for a message to a worker and back")
    yield _line(
        "copy",
        f"{amount(found.into)}/s into a worker's slots of {amount(found.slot_bytes)}, "
        f"{amount(found.out)}/s out to a new array",
    )
    yield _line("speed", f"{found.gain:.2f} times the plain loop's just now, for pure Python with {_count(cpus)}")
    yield _line("verdict", _verdict(cpus, found.gain))


def measure(workers: int) -> Measured:
    """Measure the worker processes of this process, and end them.

    Raises
    ------
    ParwiseError, OSError
        If they cannot be started.
    """
    pool = default_pool()
    try:
        first, every = _start(pool, workers)
        wake = _wake(pool)
        into, out = _copy(pool)
        return Measured(first, every, wake, into, out, _gain(workers), pool.slot_bytes)
    finally:
        pool.stop()


def _start(pool: WorkerPool, workers: int) -> tuple[float, float]:
    begun = time.perf_counter()
    pool.start(workers)
    first = 0.0
    while not all(worker.ready for worker in pool.workers):
        if time.perf_counter() - begun > ANSWER_SECONDS:
            raise ParwiseError(f"they have not answered within {ANSWER_SECONDS:g} s")
        pool.wait(ANSWER_SECONDS)
        if pool.running and not first:
            first = time.perf_counter() - begun
    pool.dirty = False
    return first, time.perf_counter() - begun


def _wake(pool: WorkerPool) -> float:
    """How long an empty piece of an argument takes to be acknowledged."""
    channel = pool.workers[0].channel
    channel.send("arguments_in_chunks", 0)
    seconds = []
    for _ in range(MESSAGES):
        begun = time.perf_counter()
        channel.send("chunk", 0, 0)
        while not any(worker is pool.workers[0] for _, worker in pool.wait(ANSWER_SECONDS)):
            if time.perf_counter() - begun > ANSWER_SECONDS:
                raise ParwiseError(f"one has not answered within {ANSWER_SECONDS:g} s")
        channel.receive()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def _copy(pool: WorkerPool) -> tuple[float, ...]:
    slots = [np.frombuffer(slot, np.uint8) for worker in pool.workers[:1] for slot in worker.slots.inputs]
    source = np.ones(COPIED_BYTES, np.uint8)
    pieces = [(at, slots[k % len(slots)]) for k, at in enumerate(range(0, COPIED_BYTES, pool.slot_bytes))]
    for slot in slots:  # the first touch of a slot costs more, and comes once
        slot[:] = 0

    def into() -> None:
        for at, slot in pieces:
            piece = source[at : at + len(slot)]
            np.copyto(slot[: len(piece)], piece)

    def out() -> None:
        target = np.empty(COPIED_BYTES, np.uint8)
        for at, slot in pieces:
            piece = target[at : at + len(slot)]
            np.copyto(piece, slot[: len(piece)])

    seconds = [(_seconds(into), _seconds(out)) for _ in range(TURNS)]
    return tuple(COPIED_BYTES / statistics.median(one) for one in zip(*seconds, strict=True))


def _gain(workers: int) -> float:
    """Of a function in pure Python, which is bound by nothing but CPUs."""
    array = np.linspace(0.1, 0.9, BURNS_EACH)
    burn = functools.partial(_burn, steps=BURN_STEPS)
    whole = np.tile(array, workers)
    # The function travels once before.
    run = functools.partial(parallel_apply, burn, whole, isolate=True, workers=workers, progress=None)
    run()
    # In turn, as other programs come and go.
    pairs = [(_seconds(lambda: [burn(x) for x in array]) * workers, _seconds(run)) for _ in range(TURNS)]
    return statistics.median(alone for alone, _ in pairs) / statistics.median(shared for _, shared in pairs)


def _burn(x: float, steps: int) -> float:
    value = float(x)
    for _ in range(steps):
        value = 3.9 * value * (1.0 - value)
    return value


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _libraries() -> Iterator[str]:
    for one in threadpoolctl.threadpool_info():
        version = one.get("version")
        name = f"{one['internal_api']}{f' {version}' if version else ''} ({one['user_api']})"
        yield f"{name}, {one['num_threads']} thread{'s' * (one['num_threads'] != 1)}"


def _verdict(cpus: int, gain: float) -> str:
    if cpus == 1:
        return "one CPU: every call is the plain loop, in this process"
    pays = f"a call pays from {duration(COLD_SECONDS)} of work on, from {duration(WARM_SECONDS)} once workers are up"
    if gain < 1.2:
        return f"{_count(cpus)}, hardly faster than one process just now (are other programs at work?): {pays}"
    return f"ready, with {_count(cpus)}: {pays}"


def _count(workers: int) -> str:
    return f"{workers} worker{'s' * (workers != 1)}"


def _line(name: str, text: str) -> str:
    return f"{name:<10}{text}"


if __name__ == "__main__":
    for line in describe():
        print(line, flush=True)
