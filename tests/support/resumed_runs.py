"""Runs with `resume` that are killed at random moments.

As a program: ``python tests/support/resumed_runs.py 100`` kills so many in all, in turn of each kind, and resumes each
until it has ended. It checks that the result has the loop's bits, and that no element was computed in a run before
which it had counted.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

import parwise

COUNT = 400
KINDS = ("memmap", "zarr", "zarr to zarr", "hdf5", "folder", "stream", "blocks", "store")
A = np.arange(COUNT * 3.0).reshape(COUNT, 3) / 7


class Counting:
    """A slow function that notes each element, with the number of the run."""

    def __init__(self, path):
        self.path = str(path)

    def __call__(self, row, rng=None):
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for index in np.atleast_2d(row)[:, 0]:
            os.write(descriptor, b"%s %d\n" % (os.environb[b"RUN"], round(index * 7 / 3)))
            time.sleep(0.004)
        os.close(descriptor)
        return np.sqrt(row) + (0 if rng is None else rng.normal())


def open_out(kind, folder):
    """The array that a run goes on with, made if there is none."""
    path = os.path.join(folder, "out")
    if kind in ("zarr", "zarr to zarr"):
        import zarr

        return zarr.open_array(path, mode="a", shape=A.shape, chunks=(16, 2), dtype="f8")
    if not os.path.exists(path):  # made under another name: a kill may come before it is whole
        if kind == "hdf5":
            import h5py

            with h5py.File(path + ".new", "w") as file:
                file.create_dataset("x", data=np.zeros_like(A), chunks=(50, 2))
        else:
            np.lib.format.open_memmap(path + ".new", mode="w+", shape=A.shape, dtype="f8").flush()
        os.replace(path + ".new", path)
    if kind == "hdf5":
        import h5py

        return h5py.File(path, "a")["x"]
    return np.lib.format.open_memmap(path, mode="r+")


def make_call(kind, folder, function):
    """Make the call of one kind, and return its result as an array."""
    if kind in ("folder", "stream"):
        items = list(A) if kind == "folder" else iter(list(A))
        return np.stack(parwise.parallel_map(function, items, resume=os.path.join(folder, "results"), rng=5, workers=2))
    if kind == "store":
        return map_into_store(folder, function)
    block = {"vectorized": True, "chunk": 7} if kind == "blocks" else {"rng": 5}
    out = open_out(kind, folder)
    array = A if kind != "zarr to zarr" else open_input(folder)
    parwise.parallel_apply(function, array, out=out, resume=os.path.join(folder, "journal"), workers=2, **block)
    return np.asarray(out[...])


def open_input(folder):
    """The input in a file that workers open themselves, made if there is none."""
    import zarr

    from parwise._executors.job import files

    files.OWN_BYTES = 0
    path = os.path.join(folder, "in")
    if not os.path.exists(path):
        zarr.create_array(path + ".new", shape=A.shape, chunks=(16, 3), dtype="f8")[:] = A
        os.replace(path + ".new", path)
    return zarr.open_array(path, mode="r")


def map_into_store(folder, function):
    """The call of `.par.map` that makes a store of zarr."""
    import xarray as xr

    import parwise.xarray  # noqa: F401 - has .par

    path, how = os.path.join(folder, "out"), {"output_core_dims": ["y"], "output_dtypes": "f8", "rng": 5, "workers": 2}
    labelled = xr.DataArray(A, {"x": np.arange(COUNT)}, ("x", "y"), "a")
    result = labelled.par.map(function, "x", out=path, resume=os.path.join(folder, "journal"), **how)
    assert xr.open_zarr(path, chunks=None)["a"].identical(result)
    return result.to_numpy()


def expected(kind):
    """The loop's result."""
    if kind == "blocks":
        return np.sqrt(A)
    generators = np.random.default_rng(5).spawn(COUNT)
    return np.stack([np.sqrt(row) + rng.normal() for row, rng in zip(A, generators, strict=True)])


def counted(folder):
    """Elements that count by the journal; its parts are read here without parwise."""
    found = set()
    for path in (Path(folder, "journal"), Path(folder, "results", "journal")):
        for line in path.read_bytes().split(b"\n")[1:] if path.exists() else ():
            if len(line) > 9 and line[:9] == b"%08x " % zlib.crc32(line[9:]):
                for lo, hi, *_ in json.loads(line[9:]).get("runs", ()):
                    found |= set(range(lo, hi))
    return found


def descendants(pid):
    """Processes that a process has started, and those that these have."""
    found = [pid]
    for one in found:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:  # it has just ended
                continue
    return found


def wait_for_work(child, notes):
    """Wait until a run has called its function, or has ended."""
    size = notes.stat().st_size if notes.exists() else 0
    while child.poll() is None and (not notes.exists() or notes.stat().st_size == size):
        time.sleep(0.01)


def run_until_done(kind, folder, seed, kills):
    """Kill a run, up to so many times, and resume it until it has ended; return the number of kills."""
    moments, killed = random.Random(seed), 0
    notes = Path(folder, "notes")
    before = {}
    while True:
        before[len(before)] = counted(folder)
        environment = {**os.environ, "RUN": str(len(before) - 1)}
        child = subprocess.Popen([sys.executable, __file__, kind, folder], env=environment)
        try:
            if kind in ("store", "zarr to zarr"):  # to import libraries takes longer than the rest
                wait_for_work(child, notes)
            code = child.wait(moments.uniform(0.3, 1.6) if killed < kills else 60)
        except subprocess.TimeoutExpired:
            for pid in descendants(child.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            code = child.wait()
            killed += 1
        assert code in (0, -signal.SIGKILL), f"{kind}, seed {seed}: exit code {code}"
        if code == 0:
            break
    calls = [tuple(map(int, line.split())) for line in notes.read_text().splitlines()]
    again = [(run, index) for run, index in calls if index in before[run]]
    assert not again, f"{kind}, seed {seed}: computed again in a run before which they counted: {again}"
    assert {index for _, index in calls} == set(range(COUNT))
    result = np.load(os.path.join(folder, "result.npy"))
    assert result.tobytes() == expected(kind).tobytes(), f"{kind}, seed {seed}: other bits"
    return killed, len(calls), sum(len(one) > 0 for one in before.values())


def main(kills):
    """Kill so many runs in all."""
    total, seed = 0, 0
    while total < kills:
        kind = KINDS[seed % len(KINDS)]
        with tempfile.TemporaryDirectory() as folder:
            killed, calls, resumed = run_until_done(kind, folder, seed, min(5, kills - total))
        total, seed = total + killed, seed + 1
        print(f"{kind}: {killed} kills, {resumed} runs went on, {calls} calls for {COUNT} elements; {total} in all")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(int(sys.argv[1]))
    else:
        kind, folder = sys.argv[1:]
        result = make_call(kind, folder, Counting(os.path.join(folder, "notes")))
        np.save(os.path.join(folder, "result.npy"), result)
