"""Descriptors 0, 1 and 2 are never parwise's own, so nothing that a C library prints reaches a socket or a slot."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import pytest

# Prints by the C library to descriptors 1 and 2, whatever these are; the caller writes what it found to a file.
SCRIPT = """
import ctypes, json, multiprocessing, os, sys
import numpy as np
from parwise import parallel_apply, parallel_map

def low():
    return {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2) if os.path.exists(f"/proc/self/fd/{fd}")}

def f(row):
    libc = ctypes.CDLL(None)
    for fd in (1, 2):
        libc.write(fd, b"text of a C library " * 20, 400)
    libc.puts(b"more text")
    libc.fflush(None)
    return row * 3 + row.sum()

before = low()
a = np.random.default_rng(1).random((4000, 6))
loop = np.array([row * 3 + row.sum() for row in a])
right = []
for options in ({"isolate": True, "workers": 2}, {"workers": 2}):
    right.append(parallel_apply(f, a, **options).tobytes() == loop.tobytes())
    right.append(parallel_map(lambda k: {"x": f(a[k]).sum()}, range(300), **options)
                 == [{"x": loop[k].sum()} for k in range(300)])
large = np.ones((3, 300_000))
right.append(parallel_apply(f, large, isolate=True, workers=2).tobytes()
             == np.array([row * 3 + row.sum() for row in large]).tobytes())
there = parallel_map(lambda _: low(), range(1), isolate=True, workers=1)[0]
connections = parallel_map(lambda _: multiprocessing.Pipe(), range(3), isolate=True, workers=2)
arrived = min(one.fileno() for pair in connections for one in pair)
found = {"right": right, "before": before, "after": low(), "there": there, "arrived": arrived}
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""

SUBSETS = [subset for n in range(4) for subset in itertools.combinations((0, 1, 2), n)]
CLOSING = {0: "<&-", 1: ">&-", 2: "2>&-"}


def run_closed(subset, code, tmp_path, *options):
    """Run a script whose standard descriptors in `subset` are closed; return what it has written."""
    (tmp_path / "script.py").write_text(code)
    shell = 'exec "$@" ' + " ".join(CLOSING[fd] for fd in subset)
    command = [sys.executable, "-W", "error", *options, "script.py", "found.json"]
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command], cwd=tmp_path, capture_output=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "found.json") as file:
        return json.load(file)


@pytest.mark.parametrize("subset", SUBSETS, ids=lambda subset: "".join(map(str, subset)) or "none")
def test_c_library_that_prints_to_closed_streams(subset, tmp_path):
    found = run_closed(subset, SCRIPT, tmp_path)
    assert found["right"] == [True] * 5
    # A program may want the numbers itself.
    assert found["after"] == found["before"]
    assert found["before"].keys() == {str(fd) for fd in {0, 1, 2} - set(subset)}
    assert found["arrived"] > 2
    expected = {"0": os.devnull} | {fd: found["before"].get(fd, os.devnull) for fd in ("1", "2")}
    assert found["there"] == expected


def test_files_in_the_place_of_closed_streams(tmp_path):
    """A program closes its output, and the next files that it opens get the numbers: workers must not write there."""
    opening = """
import os
os.close(1)
os.close(2)
data = open("data", "w"), open("more", "w")
assert [file.fileno() for file in data] == [1, 2]
"""
    isolated = SCRIPT.replace(', {"workers": 2}):', ",):")  # here the C library of the caller itself would print there
    closing = "assert os.fstat(1).st_size == os.fstat(2).st_size == 0"
    found = run_closed((), opening + isolated + closing, tmp_path)
    assert found["right"] == [True] * 3
    assert found["there"] == {"0": os.devnull, "1": os.devnull, "2": os.devnull}


def test_even_the_start_of_the_interpreter_has_standard_streams(tmp_path):
    """What the fork server, or a portable worker, imports at its start may open files, with no low numbers.

    The resource tracker of multiprocessing is another matter.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if sys.argv[0] == '-c' and 'resource_tracker' not in sys.orig_argv[-1]:\n"
        "    names = [os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1, 2)]\n"
        "    with open(os.environ['SEEN'], 'w') as file: file.write(str(names))\n"
    )
    code = (
        "import json, os, sys\n"
        f"os.environ['PYTHONPATH'] = {str(tmp_path)!r} + ':' + os.environ.get('PYTHONPATH', '')\n"
        f"os.environ['SEEN'] = {str(tmp_path / 'seen')!r}\n"
        "from parwise import parallel_map\n"
        "with open(sys.argv[1], 'w') as file: json.dump(parallel_map(abs, range(3), isolate=True), file)\n"
    )
    assert run_closed((0, 1, 2), code, tmp_path) == [0, 1, 2]
    assert (tmp_path / "seen").read_text() == str([os.devnull] * 3)
