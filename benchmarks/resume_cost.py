"""What `resume` costs: one line of a journal, checksums and digests, and whole calls with and without it, in turn."""

from __future__ import annotations

import os
import statistics
import tempfile
import time

import numpy as np

from parwise import parallel_apply, parallel_map
from parwise._api.resume.digest import Digester
from parwise._api.resume.header import _state_of_array
from parwise._api.resume.journal import Journal

SECONDS = 0.005
COUNT = 600


def slow(row):
    time.sleep(SECONDS)
    return np.sqrt(row)


def timed(function, times=1):
    """Milliseconds of a call, the median of some."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        function()
        found.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(found)


def out_of(kind, path, a):
    """A new array in files."""
    if kind == "memmap":
        return np.lib.format.open_memmap(path, mode="w+", shape=a.shape, dtype=a.dtype)
    import zarr

    return zarr.create_array(path, shape=a.shape, dtype=a.dtype, chunks=(10, a.shape[1]))


def call(kind, folder, name, width, resume):
    """Make a call into a new file."""
    a = np.ones((COUNT, width))
    where = os.path.join(folder, f"{name}.journal") if resume else None
    if kind == "folder":
        parallel_map(slow, list(a), resume=where, workers=2)
        return
    parallel_apply(slow, a, out=out_of(kind, os.path.join(folder, name), a), resume=where, workers=2)


def ratio_of(kind, folder, turn, width):
    """How many times as long a call takes with `resume`."""
    without, with_ = (timed(lambda k=k: call(kind, folder, f"{turn} {width} {kind} {k}", width, k)) for k in (0, 1))
    return with_ / without


def main():
    with tempfile.TemporaryDirectory(dir=".") as folder:
        with Journal(os.path.join(folder, "journal")) as journal:
            print(f"a line: {timed(lambda: journal.append({'runs': [[1, 2, 3]]}), 200):.3f} ms")
        digester, a = Digester(), np.ones(2**25)
        print(f"digest of 256 MB: {timed(lambda: _state_of_array(a, digester, False), 3):.0f} ms")
        print(f"digest of an item: {timed(lambda: [digester.digest(k) for k in range(1000)], 5):.4f} us, a number")
        for width in (10, 100_000):
            for kind in ("memmap", "zarr", "folder"):
                ratio = statistics.median(ratio_of(kind, folder, turn, width) for turn in range(3))
                print(f"{kind}, {8e-6 * width:g} MB each, {COUNT} x {1e3 * SECONDS:g} ms: {ratio:.3f} times as long")


if __name__ == "__main__":
    main()
