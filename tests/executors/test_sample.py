"""A sample of the contract where programs run without standard streams, and as another user.

Each runs in a pytest of its own, which tells what failed in a file: it has no terminal.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILE = "tests/executors/test_contract.py"
RUNNERS = ["processes", "isolated", "threads", "pool", "initialized_pool", "process_executor"]
TESTS = [
    "test_several_arrays_args_and_kwargs",
    "test_closure_with_array",
    "test_tuple_results",
    "test_out",
    "test_exception_of_lowest_index",
    "test_arithmetic_context_is_the_callers",
    "test_nested_call",
    "test_memmap",
]
SAMPLE = [f"{FILE}::{name}[{runner}]" for name in TESTS for runner in RUNNERS]
SAMPLE += [f"{FILE}::test_warnings_reach_the_caller[{isolate}]" for isolate in (True, False)]
# Without the plugins that would open the streams anew, or write to them.
WITHOUT = [f"-pno:{name}" for name in ("terminal", "faulthandler", "cacheprovider")]
# `python -m pytest` ends by a flush of `sys.stdout`, which may be None.
MAIN = "import pytest, sys; sys.exit(int(pytest.main(sys.argv[1:])))"
PYTEST = [sys.executable, "-c", MAIN, "-s", *WITHOUT, "-o", "addopts=--import-mode=importlib"]

PLACES = {
    "closed streams": ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"],
    "closed output": ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"],
    "another user": ["unshare", "--user", "--map-user=1000", "--map-group=1000"],
}


def failures(path):
    """The names of cases that failed, with the last line of each."""
    cases = list(ElementTree.parse(path).iter("testcase"))
    told = {case.get("name"): [one.get("message") for one in case if one.tag in ("failure", "error")] for case in cases}
    assert len(told) == len(SAMPLE) == 50
    assert not any(one.tag == "skipped" for case in cases for one in case)
    return {name: messages for name, messages in told.items() if messages}


@pytest.mark.parametrize("place", PLACES)
def test_sample_of_the_contract(place, tmp_path):
    prefix = PLACES[place]
    if prefix[0] == "unshare":
        if shutil.which("unshare") is None:
            pytest.skip("needs unshare")
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
            pytest.skip("may not make a user namespace here")
    report = tmp_path / "report.xml"
    # Given away: what is printed there would tell why there is no report.
    command = [*prefix, *PYTEST, f"--basetemp={tmp_path / 'own'}", f"--junitxml={report}", *SAMPLE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert report.exists(), (done.returncode, done.stdout, done.stderr)
    assert failures(report) == {}
    assert done.returncode == 0
