"""mypy and pyright accept what is right in user code, and refuse what is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def refused_by_mypy(path):
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", str(path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
    assert not found.stderr
    return {int(line) for line in re.findall(rf"{path.name}:(\d+): error", found.stdout)}


def refused_by_pyright(path):
    main = "import basedpyright.pyright; basedpyright.pyright.main()"  # brings its own node along
    command = [sys.executable, "-c", main, "--outputjson", "--pythonpath", sys.executable, str(path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
    reports = json.loads(found.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in reports if one["severity"] == "error"}


def environment():
    return {**os.environ, "MYPYPATH": str(ROOT / "src"), "PYTHONPATH": str(ROOT / "src")}


CHECKERS = {"mypy": refused_by_mypy, "basedpyright": refused_by_pyright}


@pytest.fixture(params=CHECKERS)
def refused(request):
    """The lines of a file that a checker refuses."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return CHECKERS[request.param]


def test_right(refused):
    assert refused(HERE / "right.py") == set()


def test_wrong(refused):
    lines = (HERE / "wrong.py").read_text().splitlines()
    assert refused(HERE / "wrong.py") == {k for k, line in enumerate(lines, 1) if line.endswith("# wrong")}
