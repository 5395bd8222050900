"""Defaults for a whole process, from environment variables."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import parwise
from parwise import Pool, parallel_apply, parallel_map
from parwise._core.options.defaults import defaults, parse_workers

from ..support.internals import resolve


@pytest.fixture
def environment(monkeypatch):
    """Sets variables, as if the process had begun with them."""

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"PARWISE_{name.upper()}", value)
        defaults.cache_clear()

    yield set_variables
    monkeypatch.undo()
    defaults.cache_clear()


def test_workers(environment):
    environment(workers="3")
    assert resolve({}).workers == resolve({"workers": None}).workers == 3
    assert resolve({"workers": 2}).workers == 2
    with parwise.options(workers=1):
        assert resolve({}).workers == 1
    with Pool() as pool, Pool(2) as small:
        assert pool.workers == 3
        assert resolve({"executor": small}).workers == 2
    assert parallel_map(abs, range(5), isolate=True) == list(range(5))


def test_executor(environment):
    environment(executor="serial")
    assert parallel_map(lambda k: threading.get_ident(), range(3)) == [threading.get_ident()] * 3
    with parwise.options(executor="threads"):
        assert resolve({}).executor == "threads"
    assert resolve({"executor": "processes"}).executor == "processes"
    with pytest.raises(ValueError, match="timeout=1 needs worker processes") as caught:
        parallel_map(abs, [1], timeout=1)
    note = "executor was not given, so the environment variable PARWISE_EXECUTOR=serial set it"
    assert caught.value.__notes__ == [note]


def test_progress(environment, capsys):
    pytest.importorskip("tqdm")
    environment(progress="1")
    parallel_apply(np.sum, np.ones((4, 2)), executor="serial")
    assert "4/4" in capsys.readouterr().err
    parallel_apply(np.sum, np.ones((4, 2)), executor="serial", progress=False)
    assert capsys.readouterr().err == ""
    environment(progress="0")
    assert resolve({}).progress is None


def test_label(capsys):
    pytest.importorskip("tqdm")
    parallel_apply(np.sum, np.ones((4, 2)), executor="serial", progress="reading")
    assert capsys.readouterr().err.strip().startswith("reading: ")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (None, False)),
        ("4", (4, False)),
        ("portable", (None, True)),
        ("4,portable", (4, True)),
        ("portable, 4", (4, True)),
    ],
)
def test_workers_and_kinds_of_workers(text, found):
    assert parse_workers(text) == found


@pytest.mark.parametrize("text", ["0", "-1", "four", "4,4", "1.5", "4,", "portable,portable", "4 portable", "²"])
def test_wrong_numbers(environment, text):
    environment(workers=text)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"the environment variable PARWISE_WORKERS must be .*, got {text!r}"):
            parallel_map(abs, [1])


@pytest.mark.parametrize(("name", "text"), [("executor", "thread"), ("progress", "yes")])
def test_wrong_words(environment, name, text):
    environment(**{name: text})
    with pytest.raises(ValueError, match=f"the environment variable PARWISE_{name.upper()} must be .*, got '{text}'"):
        parallel_map(abs, [1])


def test_read_once(environment):
    environment(workers="3")
    assert resolve({}).workers == 3
    os.environ["PARWISE_WORKERS"] = "4"
    assert resolve({}).workers == 3
