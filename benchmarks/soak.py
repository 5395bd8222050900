"""Mixed calls with faults at random, for a long time: ``python -m benchmarks.soak --minutes 10``.

Every result is compared with the plain loop's bytes. At regular times the
memory of this process and its workers, its descriptors and its children are
noted; all should stay where they are.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import select
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parwise import ElementTimeoutError, WorkerDiedError, parallel_apply
from parwise._workers.pool.default_pool import default_pool

from .peers.memory import family_bytes

SAMPLES = 20
# On a machine with other work a call may take a second, as long as all of `--small`.
LEAST_CALLS = 4


def main(argv: Sequence[str] | None = None) -> list[Sample]:
    """Run what the command line asks for, and print what was noted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="a second of it, to see that all works")
    given = parser.parse_args(argv)
    samples = soak(1.0 if given.small else given.minutes * 60, given.seed)
    print("\n".join(map(str, samples)))
    return samples


@dataclass(frozen=True)
class Sample:
    """What the process looks like after some time."""

    seconds: float
    mebibytes: float
    descriptors: int
    children: int
    outcomes: dict[str, int]

    def __str__(self) -> str:
        """One line."""
        outcomes = ", ".join(f"{number} {name}" for name, number in sorted(self.outcomes.items()))
        return (
            f"{self.seconds:6.0f} s  {self.mebibytes:7.1f} MiB  {self.descriptors} descriptors  "
            f"{self.children} children  {outcomes}"
        )


def soak(seconds: float, seed: int) -> list[Sample]:
    """Make calls of all kinds until the time is over, and at least `LEAST_CALLS`.

    Raises
    ------
    AssertionError
        If a result has other bits than the loop's.
    """
    rng = random.Random(seed)
    kinds = [plain, blocks, large, deaths, killed, late, gaps, raising, interrupted, talking]
    outcomes: Counter[str] = Counter()
    samples = []
    default_pool().stop()
    start = time.monotonic()
    due = 0.0
    while (now := time.monotonic() - start) < seconds or sum(outcomes.values()) < LEAST_CALLS:
        if now >= due:
            samples.append(_sample(now, outcomes))
            due += seconds / SAMPLES
        outcomes[_call(rng.choice(kinds), rng)] += 1
    samples.append(_sample(time.monotonic() - start, outcomes))
    return samples


def _call(kind: Callable[[random.Random], None], rng: random.Random) -> str:
    try:
        kind(rng)
    except (WorkerDiedError, ElementTimeoutError, KeyboardInterrupt, ZeroDivisionError) as error:
        return type(error).__name__
    return "right"


def _sample(now: float, outcomes: Counter[str]) -> Sample:
    # The same workers each time, whatever the last call did to them.
    parallel_apply(np.negative, np.arange(10), workers=2, isolate=True)
    pool = default_pool()
    while any(not link.pid for link in pool.workers):  # of the newest the fork server may not have told yet
        pool._read_fork_server()
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        children = len(file.read().split())
    return Sample(now, family_bytes(os.getpid()) / 2**20, len(os.listdir("/proc/self/fd")), children, dict(outcomes))


def _same(got: np.ndarray, want: np.ndarray) -> None:
    assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes())


def _rows(rng: random.Random, most: int = 2000) -> np.ndarray:
    return np.random.default_rng(rng.randrange(2**32)).random((rng.randrange(1, 200), rng.randrange(1, most)))


def _options(rng: random.Random) -> dict[str, Any]:
    return rng.choice([{"isolate": True}, {}, {"timeout": 30.0}, {"executor": "threads"}]) | {"workers": 2}


def plain(rng: random.Random) -> None:
    """Rows sorted."""
    a = _rows(rng)
    _same(parallel_apply(np.sort, a, **_options(rng)), np.sort(a))


def blocks(rng: random.Random) -> None:
    """Blocks negated."""
    a = _rows(rng)
    _same(parallel_apply(np.negative, a, vectorized=True, chunk=rng.randrange(1, len(a) + 1), **_options(rng)), -a)


def large(rng: random.Random) -> None:
    """Elements and a closure larger than a slot."""
    a = np.random.default_rng(0).random((4, 300_000))
    big = np.full(300_000, 3.0)
    _same(parallel_apply(lambda x: x * big, a, **_options(rng)), a * big)


def _dying(rng: random.Random) -> Callable[[float], float]:
    number = rng.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
    at = rng.randrange(60)

    def f(x: float) -> float:
        if x == at:
            os.kill(os.getpid(), number)
        return x * 2.0

    return f


def deaths(rng: random.Random) -> None:
    """A worker dies."""
    parallel_apply(_dying(rng), np.arange(60.0), workers=2, isolate=True)


def killed(rng: random.Random) -> None:
    """Workers are killed from outside, and what they had is computed again."""
    a = np.random.default_rng(0).random((200, 1500))
    pids = [link.pid for link in default_pool().workers if link.pid]
    timers = [threading.Timer(rng.random() * 0.02, _kill, (pid,)) for pid in pids]
    for timer in timers:
        timer.start()
    try:
        _same(parallel_apply(np.sort, a, workers=2, isolate=True, retries=10), np.sort(a))
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()


def _kill(pid: int) -> None:
    """Kill a worker, and wait until it has ended: the next call is not to be hit."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        select.select([fd], [], [])
        os.close(fd)


def late(rng: random.Random) -> None:
    """An element takes too long."""
    at = rng.randrange(20)
    parallel_apply(lambda x: ctypes.PyDLL(None).sleep(60) if x == at else x, np.arange(20.0), workers=2, timeout=0.05)


def gaps(rng: random.Random) -> None:
    """A worker dies and leaves a gap."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        got = parallel_apply(_dying(rng), np.arange(60.0), workers=2, isolate=True, errors="ignore")
    gap = np.isnan(got)
    assert gap.sum() == 1
    _same(got[~gap], (np.arange(60.0) * 2)[~gap])


def raising(rng: random.Random) -> None:
    """The function raises."""
    at = rng.randrange(60)
    parallel_apply(lambda x: 1 / 0 if x == at else x, np.arange(60.0), **_options(rng))


def interrupted(rng: random.Random) -> None:
    """Ctrl-C, at any moment."""
    timer = threading.Timer(rng.random() * 0.01, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        parallel_apply(lambda x: sum(range(2000)), np.arange(300), workers=2, isolate=rng.random() < 0.5)
    finally:
        while timer.is_alive():
            timer.join()


def talking(rng: random.Random) -> None:
    """The function prints and warns."""
    with contextlib.redirect_stdout(None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallel_apply(lambda x: print("element", x), np.arange(200), **_options(rng))


if __name__ == "__main__":
    main(sys.argv[1:])
