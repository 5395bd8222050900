"""Ctrl-C, and SIGKILL to workers, at random moments of calls whose results workers write themselves.

``python tests/support/direct_storm.py INTERRUPTS KILLS SEED`` prints how calls ended; with ``PYTHONMALLOC=debug`` freed
memory is checked by Python too. After each call its `out` is filled with a pattern, and must keep it.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import sys
import threading
import time

import numpy as np

import parwise
from parwise._workers.pool.default_pool import default_pool

PATTERN = 0xA5
SECONDS = 0.03


def main(interrupts: int, kills: int, seed: int) -> None:
    """Run the storm; exit with an error at the first wrong bit."""
    from import_locks import pass_over_interrupted_locks  # beside this script

    pass_over_interrupted_locks()
    rng = random.Random(seed)
    a = np.random.default_rng(seed).standard_normal((8, 800_000))  # longer than the system copies at a time
    want = -a
    parwise.parallel_apply(np.negative, a, workers=2, isolate=True)  # or the interrupts would come in its imports
    ends: collections.Counter[str] = collections.Counter()
    left: collections.deque[np.ndarray] = collections.deque(maxlen=3)
    for act in [interrupt] * interrupts + [kill] * kills:
        out = patterned(np.empty_like(a))
        thread = threading.Thread(target=act, args=(rng.random() * SECONDS,))
        try:
            try:
                thread.start()
                parwise.parallel_apply(np.negative, a, out=out, workers=2, isolate=True)
                ends["done"] += 1
                assert out.tobytes() == want.tobytes(), "wrong bits"
            finally:
                thread.join()
        except (KeyboardInterrupt, parwise.WorkerDiedError) as error:
            ends[type(error).__name__] += 1
            check(out, want, 0 if isinstance(error, KeyboardInterrupt) else 1)
        left.append(patterned(out))
        for old in left:
            assert (old.view(np.uint8) == PATTERN).all(), "a write after the end of a call"
    print(dict(ends), flush=True)


def patterned(array: np.ndarray) -> np.ndarray:
    """Fill an array with the pattern."""
    array.view(np.uint8)[...] = PATTERN
    return array


def check(out: np.ndarray, want: np.ndarray, broken: int) -> None:
    """Each row is a result or has none; after the death of a worker one may be half written."""
    whole = (out.view(np.uint64) == want.view(np.uint64)).all(axis=1)
    empty = (out.view(np.uint8) == PATTERN).all(axis=1)
    assert (~(whole | empty)).sum() <= broken, "rows that are half written"


def interrupt(seconds: float) -> None:
    """Send SIGINT to this process after so many seconds."""
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGINT)


def kill(seconds: float) -> None:
    """Kill a worker after so many seconds."""
    time.sleep(seconds)
    pids = [worker.pid for worker in tuple(default_pool().workers) if worker.pid]
    if pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(pids), signal.SIGKILL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
