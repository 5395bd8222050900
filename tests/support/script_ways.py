"""Scripts with classes of their own, and the ways in which they map."""

from __future__ import annotations

from .scripts import run_script

#: Ways to map in a script; `mapped` gives a list. Forked explicitly: Python 3.14 cannot find a script on stdin.
WAYS = {
    "isolated": "mapped = lambda f, items: parallel_map(f, items, workers=2, isolate=True)",
    "helped": "mapped = lambda f, items: parallel_map(f, items, workers=2)",
    "imap": "mapped = lambda f, items: list(parallel_imap(f, items, workers=2))",
    "serial": "mapped = lambda f, items: parallel_map(f, items, executor='serial')",
    "threads": "mapped = lambda f, items: parallel_map(f, items, executor='threads', workers=2)",
    "pool": "pool = Pool(2); mapped = lambda f, items: parallel_map(f, items, executor=pool)",
    "streamed": "pool = Pool(2); mapped = lambda f, items: list(pool.imap(f, items))",
    "initialized": "pool = Pool(2, initializer=abs, initargs=(1,)); mapped = lambda f, items: list(pool.map(f, items))",
    "map": "pool = Pool(2); mapped = lambda f, items: list(pool.map(f, items))",
    "submit": "pool = Pool(2); mapped = lambda f, items: [one.result() for one in [pool.submit(f, k) for k in items]]",
    "forked": """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))
        mapped = lambda f, items: parallel_map(f, items, executor=pool, **options)
    """,
}
HEAD = """
import abc, copy, dataclasses, enum, functools, inspect, os, pickle, sys, time, typing
import numpy as np
from parwise import Pool, parallel_imap, parallel_map
here = os.getpid()
pool, options = None, {}
"""


def check(code, way="isolated"):
    """Run a script that maps in some way; what it asserts holds."""
    lines = [line.strip() for line in WAYS[way].strip().splitlines()]
    whole = [HEAD, *lines, code, "if pool is not None: pool.shutdown()", "print('done')"]
    done = run_script("\n".join(whole))
    assert (done.stderr, done.stdout) == ("", "done\n")
