"""`Pool(finalizer=...)`: called once in each worker that ends in order, and in no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import parwise
from parwise import ElementTimeoutError, Pool, parallel_map
from parwise._executors.submit.call_dispatcher import CallDispatcher
from parwise._workers.worker.calls import unpack_answer

from ..support.functions import slowly

opened = None


def open_it(path):
    global opened
    opened = f"opened {os.getpid()}"


def use(x):
    global opened
    opened = f"used {os.getpid()}"
    return x, os.getpid()


def close_it(path):
    with open(path, "a") as file:
        file.write(f"{opened}\n")


def lines(path):
    return sorted(path.read_text().splitlines()) if path.exists() else []


@pytest.fixture
def path(tmp_path):
    return tmp_path / "closed"


@pytest.fixture
def pool(path):
    with Pool(2, initializer=open_it, initargs=(path,), finalizer=close_it, finalargs=(path,)) as pool:
        yield pool


@pytest.mark.parametrize("way", ["map", "submit", "apply"])
def test_each_worker_once(pool, path, way):
    if way == "map":
        results = parallel_map(use, range(8), executor=pool)
    else:
        results = list(pool.map(use, range(8))) if way == "submit" else [pool.apply(use, (k,)) for k in range(8)]
    assert [x for x, _ in results] == list(range(8))
    assert lines(path) == []
    pids = {pid for _, pid in results}
    pool.shutdown()
    found = lines(path)
    assert os.getpid() not in pids
    assert {f"used {pid}" for pid in pids} <= set(found)
    assert len(found) == len(set(found)) <= 2
    pool.shutdown()
    assert lines(path) == found


def test_workers_whose_results_came_before_their_message(pool, path, monkeypatch):
    """Results of a batch may be read from its log; the message that it is done is still to come at the shutdown."""
    receive, step, late = CallDispatcher._receive_outcome, CallDispatcher.step, []

    def receive_late(self, worker, number, header, extent, buffers):
        one = worker.assignments[number]
        self._accept(one, unpack_answer(header, buffers)[2])
        if self._calls.items.open:  # not the last results
            receive(self, worker, number, header, extent, buffers)
        else:
            late.append((worker, number, header, extent, buffers))

    def step_late(self, timeout):
        while pool._manager._closing and late:
            receive(self, *late.pop())
            timeout = 0
        return step(self, timeout)

    monkeypatch.setattr(CallDispatcher, "_receive_outcome", receive_late)
    monkeypatch.setattr(CallDispatcher, "step", step_late)
    pids = {pid for _, pid in pool.map(use, range(8), chunksize=1)}
    assert late
    pool.shutdown()
    assert {f"used {pid}" for pid in pids} == set(lines(path))


def test_without_an_initializer(path):
    with Pool(1, finalizer=close_it, finalargs=(path,)) as pool:
        ((_, pid),) = parallel_map(use, [1], executor=pool)
        assert pid != os.getpid()
    assert lines(path) == [f"used {pid}"]


def test_a_pool_that_nobody_used(path):
    Pool(2, finalizer=close_it, finalargs=(path,)).shutdown()
    assert lines(path) == []


def test_not_in_a_worker_that_was_killed(pool, path):
    with pytest.raises(ElementTimeoutError):
        parallel_map(_hang, range(2), executor=pool, timeout=0.3)
    ((_, pid),) = pool.map(use, [1])
    pool.shutdown()
    assert f"used {pid}" in lines(path)
    assert not any(line.startswith("hung") for line in lines(path))


def _hang(k):
    global opened
    opened = f"hung {os.getpid()}"
    signal.pause()


def test_not_after_a_death(pool, path):
    with pytest.raises(parwise.WorkerDiedError):
        pool.apply(os._exit, (3,))
    pool.apply(use, (1,))
    pool.shutdown()
    assert 1 <= len(lines(path)) <= 2


def test_a_worker_that_is_replaced(pool, path):
    """One that has grown too large, between two calls."""
    from parwise._workers.pool import worker_pool

    ((_, pid),) = parallel_map(use, [1], executor=pool, workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_pool, "IDLE_BYTES", 0)
        patch.setattr(worker_pool, "LOOK_SECONDS", 0)
        parallel_map(use, [1], executor=pool, workers=1)
    assert f"used {pid}" in lines(path)


def test_exceptions_are_warnings():
    pool = Pool(1, finalizer=_fail)
    parallel_map(abs, range(3), executor=pool)
    with pytest.warns(RuntimeWarning, match=r"finalizer raised in worker process \d+: ZeroDivisionError\('no'\)"):
        pool.shutdown()


def _fail():
    raise ZeroDivisionError("no")


def test_output(capsys):
    with Pool(1, finalizer=_print) as pool:
        parallel_map(abs, range(3), executor=pool)
        capsys.readouterr()
    assert capsys.readouterr().out == "x" * 100_000 + "\nend\n"


def _print():
    print("x" * 100_000)
    print("end")


def test_a_failed_initializer(path):
    pool = Pool(1, initializer=_fail, finalizer=close_it, finalargs=(path,))
    with pytest.raises(ZeroDivisionError):
        parallel_map(abs, range(3), executor=pool)
    pool.shutdown()
    assert lines(path) == []


def test_a_finalizer_that_kills_its_worker():
    with Pool(2, finalizer=os._exit, finalargs=(1,)) as pool:
        assert parallel_map(slowly, [0.0, 1.0], executor=pool) == [0.0, 1.0]


SCRIPT = """
import os, sys, parwise
import numpy as np

def close_it(path):
    with open(path, "a") as file:
        file.write("closed\\n")

if __name__ == "__main__":
    pool = parwise.Pool(2, finalizer=close_it, finalargs=(sys.argv[1],))
    parwise.parallel_map(abs, range(4), executor=pool)
    {end}
"""


@pytest.mark.parametrize(
    ("end", "called"),
    [
        ("pass", True),
        ("sys.exit(0)", True),
        ("del pool", True),
        ("pool.shutdown(wait=False)", True),
        ("pool.submit(abs, 1)", True),
        ("os._exit(0)", False),
        ("os.kill(os.getpid(), 9)", False),
    ],
)
def test_end_of_the_program(path, end, called):
    subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT.format(end=end)), str(path)], check=False, timeout=60)
    assert bool(lines(path)) is called
    assert len(lines(path)) <= 2


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"finalizer": 3}, TypeError, "finalizer must be callable, got int"),
        (
            {"finalizer": abs, "finalargs": 3},
            TypeError,
            r"finalargs must be a tuple, got int; for one write finalargs=\(x",
        ),
        ({"finalizer": abs, "finalargs": ((k for k in ()),)}, TypeError, "sent to a worker"),
    ],
)
def test_refused(given, error, text):
    with pytest.raises(error, match=text):
        Pool(1, **given)


def test_bits(pool):
    a = np.random.default_rng(0).normal(size=(20, 30))
    assert parwise.parallel_apply(np.sum, a, executor=pool).tobytes() == np.array([np.sum(row) for row in a]).tobytes()
