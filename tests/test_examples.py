"""Each example runs, has the loop's bits and draws its picture."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
#: The line that sets how much an example computes names the value of a quick try.
SIZE = re.compile(r"^(\w+ = )\d+(  # .*\b(\d+) is a quick try)$", re.MULTILINE)
NEEDS = {"curve_fit_pixels": ["scipy", "xarray"], "image_stack": ["skimage"], "image_filter": ["scipy", "skimage"]} | {
    name: ["scipy"] for name in ("parameter_sweep", "scipy_optimize")
}


def quick(name):
    """The example's text, with the size of a quick try."""
    text, found = SIZE.subn(r"\g<1>\g<3>\g<2>", (EXAMPLES / f"{name}.py").read_text())
    assert found == 1
    return text


@pytest.mark.parametrize("name", NAMES)
def test_example(name, tmp_path):
    for module in ("matplotlib", *NEEDS.get(name, [])):
        pytest.importorskip(module)
    script = tmp_path / f"{name}.py"
    script.write_text(quick(name))
    (tmp_path / "data").symlink_to(EXAMPLES / "data")
    done = subprocess.run(
        [sys.executable, "-W", "error", script], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "same bits   True" in done.stdout
    assert re.search(r"^speed-up    \d", done.stdout, re.MULTILINE)
    assert (tmp_path / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", NAMES)
def test_example_says_how_busy_the_machine_is(name):
    assert 'print(f"machine     ' in (EXAMPLES / f"{name}.py").read_text()


def test_sources_of_all_data_are_told():
    told = (EXAMPLES / "data" / "SOURCES.md").read_text()
    assert all(f"`{path.name}`" in told for path in (EXAMPLES / "data").iterdir() if path.name != "SOURCES.md")
