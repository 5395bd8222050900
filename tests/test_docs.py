"""Each page of the documentation is run in an interpreter of its own, and prints the output that it shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers import draw

from .test_examples import NAMES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RUN_PAGE = ROOT / "tests" / "support" / "run_page.py"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
FENCE = re.compile(r"^```(.*)\n(.*\n?)", re.MULTILINE)
#: What is replaced in a page that computes for long: its lines run over fewer rows. What the full ones would print
#: follows from their shape, which the page prints too.
SHORTER = {
    "getting-started": {
        "for line in pixels]": "for line in pixels[:9]]",
        "(roughness, pixels, ": "(roughness, pixels[:9], ",
        ">>> loop.shape\n(165, 195)": ">>> loop.shape\n(9, 195)",
        ">>> result.shape\n(165, 195)": ">>> result.shape\n(9, 195)",
        "32,175 elements in ...": "1,755 elements in ...",
    }
}


def name_of(page):
    return page.relative_to(DOCS).with_suffix("").as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=name_of)
def test_page(page, tmp_path):
    if changes := SHORTER.get(name_of(page)):
        text = page.read_text()
        for long, short in changes.items():
            assert long in text
            text = text.replace(long, short)
        page = tmp_path / page.name
        page.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", RUN_PAGE, page],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        # Workers of Dask that are told to end as they send a heartbeat log an error, on a busy machine.
        env={**os.environ, "DASK_LOGGING__DISTRIBUTED": "critical"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_run(page):
    """A block without prompts that is neither a shell command nor Sphinx's would not be run by any test."""
    opened = FENCE.findall(page.read_text())[::2]
    for language, line in opened:
        assert language in ("console", "text") or language.startswith("{") or line.startswith(">>>"), (language, line)
        assert language != "" or not line.startswith(">>>"), line


def test_gallery_has_every_example():
    text = (DOCS / "gallery.md").read_text()
    assert all(f"../examples/{name}.py" in text and f"\nexamples/{name}\n" in text for name in NAMES)


def test_the_page_explains_each_line_of_a_report():
    source = (ROOT / "src" / "parwise" / "_report" / "report.py").read_text()
    facts = source.partition("def _facts(")[2].partition("\ndef ")[0]
    lines = set(re.findall(r'yield "([a-z -]+)"', facts)) | set(
        re.findall(r'yield \("(.+?)" if .* else "(.+?)"\)', facts)[0]
    )
    page = (DOCS / "guide" / "watching.md").read_text()
    rows = re.findall(r"^\| ([a-z, -]+) \|", page.partition("| line | meaning |")[2], re.MULTILINE)
    assert {"speed-up", "serial", "taken back"} <= lines <= {name for row in rows for name in row.split(", ")}


def named_tests():
    """The named tests of each section of docs/development/faults.md."""
    _, *sections = re.split("^## ", (DOCS / "development" / "faults.md").read_text(), flags=re.MULTILINE)
    tests = {}
    for section in sections:
        title, _, text = section.partition("\n")
        files = re.findall(r"^- `(.*?)`(.*?)(?=^- |^$)", text, re.MULTILINE | re.DOTALL)
        tests[title] = [(file, name) for file, names in files for name in re.findall("`(.*?)`", names) or [""]]
    return tests


def test_each_section_of_faults_names_its_tests():
    sections = re.findall(r"^## (.*)$", (DOCS / "reliability.md").read_text(), re.MULTILINE)
    assert set(sections) - {"Long tests"} | {"Security: what is promised"} == set(named_tests())
    assert all(named_tests().values())


@pytest.mark.parametrize(("file", "name"), sorted({one for tests in named_tests().values() for one in tests}))
def test_tests_of_faults_exist(file, name):
    text = (ROOT / "tests" / file).read_text()
    assert not name or f"def {name}(" in text


@pytest.mark.parametrize("name", ["peers", "peers16"])
def test_benchmarks_are_those_of_the_raw_output(name):
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    page = (DOCS / "benchmarks.md").read_text()
    for quantity in {case["quantity"] for case in result["cases"].values()}:
        assert draw.table(result, quantity) in page
    assert (DOCS / "images" / f"{name}.svg").read_text() == draw.picture(result)
    machine = result["machine"]
    assert all(f"{library} {machine[library]}" in page for library in ("joblib", "mpire", "parwise"))
    assert f"Python {machine['python']}, NumPy {machine['numpy']}" in page


def test_broken_page_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n```python\n>>> 1 + 1\n3\n\n```\n")
    done = subprocess.run([sys.executable, RUN_PAGE, page], capture_output=True, text=True)
    assert done.returncode == 1
    assert "line 4" in done.stdout


def test_readme(tmp_path, monkeypatch):
    """The README's lines run, with the names that they use defined before."""
    xr = pytest.importorskip("xarray")
    pytest.importorskip("dask")
    import parwise.xarray

    def f(first, *others, rng=None):
        return first.mean() if isinstance(first, xr.DataArray) else 0.0

    time = np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]").astype("datetime64[ns]")
    da = xr.DataArray(np.random.default_rng(0).random((len(time), 3, 2)), {"time": time}, ("time", "lat", "lon"))
    image = np.ones((1024, 4))
    names = {
        "array": image, "cube": np.ones((3, 4, 5)), "images": image, "masks": image, "image": image, "model": None,
        "dataset": image, "filenames": ["a", "b"], "np": np, "parwise": parwise, "out": np.empty(1024),
        "parallel_map": parwise.parallel_map, "parallel": parwise.parallel, "a": image, "b": image,
        "parallel_imap": parwise.parallel_imap, "frames": [image, image], "save": np.asarray,
        "load": int, "predict": np.sum,
        "f": f, "g": lambda a, b=None: a if b is None else 0.0, "slope": lambda series: series[-1] - series[0],
        "da": da, "other": da, "ds": xr.Dataset({"sst": da}),
    }  # fmt: skip
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert len(blocks) >= 3
    assert names["out"].tobytes() == bytes(8 * 1024)
