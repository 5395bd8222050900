"""What surrounds a function in the caller surrounds it in warm workers, too, as it is at each call."""

from __future__ import annotations

import contextvars
import csv
import importlib
import locale
import logging
import os
import socket
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from parwise import Pool, ReproducibilityWarning, parallel_apply, parallel_map

from ..support.functions import ISOLATED
from ..support.scripts import run_script

WAYS = {
    "isolated": lambda f, pool: parallel_map(f, range(4), **ISOLATED),
    "arrays": lambda f, pool: list(parallel_apply(lambda x: str(f(x)), np.arange(4), **ISOLATED)),
    "pool": lambda f, pool: parallel_map(f, range(4), executor=pool, isolate=True),
    "submit": lambda f, pool: [pool.submit(f, k).result() for k in range(3)],
    "pool.map": lambda f, pool: list(pool.map(f, range(4))),
    "pool.imap": lambda f, pool: list(pool.imap(f, range(4), isolate=True)),
}


@pytest.fixture(params=WAYS)
def in_workers(request, pool):
    """Return the results of a function in workers, once each; text from `parallel_apply`."""
    return lambda f: {str(one) for one in WAYS[request.param](f, pool)}


@pytest.fixture
def zone(monkeypatch):
    """Set the time zone of this process, as users do."""

    def set_zone(name, tell=True):
        monkeypatch.setenv("TZ", name)
        if tell:
            time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def local_time(k):
    return [time.strftime("%H %Z", time.localtime(second)) for second in (0, 2e8, 4e8, 1.7e9)], os.environ.get("TZ")


def test_time_zone(in_workers, zone):
    for name in ("Asia/Tokyo", "Europe/Paris", "Europe/Berlin", "<-03>3", "UTC"):
        zone(name)
        assert in_workers(local_time) == {str(local_time(0))}


def test_variable_of_the_time_zone_alone_changes_nothing(in_workers, zone):
    zone("Asia/Tokyo")
    in_workers(local_time)
    zone("America/New_York", tell=False)
    here = str(local_time(0))
    assert "JST" in here
    assert in_workers(local_time) == {here}
    time.tzset()
    assert in_workers(local_time) == {str(local_time(0))}


def mode_of_new_file(folder):
    path = folder / f"file {os.getpid()} {time.perf_counter_ns()}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
    return oct(path.stat().st_mode)


def test_umask(in_workers, tmp_path):
    for mask in (0o077, 0o002):
        before = os.umask(mask)
        try:
            assert in_workers(lambda k: mode_of_new_file(tmp_path)) == {mode_of_new_file(tmp_path)}
        finally:
            os.umask(before)


def test_what_the_standard_library_keeps(in_workers, monkeypatch, tmp_path):
    """Settings that functions can read everywhere."""

    def see(k):
        return (
            csv.field_size_limit(),
            socket.getdefaulttimeout(),
            sys.getrecursionlimit(),
            locale.setlocale(locale.LC_NUMERIC),
            os.getcwd(),
            sys.path[-1],
            os.environ.get("PARWISE_TEST"),
            np.geterr()["over"],
            np.get_printoptions()["precision"],
            str(warnings.filters[0][2]),
            logging.getLogger("parwise.test").level,
        )

    limit, timeout, depth = csv.field_size_limit(99), socket.getdefaulttimeout(), sys.getrecursionlimit()
    try:
        socket.setdefaulttimeout(7.0)
        sys.setrecursionlimit(depth + 7)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PARWISE_TEST", "1")
        logging.getLogger("parwise.test").setLevel(7)
        with np.errstate(over="raise"), np.printoptions(precision=3), warnings.catch_warnings():
            warnings.simplefilter("ignore", BytesWarning)
            assert in_workers(see) == {str(see(0))}
    finally:
        csv.field_size_limit(limit)
        socket.setdefaulttimeout(timeout)
        sys.setrecursionlimit(depth)
        logging.getLogger("parwise.test").setLevel(logging.NOTSET)
    assert in_workers(see) == {str(see(0))}


# Context variables.

MODULE = """
import contextvars
level = contextvars.ContextVar("level", default="flat")
class Settings:
    unit = contextvars.ContextVar("unit")
def see(k=0):
    return level.get(), Settings.unit.get(None)
"""


@pytest.fixture
def make_module(monkeypatch, tmp_path):
    """Write a module, with a date of its own, and import it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = set()

    def write(name, text, date=0):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        moment = time.time() + date
        os.utime(path, (moment, moment))
        importlib.invalidate_caches()
        made.add(name)
        return importlib.import_module(name)

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_context_variables_of_a_module(in_workers, make_module):
    module = make_module("surrounding_module", MODULE)

    def late(k):
        from surrounding_module import see

        return see()

    def with_values():
        module.level.set("deep")
        module.Settings.unit.set(("m", 2))
        assert in_workers(module.see) == in_workers(late) == {"('deep', ('m', 2))"}

    contextvars.copy_context().run(with_values)
    assert in_workers(module.see) == in_workers(late) == {"('flat', None)"}


def test_context_variables_of_a_closure(in_workers):
    mine = contextvars.ContextVar("mine", default=1)

    def see(k):
        return mine.get()

    def change(k):
        mine.set(5)
        return 0

    assert in_workers(see) == {"1"}
    contextvars.copy_context().run(lambda: (mine.set(2), in_workers(see)))
    token = mine.set(3)
    assert in_workers(see) == {"3"}
    mine.reset(token)
    in_workers(change)
    if mine.get() == 1:  # not where the function was called here, too
        assert in_workers(see) == {"1"}


def test_context_variable_comes_back_as_itself(in_workers):
    mine = contextvars.ContextVar("mine")
    (found,) = set(parallel_map(lambda k: mine, range(3), **ISOLATED))
    assert found is mine


def test_context_variable_whose_value_cannot_be_sent(in_workers):
    mine = contextvars.ContextVar("mine", default=0)

    def with_values():
        mine.set(threading.Lock())
        assert in_workers(lambda k: mine.get()) == {"0"}

    contextvars.copy_context().run(with_values)


def test_calls_submitted_in_different_contexts(pool):
    mine = contextvars.ContextVar("mine", default=0)

    def see(k):
        return mine.get(), np.geterr()["over"]

    def submit(k):
        mine.set(k)
        with np.errstate(over="raise" if k % 2 else "ignore"):
            return pool.submit(see, k)

    futures = [contextvars.copy_context().run(submit, k) for k in range(20)]
    assert [one.result() for one in futures] == [(k, "raise" if k % 2 else "ignore") for k in range(20)]


def test_context_variables_of_a_script_in_submitted_calls():
    """Also with multiprocessing, which gives the script's module a second name, and if functions differ."""
    done = run_script(
        """
        import contextvars
        import multiprocessing
        from parwise import Pool

        one, two = contextvars.ContextVar("one", default=0), contextvars.ContextVar("two", default=0)

        class Holder:
            three = contextvars.ContextVar("three", default=0)

        one.set(1), two.set(2), Holder.three.set(3)
        with Pool(1) as pool:
            print(*(pool.submit(f).result() for f in (one.get, lambda: two.get(), lambda: Holder.three.get())))
            print(*pool.map(lambda k: (one.get(), two.get(), Holder.three.get()), range(2)))
        """
    )
    assert (done.stdout, done.stderr) == ("1 2 3\n(1, 2, 3) (1, 2, 3)\n", "")


def test_context_variables_of_modules_that_travel(make_module, pool):
    """A module that workers cannot import comes with the submitted function."""
    module = make_module(
        "surrounding_travels",
        "import contextvars\nv = contextvars.ContextVar('v', default=0)\ndef f(): return v.get()\n",
    )
    os.remove(module.__file__)
    module.v.set(5)
    assert pool.submit(module.f).result() == 5


# Modules that were reloaded or edited.

USER = "import surrounding_helper\ndef f(k): return surrounding_helper.number()\n"


def test_reloaded_module(in_workers, make_module):
    helper = make_module("surrounding_helper", "def number(): return 1\n")
    module = make_module("surrounding_user", USER)
    assert in_workers(module.f) == {"1"}
    make_module("surrounding_helper", "def number(): return 2\n", 10)
    importlib.reload(helper)
    assert in_workers(module.f) == {"2"}
    make_module("surrounding_user", "def f(k): return 3\n", 20)
    importlib.reload(module)
    assert in_workers(module.f) == {"3"}


def test_module_imported_again(in_workers, make_module):
    module = make_module("surrounding_module", "def f(k): return 1\n")
    assert in_workers(module.f) == {"1"}
    del sys.modules["surrounding_module"]
    module = make_module("surrounding_module", "def f(k): return 2\n", 10)
    assert in_workers(module.f) == {"2"}


@pytest.mark.parametrize("first", [False, True])
def test_edited_module_computes_as_here(in_workers, make_module, first):
    """Whether the first call comes before or after the edit."""
    module = make_module("surrounding_module", "NUMBER = 1\ndef g(): return NUMBER\ndef f(k): return g(), 1\n")
    if first:
        assert in_workers(module.f) == {"(1, 1)"}
    make_module("surrounding_module", "NUMBER = 2\ndef g(): return NUMBER\ndef f(k): return g(), 2\n", 10)
    assert in_workers(module.f) == {"(1, 1)"}
    with Pool(2) as pool:
        assert set(pool.map(module.f, range(3))) == {(1, 1)}


def test_edited_helper_is_told(make_module):
    """The worker imports the helper itself."""
    make_module("surrounding_helper", "def number(): return 1\n")
    module = make_module("surrounding_user", USER)
    make_module("surrounding_helper", "def number(): return 2\n", 10)
    with Pool(2) as pool, pytest.warns(ReproducibilityWarning, match=r"'surrounding_helper' was edited.*reload"):
        parallel_map(module.f, range(3), executor=pool, isolate=True)


def test_module_written_again_with_the_same_text(in_workers, make_module):
    module = make_module("surrounding_module", "def f(k): return 1\n")
    make_module("surrounding_module", "def f(k): return 1\n", 10)
    with Pool(2) as pool:
        assert parallel_map(module.f, range(3), executor=pool, isolate=True) == [1, 1, 1]


# multiprocessing.


def test_multiprocessing():
    """Proxies connect with the caller's key, and shared memory outlives the workers that attach to it."""
    done = run_script(
        """
        import multiprocessing
        from multiprocessing import shared_memory
        from parwise import Pool, parallel_map
        multiprocessing.set_start_method("fork")  # not Python 3.14's way, which finds no script that comes by stdin

        def fill(k, shared):
            shared.append(k)

        def read(k, name):
            from multiprocessing import shared_memory
            memory = shared_memory.SharedMemory(name=name)
            memory.close()
            return k

        def make(k):
            from multiprocessing import shared_memory
            memory = shared_memory.SharedMemory(create=True, size=8)
            memory.buf[0] = k
            memory.close()
            return memory.name

        parallel_map(abs, range(3), isolate=True, workers=2)
        multiprocessing.current_process().authkey = b"another"
        with multiprocessing.Manager() as manager:
            shared = manager.list()
            parallel_map(fill, range(3), args=(shared,), isolate=True, workers=2)
            with Pool(2) as pool:
                pool.submit(fill, 3, shared).result()
            print(sorted(shared))
        memory = shared_memory.SharedMemory(create=True, size=8)
        for _ in range(3):
            with Pool(2) as pool:
                print(parallel_map(read, range(3), args=(memory.name,), executor=pool, isolate=True))
        shared_memory.SharedMemory(name=memory.name).close()
        memory.close()
        memory.unlink()
        with Pool(2) as pool:
            names = parallel_map(make, range(3), executor=pool, isolate=True)
        for name in names:
            memory = shared_memory.SharedMemory(name=name)
            print(memory.buf[0])
            memory.close()
            memory.unlink()
        """,
        "-",
    )
    assert done.stdout.split("\n")[:-1] == ["[0, 1, 2, 3]", *["[0, 1, 2]"] * 3, "0", "1", "2"]
    assert not done.stderr
