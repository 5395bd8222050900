"""`Pool`: workers of one's own, as an executor of the standard library and of parwise."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Executor, Future

import dask
import dask.array
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import parwise
from parwise import Pool, WorkerDiedError, parallel_apply, parallel_imap, parallel_map
from parwise._workers.default_pool import default_pool

from .oracle import assert_same, loop
from .test_lists import FUNCTIONS, same


@pytest.fixture
def pool(own_pool):
    return own_pool


def wait_for(path):
    while not path.exists():
        time.sleep(0.001)


class Gate:
    """Holds calls in workers until it is opened."""

    def __init__(self, folder):
        self.open_path, self.folder = folder / "open", folder

    def __call__(self, name="gate"):
        (self.folder / f"{name} came").touch()
        wait_for(self.open_path)
        return name

    def came(self, name="gate"):
        wait_for(self.folder / f"{name} came")

    def open(self):
        self.open_path.touch()


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path)
    yield gate
    gate.open()


# As of the standard library.


def test_is_an_executor(pool):
    assert isinstance(pool, Executor)
    future = pool.submit(divmod, 7, 2)
    assert isinstance(future, Future)
    assert future.result() == (3, 1)
    assert pool.submit(lambda *a, **k: (a, k), 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})
    assert set(concurrent.futures.wait([pool.submit(abs, -k) for k in range(20)]).done) != set()
    assert sorted(f.result() for f in concurrent.futures.as_completed(pool.submit(abs, -k) for k in range(20))) == list(
        range(20)
    )


def test_runs_in_the_pools_own_workers(pool):
    pids = {pool.submit(os.getpid).result() for _ in range(20)}
    assert pids <= {link.pid for link in pool._pool.workers}
    assert not pids & {os.getpid(), *(link.pid for link in default_pool().workers)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_map_and_imap_of_anything(name, pool):
    func, items = FUNCTIONS[name]
    want = [func(item) for item in items]
    same(list(pool.map(func, items)), want)
    same(list(pool.imap(func, items)), want)
    same([pool.submit(func, item).result() for item in items[:5]], want[:5])
    same(parallel_map(func, items, executor=pool), want)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=3),
    chunksize=st.one_of(st.none(), st.integers(1, 70)),
)
def test_map_as_the_builtin(lengths, chunksize, own_pool):
    def f(*items):
        return items, sum(items)

    lists = [range(n) for n in lengths]
    assert list(own_pool.map(f, *lists, chunksize=chunksize)) == list(map(f, *lists))


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
    """However many items go to a worker together."""
    results, found = pool.map(lambda k: 1 // (k - 20), range(100), chunksize=chunksize), []
    with pytest.raises(ZeroDivisionError):
        found.extend(results)
    assert found == [-1] * 20
    assert next(results, "end") == "end"
    pool.map(abs, range(9)).close()


def test_map_gives_up_waiting(pool, gate):
    results = pool.map(gate, ["a"], timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)


def test_exception_has_its_traceback(pool):
    def broken():
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone") as caught:
        pool.apply(broken)
    assert "in broken" in str(caught.value.__cause__)
    assert "_manager" not in str(caught.value.__cause__)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(5)])
def test_exceptions_that_are_none(pool, error):
    def f():
        raise error

    assert type(pool.submit(f).exception()) is type(error)
    assert pool.apply(abs, (-3,)) == 3


def test_apply(pool):
    assert pool.apply(pow, (2, 5)) == 32
    assert pool.apply(int, ("20",), {"base": 3}) == 6


def test_cancel(pool, gate):
    held = [pool.submit(gate, name) for name in "ab"]
    gate.came("a")
    gate.came("b")
    waiting = [pool.submit(abs, k) for k in range(3)]
    assert all(future.running() for future in held)
    assert waiting[1].cancel()
    assert not held[0].cancel()
    gate.open()
    assert [future.result() for future in held] == ["a", "b"]
    assert [waiting[0].result(), waiting[2].result()] == [0, 2]
    with pytest.raises(CancelledError):
        waiting[1].result()


WAITING = {
    "apply": lambda pool: pool.apply(abs, (-8,)),
    "map": lambda pool: list(pool.map(abs, range(100))),
    "imap": lambda pool: list(pool.imap(abs, range(100))),
    "parallel_map": lambda pool: parallel_map(abs, range(100), executor=pool),
    "retries": lambda pool: parallel_map(abs, range(100), executor=pool, retries=1),
    "exception": lambda pool: pool.submit(abs, -8).exception(),
}


@pytest.mark.parametrize("way", WAITING.values(), ids=WAITING)
def test_callbacks_and_what_they_cannot_do(pool, gate, way, tmp_path):
    """They run in the thread that would have to bring what they wait for."""
    seen, done = [], threading.Event()

    def after(future):
        seen.append(future.result())
        seen.append(pool.submit(abs, -8))
        try:
            way(pool)
        except RuntimeError as error:
            seen.append(str(error))
        done.set()

    held = pool.submit(gate)
    gate.came()
    (tmp_path / "other").mkdir()
    other = Gate(tmp_path / "other")
    pool.submit(other, 7).add_done_callback(after)
    other.open()
    assert done.wait(60)
    gate.open()
    assert seen[0] == 7
    assert seen[1].result() == 8
    assert "a callback of one of the pool's own futures cannot wait" in seen[2]
    assert held.result() == "gate"


def test_no_thread_to_be_had(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    with Pool(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="can't start"):
                pool.submit(abs, -1)
        assert pool.apply(abs, (-2,)) == 2


def test_shutdown():
    pool = Pool(2)
    future = pool.submit(abs, -1)
    pool.shutdown()
    assert future.result() == 1
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shut down"):
            pool.submit(abs, 1)
        with pytest.raises(RuntimeError, match="shut down"):
            parallel_map(abs, [1, 2], executor=pool)
        with pytest.raises(RuntimeError, match="shut down"):
            pool.imap(abs, [1, 2])
        pool.shutdown()


def test_shutdown_without_waiting(gate):
    pool = Pool(2)
    future = pool.submit(gate)
    pool.shutdown(wait=False)
    assert not future.done()
    gate.open()
    assert future.result() == "gate"


def test_shutdown_said_again(gate):
    """To wait after all, or to have it sooner."""
    pool = Pool(1)
    held, waiting = pool.submit(gate), pool.submit(abs, 1)
    gate.came()
    pool.shutdown(wait=False)
    waiting.add_done_callback(lambda _: gate.open())  # as it is cancelled
    pool.shutdown(cancel_futures=True)
    assert held.done()
    assert waiting.cancelled()


@pytest.mark.parametrize("explicit", [False, True])
def test_ctrl_c_while_it_is_left(tmp_path, explicit):
    """The wait for calls at work ends, and they do."""
    gate = Gate(tmp_path)

    def hit():
        gate.came()
        while not pool._closed:
            time.sleep(0.001)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=hit)
    with contextlib.suppress(KeyboardInterrupt), Pool(1) as pool:
        held, waiting = pool.submit(gate), pool.submit(abs, 1)
        thread.start()
        if explicit:
            pool.shutdown()
    thread.join()
    assert "interrupt" in str(held.exception(60))
    assert waiting.cancelled()


def test_shutdown_cancels(gate):
    with Pool(1) as pool:
        held, waiting = pool.submit(gate), pool.submit(abs, 1)
        gate.came()
        waiting.add_done_callback(lambda _: gate.open())  # as it is cancelled
        pool.shutdown(cancel_futures=True)
    assert held.result() == "gate"
    assert waiting.cancelled()


def test_left_by_an_exception(gate):
    pool = Pool(1)
    held, waiting = pool.submit(gate), pool.submit(abs, 1)
    gate.came()
    waiting.add_done_callback(lambda _: gate.open())  # as it is cancelled
    with pytest.raises(ValueError, match="mine"), pool:
        raise ValueError("mine")
    assert held.result() == "gate"
    assert waiting.cancelled()


def test_left_by_ctrl_c(tmp_path):
    """Calls at work are ended, however long they take."""
    gate = Gate(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), Pool(1) as pool:
        held = pool.submit(gate)
        gate.came()
        signal.raise_signal(signal.SIGINT)
    assert "interrupt" in str(held.exception())


def test_unused_and_forgotten():
    with Pool(2):
        pass
    Pool(2).shutdown()
    pool = Pool(2)
    pool.apply(abs, (1,))
    del pool
    gc.collect()


def test_forgotten_with_calls_at_work(gate):
    """They come to their end."""
    pool = Pool(1)
    future = pool.submit(gate)
    del pool
    gc.collect()
    gate.open()
    assert future.result() == "gate"


def test_end_of_the_program():
    """Python waits for calls that nobody waits for, and leaves no process."""
    code = """
import parwise, time, sys
def late():
    time.sleep(0.05)
    print("done")
pool = parwise.Pool(1)
pool.submit(late)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


# As an executor of parwise.


def test_workers_of_calls(pool):
    assert parwise.options(executor=pool)
    with parwise.options(executor=pool):
        pids = set(parallel_map(lambda k: os.getpid(), range(40), isolate=True))
    assert pids <= {link.pid for link in pool._pool.workers}
    with pytest.raises(ValueError, match="workers=3 is more than the 2 of the pool"):
        parallel_map(abs, [1, 2], executor=pool, workers=3)


def test_beside_other_calls(pool, gate):
    """A worker that is busy leaves the other one to calls over arrays."""
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
    """With retries, say: they wait for others to end, and those for them."""
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
    """Maps one behind another: the outer one's iterator waits for the same workers."""
    want = [k + 2 for k in range(30)]
    for one in (pool, initialized_pool):

        def f(k):
            return k + 1

        assert parallel_map(f, one.imap(f, range(30), **more), executor=one, **more) == want
        assert parallel_map(f, (one.apply(f, (k,)) for k in range(30)), executor=one, **more) == want
        assert list(one.imap(f, one.imap(f, range(30), **more), **more)) == want


def test_timeout_and_retries_of_imap(pool, tmp_path):
    """They hold there too, in workers that may be killed."""

    def f(k):
        if k == 2:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(tmp_path / "once", os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
        while k == 4:
            pass
        return k

    pids = {link.pid for link in pool._pool.workers}
    with pytest.warns(RuntimeWarning, match="took more than timeout"):
        found = list(pool.imap(f, range(6), timeout=0.5, retries=1, errors="ignore"))
    assert found == [0, 1, 2, 3, None, 5]
    assert pids == {link.pid for link in pool._pool.workers}


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
    """Whose workers it would wait for: it runs there."""
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


# When workers die.


@pytest.fixture
def mortal():
    with Pool(2) as pool:
        yield pool


def test_death_costs_one_call(mortal, gate):
    def die():
        gate()
        os.kill(os.getpid(), signal.SIGKILL)

    dying, others = mortal.submit(die), [mortal.submit(abs, k) for k in range(20)]
    assert [one.result() for one in others] == list(range(20))
    gate.open()
    with pytest.raises(WorkerDiedError, match=r"ended by SIGKILL in a call of .*die") as caught:
        dying.result()
    assert (caught.value.index, caught.value.signal) == (None, signal.SIGKILL)
    assert "workers=1" not in str(caught.value)
    assert mortal.apply(abs, (-3,)) == 3


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


def test_results_that_cannot_be_sent(mortal):
    with pytest.raises(TypeError, match="cannot pickle"):
        mortal.apply(threading.Lock)
    with pytest.raises(TypeError, match="cannot be sent"):
        mortal.submit(abs, threading.Lock())
    assert mortal.apply(abs, (-3,)) == 3


class Here:
    """Can be rebuilt in workers only."""

    def __reduce__(self):
        return rebuild, (os.getpid(),)


def rebuild(pid):
    if os.getpid() != pid:
        raise OSError("not here")


def test_result_that_cannot_be_rebuilt_costs_one_call(mortal, gate):
    held, lost = mortal.submit(gate), mortal.submit(Here)
    assert "not here" in str(lost.exception())
    assert [mortal.submit(abs, -k).result() for k in range(3)] == [0, 1, 2]
    gate.open()
    assert held.result() == "gate"
    with pytest.raises(OSError, match="not here") as caught:
        parallel_map(lambda k: Here() if k == 3 else k, range(9), executor=mortal, isolate=True)
    assert "while reading the results of these elements" in caught.value.__notes__


def test_large_arguments_and_results(mortal):
    """Of more than fits a slot."""
    large = np.random.default_rng(0).standard_normal((1000, 1000))
    assert_same(mortal.apply(np.negative, (large,)), -large)
    assert_same(mortal.apply(np.transpose, (large,)), large.T)


def test_text(mortal, capsys):
    """What calls say is repeated here."""
    mortal.apply(print, ("hello",))
    mortal.apply(print, ("x" * 100_000,))
    list(mortal.map(print, range(3), chunksize=3))
    assert capsys.readouterr().out == "hello\n" + "x" * 100_000 + "\n" + "0\n1\n2\n"


# The initializer.

model = None


def load_model(value, log):
    """As of a script: it sets a global of its own module."""
    global model
    model = value
    with open(log, "a") as file:
        file.write("loaded\n")


def script(folder):
    """Functions as a script or notebook defines them, whose module cannot be imported."""
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
        same(list(pool.map(names["predict"], range(30))), want)
        same(list(pool.imap(names["predict"], range(30))), want)
        same([pool.submit(names["predict"], k).result() for k in range(5)], want[:5])
        same(parallel_map(names["predict"], range(30), executor=pool), want)
        # One at a time, the caller's own value never comes in.
        names["model"] = "the caller's own"
        same(list(pool.map(names["predict"], range(30))), want)
        assert log.read_text() == "loaded\n" * 2
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
    """The child that comes back from it is no second worker at the same socket."""

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
        ({"initializer": abs, "initargs": (threading.Lock(),)}, TypeError, "cannot be sent"),
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
    with pytest.raises(TypeError, match="executor"):
        pool.imap(abs, [1], executor="threads")


def test_in_a_forked_child(pool):
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                pool.submit(abs, 1)
            except RuntimeError as error:
                code = 0 if "forked" in str(error) else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert pool.apply(abs, (-1,)) == 1


def test_forgotten_in_a_forked_child():
    """Another thread had the workers when the fork came, and is not there to let go of them."""
    pool = Pool(1)
    pool.apply(abs, (1,))
    while pool._manager._thread is not None:
        time.sleep(0.001)
    with pool._pool.lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            del pool
            gc.collect()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    pool.shutdown()
