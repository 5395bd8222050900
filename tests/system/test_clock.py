"""Clocks that a test has stopped or moved, as freezegun and `unittest.mock` do it, change nothing."""

from __future__ import annotations

import time

import pytest

from parwise import _clock

from ..support.scripts import run_script

# freezegun puts its functions in `time`, and wherever a module holds one that they replace.
PATCH = """
import sys, time
def patch(value, step):
    if getattr(time.monotonic, "__name__", "") == "seconds":
        return
    real = {name: getattr(time, name) for name in dir(time) if callable(getattr(time, name))}
    now = [value]
    def seconds(*given):
        now[0] += step
        return now[0]
    def nanoseconds(*given):
        return int(seconds() * 1e9)
    names = "time monotonic perf_counter thread_time process_time clock_gettime".split()
    fakes = {name: seconds for name in names} | {name + "_ns": nanoseconds for name in names}
    fakes["sleep"] = lambda _: None
    found = {id(real[name]): fake for name, fake in fakes.items()}
    for module in list(sys.modules.values()):
        for name, held in list(vars(module).items()):
            if id(held) in found:
                setattr(module, name, found[id(held)])
"""
CLOCKS = {"far ahead": (4e9, 0.0), "at zero": (0.0, 0.0), "leaping": (4e9, 3600.0), "going back": (4e9, -3600.0)}
IMPORT = "import parwise._executors.processes.runner, parwise._api.pool, parwise._core.cursor"
CALLS = """
import math, os
import numpy as np
from parwise import ElementTimeoutError, Pool, parallel_apply, parallel_imap, parallel_map, report

def f(x):
    patch({value}, {step})  # in the workers, too: `f` may be decorated with `freeze_time`
    return math.sqrt(sum(range(20_000)) + x)

numbers = np.arange(100.0)
want = [f(x) for x in numbers]
shown = []
with report() as told:
    for options in (
        {{"isolate": True, "timeout": 40.0}},
        {{"timeout": 40.0, "retries": 1, "progress": lambda done, total: shown.append(done)}},
        {{}},
        {{"executor": "threads"}},
    ):
        assert parallel_apply(f, numbers, workers=2, **options).tolist() == want
        assert parallel_map(f, numbers, workers=2, **options) == want
        assert list(parallel_imap(f, numbers, workers=2, **options)) == want
assert shown.count(100) == 3  # the end of each call
assert len(told.calls) == 12
for call in told.to_dict()["calls"]:
    assert 0 < call["f_seconds"] < 40 and 0 < call["seconds"] < 40, call
with Pool(2) as pool:
    assert [future.result() for future in [pool.submit(f, x) for x in numbers[:20]]] == want[:20]
    assert list(pool.map(f, numbers)) == want

def hang(x):
    patch({value}, {step})
    while x == 1:
        pass
    return x

try:
    parallel_apply(hang, np.arange(3), workers=2, timeout=0.5)
except ElementTimeoutError as error:
    assert error.index == 1
    print("right")
"""


@pytest.mark.parametrize("order", ["parwise first", "clock first"])
@pytest.mark.parametrize("clock", CLOCKS)
def test_patched_clocks(clock, order, tmp_path):
    value, step = CLOCKS[clock]
    now = f"patch({value}, {step})\n"
    script = tmp_path / "script.py"
    script.write_text(
        PATCH + (f"{IMPORT}\n{now}" if order == "parwise first" else now) + CALLS.format(value=value, step=step)
    )
    done = run_script("", str(script))
    assert (done.stdout, done.stderr) == ("right\n", "")


def test_clocks_are_the_machines():
    for name in ("monotonic", "perf_counter", "thread_time", "process_time"):
        ours, theirs = getattr(_clock, name), getattr(time, name)
        before, between, after = theirs(), ours(), theirs()
        assert before <= between <= after
        assert ours is not theirs
    before, between, after = time.monotonic_ns(), _clock.monotonic_ns(), time.monotonic_ns()
    assert before <= between <= after
    assert abs(_clock.time_ns() - time.time_ns()) < 10e9


def test_import_sets_no_time_zone():
    """To execute another instance of `time` would call `tzset`."""
    done = run_script(
        """
        import os, time
        os.environ["TZ"] = "UTC"
        time.tzset()
        os.environ["TZ"] = "Asia/Tokyo"
        import numpy as np, parwise._clock
        print(time.localtime(0).tm_hour)
        """,
        "-",
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
