"""`Pool`: map, imap, apply and parwise's own calls over it, and its initializer."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time

import dask
import dask.array
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import parwise
from parwise import Pool, WorkerDiedError, parallel_apply, parallel_imap, parallel_map

from ..support.examples import examples
from ..support.functions import FUNCTIONS
from ..support.oracle import assert_same, assert_same_items, loop


@pytest.mark.parametrize("name", FUNCTIONS)
def test_map_and_imap_of_anything(name, pool):
    func, items = FUNCTIONS[name]
    want = [func(item) for item in items]
    assert_same_items(list(pool.map(func, items)), want)
    assert_same_items(list(pool.imap(func, items)), want)
    assert_same_items([pool.submit(func, item).result() for item in items[:5]], want[:5])
    assert_same_items(parallel_map(func, items, executor=pool), want)


@examples(40)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=3),
    chunksize=st.one_of(st.none(), st.integers(1, 70)),
)
def test_map_as_the_builtin(lengths, chunksize, pool):
    def f(*items):
        return items, sum(items)

    lists = [range(n) for n in lengths]
    assert list(pool.map(f, *lists, chunksize=chunksize)) == list(map(f, *lists))


def test_map_begins_at_once(pool, gate):
    results = pool.map(gate, ["a", "b"], chunksize=1)
    gate.came("a")
    gate.came("b")
    gate.open()
    assert list(results) == ["a", "b"]


def test_map_raises_where_the_result_would_come(pool):
    results = pool.map(lambda k: 1 // k, [2, 1, 0, 4], chunksize=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_map_loses_no_result_before_an_error(pool, chunksize):
    """The number of items that travel together makes no difference."""
    results, found = pool.map(lambda k: 1 // (k - 20), range(100), chunksize=chunksize), []
    with pytest.raises(ZeroDivisionError):
        found.extend(results)
    assert found == [-1] * 20
    assert next(results, "end") == "end"
    pool.map(abs, range(9)).close()


@pytest.mark.parametrize("chunksize", [None, 1, 3, 7, 60])
def test_map_loses_no_result_before_one_that_cannot_be_sent(pool, chunksize):
    results, found = pool.map(lambda k: threading.Lock() if k > 29 else [k], range(60), chunksize=chunksize), []
    with pytest.raises(TypeError, match="lock") as caught:
        found.extend(results)
    assert found == [[k] for k in range(30)]
    assert caught.value.__notes__ == ["while sending the result of this call"]


def test_map_cancels_what_is_behind_an_error_that_is_kept(tmp_path):
    def work(k):
        time.sleep(0.01)  # the work
        if k == 0:
            raise KeyError(k)
        (tmp_path / str(k)).touch()

    with Pool(1) as pool:
        with pytest.raises(KeyError) as caught:
            list(pool.map(work, range(50), chunksize=1))
        assert pool.apply(abs, (-1,)) == 1  # after all before it
        assert len(list(tmp_path.iterdir())) < 49
    assert caught.value.args == (0,)


def test_map_gives_up_waiting(pool, gate):
    results = pool.map(gate, ["a"], timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)


# As an executor of parwise.


def test_workers_of_calls(pool):
    with parwise.options(executor=pool):
        pids = set(parallel_map(lambda k: os.getpid(), range(40), isolate=True))
    assert pids <= {worker.pid for worker in pool._pool.workers}
    with pytest.raises(ValueError, match="workers=3 is more than the 2 of the pool"):
        parallel_map(abs, [1, 2], executor=pool, workers=3)


def test_beside_other_calls(pool, gate):
    """While one worker is busy, calls over arrays use the other one."""
    held = pool.submit(gate)
    gate.came()
    rows = np.random.default_rng(0).standard_normal((40, 30))
    assert_same(parallel_apply(np.sort, rows, executor=pool), np.sort(rows))
    assert_same(parallel_apply(np.sort, rows, executor=pool, isolate=True), np.sort(rows))
    assert list(pool.imap(abs, range(30))) == list(range(30))
    with pytest.raises(KeyError, match="7"):
        parallel_map(lambda k: {}[k], range(7, 20), executor=pool, isolate=True)
    assert not held.done()
    gate.open()
    assert held.result() == "gate"


def test_calls_that_want_the_workers_for_themselves(pool):
    """A call with retries waits until other calls end, and they wait for it."""
    order = []

    def others():
        order.extend(pool.submit(abs, k).result() for k in range(20))

    thread = threading.Thread(target=others)
    thread.start()
    for _ in range(5):
        assert parallel_map(lambda k: k * 2, range(20), executor=pool, retries=1) == list(range(0, 40, 2))
    thread.join()
    assert order == list(range(20))


def test_in_the_loop_over_its_own_results(pool):
    found = [
        (k, pool.apply(abs, (-k,)), list(pool.map(abs, [k])), parallel_map(abs, [k, k], executor=pool))
        for k in pool.imap(lambda k: k, range(12))
    ]
    assert found == [(k, k, [k], [k, k]) for k in range(12)]


@pytest.mark.parametrize("more", [{}, {"isolate": True}, {"retries": 1}, {"timeout": 60}])
def test_in_the_items_of_its_own_calls(pool, initialized_pool, more):
    """Chained maps: the iterator of the outer map waits for the same workers."""
    want = [k + 2 for k in range(30)]
    for one in (pool, initialized_pool):

        def f(k):
            return k + 1

        assert parallel_map(f, one.imap(f, range(30), **more), executor=one, **more) == want
        assert parallel_map(f, (one.apply(f, (k,)) for k in range(30)), executor=one, **more) == want
        assert list(one.imap(f, one.imap(f, range(30), **more), **more)) == want


def test_timeout_and_retries_of_imap(pool, tmp_path):
    """`timeout` and `retries` hold for `imap` too, in workers that may be killed."""

    def f(k):
        if k == 2:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(tmp_path / "once", os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
        while k == 4:
            pass
        return k

    pids = {worker.pid for worker in pool._pool.workers}
    with pytest.warns(RuntimeWarning, match="took more than timeout"):
        found = list(pool.imap(f, range(6), timeout=0.5, retries=1, errors="ignore"))
    assert found == [0, 1, 2, 3, None, 5]
    assert pids == {worker.pid for worker in pool._pool.workers}


def test_from_many_threads(pool):
    rows = np.random.default_rng(0).standard_normal((30, 50))
    wrong = []

    def work(k):
        for j in range(8):
            found = [
                pool.apply(abs, (-k,)) == k,
                list(pool.map(abs, [j, -j])) == [j, j],
                parallel_map(abs, range(-j, 9), executor=pool) == list(map(abs, range(-j, 9))),
                parallel_apply(np.sort, rows, executor=pool, isolate=j % 2 == 0).tobytes() == np.sort(rows).tobytes(),
            ]
            if not all(found):
                wrong.append((k, j, found))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_in_a_mapped_function(pool):
    """A submitted function runs in the mapped function's own thread, since it would wait for the same workers."""
    total = parallel_map(lambda k: pool.submit(abs, -k).result(), range(3), executor=pool, workers=1)
    assert total == [0, 1, 2]
    with pytest.raises(TypeError, match="cannot be pickled"):
        parallel_map(lambda k: pool.submit(abs, -k).result(), range(3), executor=pool, isolate=True)


def test_as_scipy_and_dask_take_it(pool):
    want = scipy.optimize.differential_evolution(
        scipy.optimize.rosen, [(0, 2)] * 2, updating="deferred", rng=1, maxiter=5, polish=False
    )
    found = scipy.optimize.differential_evolution(
        scipy.optimize.rosen, [(0, 2)] * 2, updating="deferred", rng=1, maxiter=5, polish=False, workers=pool.map
    )
    assert (found.x.tobytes(), found.fun) == (want.x.tobytes(), want.fun)
    x = dask.array.arange(100, chunks=10)
    with dask.config.set(scheduler="processes", pool=pool):
        assert (x**2).sum().compute() == (np.arange(100) ** 2).sum()


@pytest.mark.parametrize("index", [0, 5, 11])
def test_death_in_imap(mortal, index):
    def f(k):
        if k == index:
            os.kill(os.getpid(), signal.SIGKILL)
        return k

    found = []
    with pytest.raises(WorkerDiedError) as caught:
        found.extend(mortal.imap(f, range(12), isolate=True))
    assert found == list(range(len(found)))
    assert caught.value.index == len(found)
    assert len(found) <= index
    with pytest.warns(RuntimeWarning, match="no result"):
        found = list(mortal.imap(f, range(12), isolate=True, errors="ignore"))
    assert all(one in (None, k) for k, one in enumerate(found))
    assert found[index] is None


def test_options_of_faults(mortal, tmp_path):
    def f(k):
        if k == 3:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(tmp_path / "once", os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
        while k == 50:
            pass
        return k

    assert parallel_map(f, range(9), executor=mortal, isolate=True, retries=1) == list(range(9))
    with pytest.raises(parwise.ElementTimeoutError):
        parallel_map(f, range(48, 52), executor=mortal, timeout=0.3)
    assert mortal.apply(abs, (-3,)) == 3


# The initializer.

model = None


def load_model(value, log):
    """Set a global of this module, as a script's initializer does."""
    global model
    model = value
    with open(log, "a") as file:
        file.write("loaded\n")


def script(folder):
    """Define functions in a module that cannot be imported, as a script or notebook does."""
    namespace = {"__name__": "__main__"}
    code = """
model = None
def load_model(value, log):
    global model
    model = value
    with open(log, "a") as file:
        file.write("loaded\\n")
def predict(x):
    return model + x
def forget():
    global model
    model = None
"""
    exec(code, namespace)
    return namespace


@pytest.mark.parametrize("array", [False, True])
def test_initializer_sets_globals_of_a_script(tmp_path, array):
    names, log = script(tmp_path), tmp_path / "log"
    value = np.arange(50_000.0) if array else 10
    with Pool(2, initializer=names["load_model"], initargs=(value, log)) as pool:
        want = [value + k for k in range(30)]
        assert_same_items(list(pool.map(names["predict"], range(30))), want)
        assert_same_items(list(pool.imap(names["predict"], range(30))), want)
        assert_same_items([pool.submit(names["predict"], k).result() for k in range(5)], want[:5])
        assert_same_items(parallel_map(names["predict"], range(30), executor=pool), want)
        # One at a time, the caller's own value never comes in.
        names["model"] = "the caller's own"
        assert_same_items(list(pool.map(names["predict"], range(30))), want)
        assert log.read_text() in ("loaded\n", "loaded\n" * 2)  # the second worker may never be up in time
        assert "with an initializer" in repr(pool)
    assert names["model"] == "the caller's own"


def test_initializer_of_a_module(tmp_path):
    with Pool(2, initializer=load_model, initargs=(3, tmp_path / "log")) as pool:
        assert list(pool.map(lambda k: model_here() + k, range(5))) == [3, 4, 5, 6, 7]
    assert model is None


def model_here():
    return model


def test_new_workers_are_initialized_too(tmp_path):
    names, log = script(tmp_path), tmp_path / "log"

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    with Pool(1, initializer=names["load_model"], initargs=(1, log)) as pool:
        assert pool.apply(names["predict"], (1,)) == 2
        assert isinstance(pool.submit(die).exception(), WorkerDiedError)
        assert pool.apply(names["predict"], (1,)) == 2
    assert log.read_text() == "loaded\n" * 2


def test_initialized_functions_never_run_here(initialized_pool):
    here = os.getpid()
    for options in ({}, {"isolate": False}):
        pids = parallel_map(lambda k: os.getpid(), range(9), executor=initialized_pool, **options)
        assert here not in pids
    assert here not in list(parallel_imap(lambda k: os.getpid(), range(9), executor=initialized_pool))
    assert_same(parallel_apply(np.sort, np.eye(3)[::-1], executor=initialized_pool), loop(np.sort, np.eye(3)[::-1]))


def test_initializer_that_raises():
    with Pool(2, initializer=divmod, initargs=(1, 0)) as pool:
        for _ in range(2):
            for call in (
                lambda: pool.apply(abs, (1,)),
                lambda: parallel_map(abs, [1, 2, 3], executor=pool),
                lambda: list(pool.map(abs, [1, 2])),
                lambda: list(pool.imap(abs, [1, 2])),
            ):
                with pytest.raises(ZeroDivisionError) as caught:
                    call()
                assert "in the initializer of a worker process" in caught.value.__notes__


def test_initializer_that_forks(tmp_path):
    """A child that the initializer forks does not become a second worker at the same socket."""

    fifo = tmp_path / "child"
    os.mkfifo(fifo)

    def fork():
        if os.fork():
            (tmp_path / f"{os.getpid()} parent").touch()
        else:
            fifo.write_text("forked")

    with Pool(1, initializer=fork) as pool:
        assert pool.apply(abs, (-1,)) == 1
        assert fifo.read_text() == "forked"
        assert list(pool.map(abs, range(50), chunksize=1)) == list(range(50))
        assert len({pool.apply(os.getpid) for _ in range(20)}) == 1
        assert len(list(tmp_path.glob("* parent"))) == 1


def test_initializer_that_ends_its_worker():
    with Pool(1, initializer=os._exit, initargs=(4,)) as pool:
        with pytest.raises(WorkerDiedError, match="exit code 4"):
            pool.apply(abs, (1,))
        with pytest.raises(WorkerDiedError, match="exit code 4"):
            parallel_map(abs, [1, 2, 3], executor=pool)


def test_initializer_that_speaks(capsys):
    with Pool(1, initializer=print, initargs=("ready",)) as pool:
        assert pool.apply(abs, (-1,)) == 1
    assert capsys.readouterr().out == "ready\n"


# How it looks, and what it refuses.


def test_repr(gate):
    with Pool(2) as pool:
        assert repr(pool) == "<parwise.Pool, open: 0 of 2 workers started>"
        held = [pool.submit(gate, name) for name in "abc"]
        gate.came("a")
        gate.came("b")
        assert "2 of 2 workers started, 2 calls at work and 1 waiting" in repr(pool)
        assert "2 at work, 1 waiting" in pool._repr_html_()
        gate.open()
        assert [one.result() for one in held] == ["a", "b", "c"]
    assert repr(pool) == "<parwise.Pool, closed: 0 of 2 workers started>"
    assert "closed" in pool._repr_html_()


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"workers": 0}, ValueError, "at least 1, got 0"),
        ({"workers": 2.0}, TypeError, "must be an int"),
        ({"workers": True}, TypeError, "must be an int"),
        ({"initializer": 3}, TypeError, "must be callable"),
        ({"initializer": abs, "initargs": [1]}, TypeError, "must be a tuple"),
        (
            {"initializer": abs, "initargs": (threading.Lock(),)},
            TypeError,
            "the initializer or finalizer, or an argument of it, cannot be sent .* inside the function$",
        ),
    ],
)
def test_wrong_arguments(given, error, match):
    with pytest.raises(error, match=match):
        Pool(**given)


def test_wrong_options(pool, initialized_pool):
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(abs, [1], chunksize=0)
    with pytest.raises(ValueError, match="a pool with an initializer rules out"):
        parallel_map(abs, [1, 2], executor=initialized_pool, verify=True)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(pool)
    with pytest.raises(TypeError, match="the call cannot be sent.* inside the function$"):  # a pool has no threads
        pool.submit(abs, threading.Lock())
    with pytest.raises(TypeError, match="executor"):
        pool.imap(abs, [1], executor="threads")
