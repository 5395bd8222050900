"""The option `setup`: a function that each process calls before the mapped one."""

from __future__ import annotations

import builtins
import contextvars
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import parwise
from parwise import Pool, ReproducibilityWarning, options, parallel, parallel_apply, parallel_imap, parallel_map

from ..support.functions import ISOLATED, slowly
from ..support.scripts import run_script

ANY = {"serial": {"executor": "serial"}, "isolated": ISOLATED, "threads": {"executor": "threads", "workers": 2}}


@pytest.fixture
def marked():
    """A setup that leaves a mark in its process; it is taken away here afterwards."""

    def mark(value="mark"):
        def setup():
            builtins.parwise_mark = (*getattr(builtins, "parwise_mark", ()), value)

        return setup

    yield mark
    vars(builtins).pop("parwise_mark", None)


def see(*given):
    return getattr(builtins, "parwise_mark", None)


def text(*given):
    return str(see())


def test_every_runner_calls_it_once(runner, marked):
    setup = marked()
    for _ in range(2):
        assert set(parallel_map(see, range(40), setup=setup, **runner)) == {("mark",)}


def test_other_calls_do_not_find_it(marked):
    for options_ in ({"setup": marked("a")}, {}, {"setup": marked("b")}, {"setup": marked("a")}):
        value = (options_["setup"].__closure__[0].cell_contents,) if options_ else None
        assert set(parallel_map(see, range(9), **ISOLATED, **options_)) == {value}
    assert see() is None  # nor does this process


def test_equal_functions_are_one(marked):
    """A loop may make the function anew each time."""
    pids = [parallel_map(lambda k: os.getpid(), range(20), setup=marked(), **ISOLATED) for _ in range(3)]
    assert len({pid for one in pids for pid in one}) <= 2


def test_what_it_holds_matters():
    unit = ["m"]

    def setup():
        os.environ["PARWISE_TEST"] = unit[0]

    def f(k):
        return os.environ.get("PARWISE_TEST")

    assert set(parallel_map(f, range(9), setup=setup, **ISOLATED)) == {"m"}
    unit[0] = "cm"
    assert set(parallel_map(f, range(9), setup=setup, **ISOLATED)) == {"cm"}
    assert "PARWISE_TEST" not in os.environ


@pytest.mark.parametrize("where", ANY)
def test_every_entry_point_takes_it(where, marked):
    more = {"setup": marked(), **ANY[where]}
    a = np.zeros((3, 2))
    expected = "('mark',)"
    assert set(parallel_apply(text, a, **more)) == {expected}
    assert set(parallel_imap(text, range(3), **more)) == {expected}
    assert set(parallel(**more)(text).parallel(range(3))) == {expected}
    assert set(parwise.vectorize(text, otypes=["U20"], **more)(a).ravel()) == {expected}
    with options(**more):
        assert set(parwise.apply_along_axis(text, 0, a)) == {expected}
        assert set(parallel_map(text, range(3))) == {expected}


def test_numpys_own_loop_finds_it(marked):
    with options(setup=marked()):
        assert set(parwise.apply_along_axis(text, 0, np.ma.zeros((3, 2)))) == {"('mark',)"}


def test_small_call_finds_it_here(marked):
    assert parallel_map(see, [1], setup=marked()) == [("mark",)]
    parallel_map(see, [], setup=marked("none"))
    assert see() == ("mark",)


def test_called_here_once(marked):
    setup = marked()
    for _ in range(3):
        parallel_map(see, range(3), setup=setup)
    assert see() == ("mark",)
    parallel_map(see, range(3), setup=marked("other"))
    parallel_map(see, range(3), setup=setup)
    assert see() == ("mark", "other", "mark")


def test_workers_and_caller(eager, marked):
    found = parallel_map(lambda k: (slowly(0), see(k))[1], range(30), setup=marked(), workers=2)
    assert set(found) == {("mark",)}


def test_pool(marked):
    with Pool(2, initializer=marked("first")) as pool:
        setup = marked("second")
        assert set(parallel_map(see, range(9), executor=pool, setup=setup)) == {("first", "second")}
        assert set(pool.imap(see, range(9), setup=setup)) == {("first", "second")}
        assert pool.submit(see).result() == ("first",)
        assert set(pool.map(see, range(9))) == {("first",)}
    assert see() is None


def test_renewed_worker_calls_it_too(marked):
    def f(k):
        if k == 5 and not os.environ.get("PARWISE_TEST_DIED"):
            os._exit(1)
        return see()

    with pytest.raises(parwise.WorkerDiedError):
        parallel_map(f, range(9), setup=marked(), **ISOLATED)
    assert set(parallel_map(see, range(9), setup=marked(), **ISOLATED)) == {("mark",)}
    with pytest.warns(RuntimeWarning, match="no result for 1 of 9"):
        found = parallel_map(f, range(9), setup=marked(), errors="ignore", **ISOLATED)
    assert {one for k, one in enumerate(found) if k != 5} == {("mark",)}


@pytest.mark.filterwarnings("ignore:1 ")
def test_exception(runner):
    def setup():
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file") as caught:
        parallel_map(see, range(40), setup=setup, **runner)
    assert any("in the function given as setup" in note for note in caught.value.__notes__)
    parallel_map(abs, range(5), **runner)


def test_wrong_values():
    for value, name in ((3, "an object of type int"), (int, "the class int")):
        with pytest.raises(TypeError, match=f"setup must be a function without arguments, or None, got {name}"):
            parallel_map(abs, range(3), setup=value)
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to a worker process"):
        parallel_map(abs, range(3), setup=lambda: lock, **ISOLATED)


def test_globals_of_a_script():
    """What `setup` sets by ``global`` is each process's own: it may be a connection, which cannot be sent."""
    done = run_script(
        """
        import os, threading, time
        from parwise import parallel_map

        connection = None
        opened = []

        def connect():
            global connection
            connection = threading.Lock(), os.getpid()
            opened.append(1)

        def use(k):
            time.sleep(0.01)
            return connection[1] == os.getpid()

        print(set(parallel_map(use, range(9), isolate=True, workers=2, setup=connect)), opened)
        for _ in range(2):
            print(set(parallel_map(use, range(60), workers=2, setup=connect)), opened)
        """
    )
    assert done.stdout.splitlines() == ["{True} []", "{True} [1]", "{True} [1]"], done.stderr


def test_difference_names_it(eager):
    """A setting that only this process has."""
    pids = {os.getpid()}

    def f(k):
        return float(os.getpid() in pids) if getattr(builtins, "parwise_mark", None) else 0.5

    builtins.parwise_mark = True
    try:
        with pytest.warns(ReproducibilityWarning, match=r"that sets them in each worker"):
            parallel_map(f, range(300), workers=2)
    finally:
        del builtins.parwise_mark


variable = contextvars.ContextVar("variable", default=0)


def _set_variable():
    variable.set(7)


def _see_variable(k):
    return variable.get()


def test_context_variable_set_in_another_executor():
    """What `setup` has set there is found by each task, until another function is the setup."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        given = {"executor": executor, "isolate": True}
        assert parallel_map(_see_variable, range(3), setup=_set_variable, **given) == [7, 7, 7]
        assert parallel_map(_see_variable, range(3), setup=_nothing_else, **given) == [0, 0, 0]


def _nothing_else():
    pass
