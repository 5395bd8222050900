"""``python -m parwise``: CPUs, memory and speed of worker processes on this machine."""

from __future__ import annotations

import functools
import os
import platform
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import threadpoolctl

from ._api.apply import parallel_apply
from ._clock import perf_counter
from ._core.options.defaults import defaults, has_no_gil
from ._executors.processes.background import COLD_SECONDS, WARM_SECONDS
from ._report.report import amount, duration
from ._system.blas import unknown_blas
from ._system.limits import affinity_count, cpu_count, cpu_quota, memory_limit
from ._workers.pool.default_pool import default_pool
from ._workers.pool.primitives import why_portable
from ._workers.pool.worker_pool import WorkerPool
from .errors import ParwiseError, ReproducibilityWarning

MESSAGES = 200
COPIED_BYTES = 2**25
LOOP_STEPS = 2_000
ELEMENTS_PER_WORKER = 200
REPEATS = 5
# Longest wait for workers to start or reply.
READY_SECONDS = 10.0


@dataclass(frozen=True)
class Measured:
    """Speed of worker processes on this machine."""

    first: float  # seconds until the first worker had started
    all_ready: float  # seconds until all had
    wake: float  # seconds for a message to a sleeping worker and its reply
    into: float  # bytes per second from an array to a worker's memory
    out: float  # bytes per second from a worker's memory to a new array
    speedup: float  # time of the plain loop divided by that with all workers, for a function in pure Python
    slot_bytes: int
    direct: bool  # True if workers read and write arrays of the caller themselves


def describe() -> Iterator[str]:
    """Yield lines of text about this machine; the last one is a verdict."""
    cpus, quota = cpu_count(), cpu_quota()
    allowed = affinity_count()
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, {sys.platform} {platform.machine()}"
    yield _line("parwise", f"{sys.modules['parwise'].__version__} on {versions}")
    limit = "no cgroup quota" if quota is None else f"a cgroup quota of {quota:g}"
    yield _line("CPUs", f"{cpus} to use: {allowed} of {os.cpu_count()} by affinity, {limit}")
    yield _line("BLAS", "; ".join(_libraries()) or "none found")
    if (problem := unknown_blas()) is not None:
        yield _line("threads", problem)
    yield _line("executor", _default_executor())
    why = why_portable()
    kind = "memfd (anonymous, needs no /dev/shm)" if why is None else "multiprocessing.shared_memory"
    yield _line("memory", f"{amount(memory_limit())} to use; shared as {kind}")
    yield _line("kind", "workers forked from a fork server" if why is None else f"portable workers: {why}")
    try:
        measured = measure(cpus)
    except (ParwiseError, OSError) as error:
        yield _line("workers", f"cannot be started: {error}")
        yield _line("verdict", "no worker processes here; executor='threads' and executor='serial' work")
        return
    yield _line(
        "start-up",
        f"{duration(measured.first)} until the first worker is up, {duration(measured.all_ready)} until {_count(cpus)}",
    )
    yield _line("wake", f"{duration(measured.wake)} for a message to a worker and back")
    yield _line(
        "copy",
        f"{amount(measured.into)}/s into a worker's slots of {amount(measured.slot_bytes)}, "
        f"{amount(measured.out)}/s out to a new array",
    )
    how = (
        "workers read and write large arrays themselves"
        if measured.direct
        else "workers get copies: the system does not allow more, or it is switched off"
    )
    yield _line("direct", how)
    yield _line("speed", f"{measured.speedup:.2f} times as fast as the plain loop, for pure Python with {_count(cpus)}")
    yield _line("verdict", _verdict(cpus, measured.speedup))


def measure(workers: int) -> Measured:
    """Start worker processes, measure their speed, and stop them."""
    pool = default_pool()
    try:
        first, all_ready = _measure_start(pool, workers)
        wake = _measure_wake(pool)
        into, out = _measure_copy(pool)
        direct = all(worker.direct for worker in pool.workers)
        return Measured(first, all_ready, wake, into, out, _speedup(workers), pool.slot_bytes, direct)
    finally:
        pool.stop()


def _measure_start(pool: WorkerPool, workers: int) -> tuple[float, float]:
    """Seconds until the first worker is ready, and until all are."""
    begun = perf_counter()
    pool.start(workers)
    first = 0.0
    while not all(worker.ready for worker in pool.workers):
        if perf_counter() - begun > READY_SECONDS:
            raise ParwiseError(f"the worker processes did not answer within {READY_SECONDS:g} s")
        pool.wait(READY_SECONDS)
        if pool.running and not first:
            first = perf_counter() - begun
    pool.dirty = False
    return first, perf_counter() - begun


def _measure_wake(pool: WorkerPool) -> float:
    """Median of the seconds until a worker acknowledges an empty chunk of an argument."""
    channel = pool.workers[0].channel
    channel.send("arguments_in_chunks", 0)
    seconds = []
    for _ in range(MESSAGES):
        begun = perf_counter()
        channel.send("chunk", 0, 0)
        while not any(worker is pool.workers[0] for _, worker in pool.wait(READY_SECONDS)):
            if perf_counter() - begun > READY_SECONDS:
                raise ParwiseError(f"a worker process did not answer within {READY_SECONDS:g} s")
        channel.receive()
        seconds.append(perf_counter() - begun)
    return statistics.median(seconds)


def _measure_copy(pool: WorkerPool) -> tuple[float, ...]:
    """Bytes per second into a worker's slots, and out of them, as medians."""
    slots = [np.frombuffer(slot, np.uint8) for worker in pool.workers[:1] for slot in worker.slots.inputs]
    source = np.ones(COPIED_BYTES, np.uint8)
    chunks = [(at, slots[k % len(slots)]) for k, at in enumerate(range(0, COPIED_BYTES, pool.slot_bytes))]
    for slot in slots:  # the first access to a slot takes longer, and happens once
        slot[:] = 0

    def into() -> None:
        for at, slot in chunks:
            chunk = source[at : at + len(slot)]
            np.copyto(slot[: len(chunk)], chunk)

    def out() -> None:
        target = np.empty(COPIED_BYTES, np.uint8)
        for at, slot in chunks:
            chunk = target[at : at + len(slot)]
            np.copyto(chunk, slot[: len(chunk)])

    seconds = [(_seconds(into), _seconds(out)) for _ in range(REPEATS)]
    return tuple(COPIED_BYTES / statistics.median(one) for one in zip(*seconds, strict=True))


def _speedup(workers: int) -> float:
    """Speed-up of a function in pure Python, which only CPUs can limit."""
    array = np.linspace(0.1, 0.9, ELEMENTS_PER_WORKER)
    logistic = functools.partial(_logistic, steps=LOOP_STEPS)
    whole = np.tile(array, workers)
    run = functools.partial(parallel_apply, logistic, whole, isolate=True, workers=workers, progress=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReproducibilityWarning)  # of BLAS, which has its line
        run()  # not measured: it also sends the function
    # Loop and workers alternate, so that load by other programs affects both.
    pairs = [(_seconds(lambda: [logistic(x) for x in array]) * workers, _seconds(run)) for _ in range(REPEATS)]
    return statistics.median(alone for alone, _ in pairs) / statistics.median(shared for _, shared in pairs)


def _logistic(x: float, steps: int) -> float:
    """Iterate the logistic map, which keeps a CPU busy."""
    value = float(x)
    for _ in range(steps):
        value = 3.9 * value * (1.0 - value)
    return value


def _seconds(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def _libraries() -> Iterator[str]:
    for one in threadpoolctl.threadpool_info():
        version = one.get("version")
        name = f"{one['internal_api']}{f' {version}' if version else ''} ({one['user_api']})"
        yield f"{name}, {one['num_threads']} thread{'s' * (one['num_threads'] != 1)}"


def _default_executor() -> str:
    """The executor of calls for which nobody chooses one."""
    chosen = defaults().executor
    if chosen is not None:
        return f"{chosen}, by PARWISE_EXECUTOR"
    if not has_no_gil():
        return "processes"
    return "threads, since this Python has no GIL; processes for functions that change what their calls share"


def _verdict(cpus: int, speedup: float) -> str:
    if cpus == 1:
        return "one CPU: every call is the plain loop, in this process"
    pays = (
        f"workers pay for calls of more than {duration(COLD_SECONDS)} of work, and of more than "
        f"{duration(WARM_SECONDS)} once they have started"
    )
    if speedup < 1.2:
        return f"{_count(cpus)}, but hardly faster than one process (do other programs use the CPUs just now?): {pays}"
    return f"ready, with {_count(cpus)}: {pays}"


def _count(workers: int) -> str:
    return f"{workers} worker{'s' * (workers != 1)}"


def _line(name: str, text: str) -> str:
    return f"{name:<10}{text}"


if __name__ == "__main__":
    for line in describe():
        print(line, flush=True)
