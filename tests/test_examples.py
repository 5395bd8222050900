"""Each example runs, has the loop's bits and draws its picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {"quickstart": ["--step", "8"]}
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "common")


@pytest.mark.parametrize("name", NAMES)
def test_example(name, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", picture, *SMALL.get(name, ["--small"])],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "same bits   True" in done.stdout
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
