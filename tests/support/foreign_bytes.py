"""Functions that write where they should not: run in workers, which should import little."""

from __future__ import annotations

import contextlib
import os
import pickle

import numpy as np

MARKER = f"/tmp/parwise-unpickled-{os.getppid()}-{os.getpid()}"


class Marking:
    """Leaves a folder where it is unpickled."""

    def __reduce__(self):
        return os.makedirs, (MARKER, 0o777, True)


#: A pickle that shows by a folder that it was unpickled.
MARKING = pickle.dumps(Marking())


#: Functions whose outcomes are pickles, in slots or in chunks.
OUTCOMES = {
    "objects": lambda k: {"number": k, "text": "x" * 50},
    "chunks": lambda k: {"text": str(k) * 30_000},
    "error": lambda k: [][k],
    "output": lambda k: print("text", k),
    "header": lambda k: tuple(np.full(1, k, np.dtype([("x" * 3000, float)])) for _ in range(40)),
}


def damage(memory, start, nbytes, at, junk):
    """Flip bits of the `nbytes` bytes from `start` on, or put another pickle in their place."""
    if junk == MARKING:
        memory[start : start + min(nbytes, len(junk))] = junk[:nbytes]
    else:
        for k, byte in enumerate(junk[:nbytes]):
            memory[start + (at + k) % nbytes] ^= byte


def overwriting(kind, at, junk):
    """A function whose worker overwrites the pickles that it has written to slots, or that leave in chunks."""
    compute = OUTCOMES[kind]

    def f(k):
        from parwise._workers import protocol, shared_memory
        from parwise._workers.worker import main as worker

        def copy_in(slot, offset, buffer):
            shared_memory.copy_in(slot, offset, buffer)
            if memoryview(buffer).nbytes:
                damage(slot, offset, memoryview(buffer).nbytes, at, junk)

        protocol.copy_in = worker.copy_in = copy_in
        return compute(k)

    return f


def writing(packets):
    """A function that writes packets to all sockets that it finds open."""

    def f(k):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    for packet in packets:
                        os.write(int(name), packet)
        return k

    return f
