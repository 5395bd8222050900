"""Memory of all processes of a call that reads and writes larger files."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

STEP = 0.03  # between two looks
MOST_MB = 295  # 261 measured, with workers that import zarr and open the arrays themselves

SCRIPT = """
import os, sys
import numpy as np, zarr
from parwise import parallel_apply

def double(x):
    return x * 2

if __name__ == "__main__":
    folder = sys.argv[1]
    a, out = (
        zarr.create_array(f"{folder}/{name}", shape=(2**16, 1024), chunks=(1024, 1024), dtype="f8",
                          compressors=None, config={"write_empty_chunks": True})
        for name in ("a", "out")
    )
    for k in range(a.shape[0] // 1024):  # files of zeros that take no room, but are read
        os.makedirs(f"{folder}/a/c/{k}")
        with open(f"{folder}/a/c/{k}/0", "wb") as file:
            file.truncate(2**23)
    parallel_apply(double, a, out=out, workers=2)
"""


def family(root):
    """A process and all that it started."""
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                found.extend(map(int, (task / "children").read_text().split()))
            except OSError:  # ended meanwhile
                continue
    return found


def own_kb(pid):
    """Anonymous and shared memory of a process, each page counted once among all that have it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Pss_Anon", "Pss_Shmem")))


def test_memory_of_all_processes_is_bounded(tmp_path):
    pytest.importorskip("zarr")
    script = tmp_path / "call.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, script, tmp_path]) as program:
        most = 0
        while program.poll() is None:
            most = max(most, sum(map(own_kb, family(program.pid))))
            time.sleep(STEP)
    assert program.returncode == 0
    assert 50 < most / 1000 < MOST_MB
