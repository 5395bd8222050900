"""The examples run, and draw their pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_quickstart(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "quickstart.py"), str(picture), "--step", "8"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert "True" in done.stdout
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
