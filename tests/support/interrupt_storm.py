"""A script: calls under a storm of Ctrl-C. Each gives KeyboardInterrupt or the right bits.

Run as ``python tests/support/interrupt_storm.py COUNT SEED``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import subprocess
import sys
import time

import numpy as np

from parwise import parallel_apply
from parwise._workers.pool.default_pool import default_pool

#: Sends a signal for each line that it reads, after so many seconds, and counts them.
KILLER = """
import os, sys, time, mmap
parent = os.getppid()
count = mmap.mmap(int(sys.argv[1]), 4096)
for line in sys.stdin:
    time.sleep(float(line))
    os.kill(parent, 2)
    count[:8] = (int.from_bytes(count[:8], "little") + 1).to_bytes(8, "little")
"""
OPTIONS = ({"isolate": True}, {}, {"timeout": 30.0})
COLD = 0.06


def work(x):
    total = 0.0
    for _ in range(40):
        total += float(x.sum())
    return total


def wait_for_signal(sent, number):
    """Wait until `number` signals have been sent and the last one has taken effect."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            wait_until_sent(sent, number)
            time.sleep(0.0005)  # a handler runs between two lines of Python
            return


def wait_until_sent(sent, number):
    # Not within the block above: Python 3.13 lets Ctrl-C between two rounds past it.
    while int.from_bytes(sent[:8], "little") < number:
        time.sleep(0.0005)


def main(count, seed):
    from import_locks import pass_over_interrupted_locks  # beside this script

    pass_over_interrupted_locks()
    rng = random.Random(seed)
    fd = os.memfd_create("sent")
    os.ftruncate(fd, mmap.PAGESIZE)
    sent = mmap.mmap(fd, mmap.PAGESIZE)
    command = [sys.executable, "-S", "-c", KILLER, str(fd)]
    killer = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, process_group=0, pass_fds=[fd])
    a = np.random.default_rng(0).random((400, 20))
    want = np.array([work(x) for x in a])
    small = np.arange(40.0)
    outcomes = {"interrupted": 0, "right": 0, "wrong": 0}
    for number in range(count):
        cold = rng.random() < COLD
        if cold:
            default_pool().stop()
        delay = rng.random() ** 2 * (0.3 if cold else 0.03)
        try:
            killer.stdin.write(f"{delay}\n")
            got = parallel_apply(work, a, workers=2, **OPTIONS[number % len(OPTIONS)])
            outcomes["right" if got.tobytes() == want.tobytes() else "wrong"] += 1
        except KeyboardInterrupt:
            outcomes["interrupted"] += 1
        try:  # not contextlib.suppress: the signal can come while that is being called
            wait_for_signal(sent, number + 1)
        except KeyboardInterrupt:
            wait_for_signal(sent, number + 1)  # it has come, and there is no other
        after = parallel_apply(np.negative, small, workers=2, isolate=True)
        outcomes["wrong"] += after.tobytes() != (-small).tobytes()
    killer.stdin.close()
    killer.wait()
    print(*(f"{name} {number}" for name, number in outcomes.items()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
