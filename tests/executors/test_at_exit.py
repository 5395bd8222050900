"""Calls while the program ends: from `atexit`, a thread that outlives the main thread, and `__del__`."""

from __future__ import annotations

import os

import pytest

from ..support.scripts import run_script

WAYS = {
    "threads": "parallel_apply(np.sum, np.ones((3, 2)), executor='threads', workers=2).tolist() == [2, 2, 2]",
    "list in threads": "parallel_map(abs, [-1, 2, -3], executor='threads', workers=2) == [1, 2, 3]",
    "iterator in threads": "list(parallel_imap(abs, [-1, 2, -3], executor='threads', workers=2)) == [1, 2, 3]",
    "long": "parallel_map(slowly, [-1, 2, -3], workers=2) == [-1, 2, -3]",
    "iterator": "list(parallel_imap(abs, [-1, 2, -3], workers=2)) == [1, 2, 3]",
    "progress": "parallel_map(abs, [-1, 2], executor='threads', workers=2, progress=lambda *_: None) == [1, 2]",
    "bar": "parallel_map(abs, [-1, 2, -3], workers=2, progress=True) == [1, 2, 3]",
    "isolated": "parallel_map(abs, [-1, 2, -3], isolate=True, workers=2) == [1, 2, 3]",
    "submit": "pool.submit(abs, -1).result() == 1",
    "pool's map": "list(pool.map(abs, [-1, 2])) == [1, 2]",
    "in a pool": "parallel_map(abs, [-1, 2, -3], executor=pool) == [1, 2, 3]",
}
SCRIPT = """
import atexit, sys, threading, time
import numpy as np
from parwise import Pool, ParwiseError, parallel_apply, parallel_imap, parallel_map
pool = Pool(2)
def slowly(x):
    end = time.perf_counter() + 0.03
    while time.perf_counter() < end:
        pass
    return x
def call(when):
    try:
        told = "right" if {way} else "wrong"
    except Exception as error:
        told = type(error).__name__
    print(when, told, flush=True)
class Late:
    def __del__(self):
        call("del")
late = Late()
if {warm}:
    call("here")
left = parallel_imap(slowly, range(50), executor="threads", workers=2)
next(left)
atexit.register(call, "atexit")
thread = threading.Thread(target=lambda: (threading.main_thread().join(), call("thread")))
thread.start()
"""


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_calls_at_the_end(way, warm):
    code = SCRIPT.format(way=WAYS[way], warm=warm)
    done = run_script(code, "-", env={**os.environ, "PYTHONDEVMODE": "1"})
    told = dict(line.split() for line in done.stdout.splitlines())
    assert done.returncode == 0
    assert way == "bar" or done.stderr == ""
    assert set(told) == {"thread", "atexit", "del"} | ({"here"} if warm else set())
    assert told.get("here", "right") == "right"
    # Python 3.12 starts no thread for a pool's calls once the main thread has ended, 3.13 does.
    late = {"right", "RuntimeError", "PythonFinalizationError"} if way in ("submit", "pool's map") else {"right"}
    assert {told["thread"], told["atexit"]} <= late
    # Nothing can be imported any more, nor any process started.
    names = {"isolated": "ParwiseError", "submit": "ParwiseError", "pool's map": "ParwiseError"}
    names |= {"in a pool": "ParwiseError", "progress": "ImportError", "bar": "ImportError"}
    assert told["del"] == names.get(way, "right")
