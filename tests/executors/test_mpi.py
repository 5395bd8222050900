"""The contract over the ranks of MPI, in a run of its own under mpiexec."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

# MPI from PyPI has it beside this Python.
MPIEXEC = shutil.which("mpiexec") or shutil.which("mpiexec", path=sysconfig.get_path("scripts"))

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"),
    pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec: no MPI is installed"),
    pytest.mark.skipif("PMI_RANK" in os.environ, reason="this is the run under mpiexec"),
]


def run(*arguments):
    """Run Python under mpiexec with three ranks on loopback; rank 0 is the caller, the others are workers."""
    environ = {
        **os.environ,
        "PARWISE_EXECUTORS": "mpi",
        "HYDRA_IFACE": "lo",
        "FI_PROVIDER": "tcp",
        "FI_TCP_IFACE": "lo",
    }
    command = [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)


def test_contracts_over_three_ranks():
    files = [os.path.join(os.path.dirname(__file__), f"test_{name}.py") for name in ("contract", "foreign_executors")]
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "mpi", *files)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert passed
    assert int(passed[1]) > 150


def test_functions_of_a_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run(str(script))
    assert (done.returncode, done.stdout) == (0, "[0.0, 1.5, 3.0] True\n"), done.stderr[-3000:]


SCRIPT = """
import os
from dataclasses import dataclass

import numpy as np
from mpi4py.futures import MPIPoolExecutor

from parwise import parallel_map


@dataclass
class Result:
    value: float
    rank: int


def f(x):
    return Result(x * FACTOR, os.getpid())


FACTOR = 1.5

if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        found = parallel_map(f, range(60), executor=executor)
        print([one.value for one in found[:3]], len({one.rank for one in found}) > 1)
"""
