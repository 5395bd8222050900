"""Functions and classes of a script, over executors whose processes run the script's file again, or know none of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

WAYS = {
    "spawn": "ProcessPoolExecutor(2, multiprocessing.get_context('spawn'))",
    "fork": "ProcessPoolExecutor(2, multiprocessing.get_context('fork'))",
    "forkserver": "ProcessPoolExecutor(2, multiprocessing.get_context('forkserver'))",
    "loky": "loky.ProcessPoolExecutor(2)",
    "dask": "distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=':0', host='127.0.0.1')",
}

SCRIPT = """
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import Enum

import numpy as np

from parwise import parallel_apply, parallel_map

FACTOR = 2


class Color(Enum):
    RED = 1


class Fault(Exception):
    def __init__(self, place, *, why):
        super().__init__(place)
        self.why = why


@dataclass
class Result:
    value: float
    color: Color
    process: int


def helper(x):
    return x * FACTOR


def f(x):
    return Result(helper(x), Color.RED, os.getpid())


def fails(x):
    if x == 33:
        raise Fault(x, why=Color.RED)
    return x


def check(executor):
    found = parallel_map(f, range(60), executor=executor)
    assert [one.value for one in found] == [3 * k for k in range(60)], found
    assert all(type(one) is Result and one.color is Color.RED for one in found)
    assert len({one.process for one in found} - {os.getpid()}) >= 1
    try:
        parallel_map(fails, range(60), executor=executor)
    except Fault as error:
        assert (error.args, error.why, error.__notes__[-1]) == ((33,), Color.RED, "in item 33: 33"), error.__notes__
    else:
        raise AssertionError("no error")
    print("right")


if __name__ == "__main__":
    FACTOR = 3  # processes that run the file again have 2
    with EXECUTOR as executor:
        check(executor)
"""


def code(way):
    imports = {"loky": "from joblib.externals import loky", "dask": "import distributed"}.get(way, "")
    return imports + textwrap.dedent(SCRIPT).replace("EXECUTOR", WAYS[way])


@pytest.mark.parametrize(
    ("way", "arguments"), [*((way, ["thescript.py"]) for way in WAYS), ("spawn", ["-m", "thescript"])]
)
def test_a_script_of_its_own(tmp_path, way, arguments):
    if way in ("loky", "dask"):
        pytest.importorskip({"loky": "joblib", "dask": "distributed"}[way])
    (tmp_path / "thescript.py").write_text(code(way))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr[-2000:]
