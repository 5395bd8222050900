"""Scripts with classes of their own, and the ways in which they map."""

from __future__ import annotations

from .scripts import run_script

#: Ways to map in a script; `mapped` gives a list. Forked explicitly: Python 3.14 finds no script that comes by stdin.
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


# Each way in a process of its own, with libraries as just imported: to import them takes longer than most calls here.
EACH = """
codes = {codes!r}
for way, code in codes.items():
    for stream in (sys.stdout, sys.stderr):
        print("\\nway:" + way, file=stream, flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of a fork beside threads, which BLAS has
        if not os.fork():
            break
    os.wait()
else:
    sys.exit()
signal.alarm(30)  # one that hangs is named, too
here = os.getpid()
del codes, stream
exec(code)
"""


def lines_of(code, way):
    """A script without its imports."""
    lines = [line.strip() for line in WAYS[way].strip().splitlines()]
    return "\n".join([*lines, code, "if pool is not None: pool.shutdown()", "print('done')"])


def check(code, way="isolated"):
    """Run a script that maps in some way; what it asserts holds."""
    done = run_script(HEAD + lines_of(code, way))
    assert (done.stderr, done.stdout) == ("", "done\n")


def check_each(code, ways=tuple(WAYS)):
    """Run a script that maps in several ways, one after another, whose name is `way`; what it asserts holds in each."""
    codes = {way: lines_of(code, way) for way in ways}
    done = run_script(HEAD + "import signal, warnings\n" + EACH.format(codes=codes))
    errors, output = (
        dict(part.split("\n", 1) for part in text.split("\nway:")[1:]) for text in (done.stderr, done.stdout)
    )
    wrong = {way: errors.get(way) for way in ways if (errors.get(way), output.get(way)) != ("", "done\n")}
    assert not wrong, "\n".join(f"{way}: {error}" for way, error in wrong.items())
    assert (done.returncode, list(output)) == (0, list(ways))
