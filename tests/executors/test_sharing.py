"""Calls of some milliseconds, in which the caller goes on computing beside its workers."""

from __future__ import annotations

import os
import signal
import time
import types
import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parwise import Pool, ReproducibilityWarning, WorkerDiedError, parallel_apply, parallel_map
from parwise._executors.job import task_length
from parwise._executors.processes import background, inline, sharing
from parwise._executors.processes.dispatcher import Dispatcher
from parwise._verify import seam

from ..support.examples import examples
from ..support.functions import ISOLATED, worker_pids
from ..support.internals import make_call, resolve
from ..support.oracle import assert_same, loop

CALLER = os.getpid()
#: Options of calls whose tasks are as short as possible.
TWO = {"workers": 2}


@pytest.fixture
def shared(monkeypatch):
    """Share calls from their second element on, however short they are and busy the machine, in small tasks."""
    for name in ("COLD_SECONDS", "WARM_SECONDS", "BUSY_SECONDS"):
        monkeypatch.setattr(inline, name, -1.0)
    monkeypatch.setattr(inline, "WARM_LOOKS", (0.0,))
    monkeypatch.setattr(inline, "COLD_LOOKS", (0.0,))
    monkeypatch.setattr(inline, "EARLY_SECONDS", 0.0)
    monkeypatch.setattr(task_length, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(sharing, "OWN_SECONDS", 0.0)
    monkeypatch.setattr(sharing, "BESIDE_SECONDS", 1e9)
    for name in ("seems_free", "known_free"):  # BLAS threads may spin at any time
        monkeypatch.setattr(background.CpuAvailability, name, lambda self, **known: True)
    worker_pids(**ISOLATED)


class Log:
    """A file in which the function writes down each element and its process; a new one for each call.

    After an error a worker may still compute elements of its call.
    """

    def __init__(self, folder):
        self.folder = folder
        self.number = 0
        self.start()

    def start(self):
        self.number += 1
        self.path = os.fspath(self.folder / f"log {self.number}")
        with open(self.path, "wb"):
            pass

    def note(self, index):
        with open(self.path, "ab", 0) as file:
            file.write(b"%d %d\n" % (index, os.getpid()))

    @property
    def lines(self):
        with open(self.path) as file:
            return [tuple(map(int, line.split())) for line in file]

    @property
    def by_workers(self):
        return {index for index, pid in self.lines if pid != CALLER}


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def work(x, log, seconds, raises=None):
    """Take a time of its own for each element, print and warn."""
    index = int(x)
    log.note(index)
    spin(seconds[index])
    if index == raises:
        raise ZeroDivisionError(index)
    print("element", index)
    if index % 3 == 0:
        warnings.warn(f"element {index}", UserWarning, stacklevel=1)
    return x + 0.5


@examples(40, deadline=None)
@given(
    ticks=st.lists(st.sampled_from([0, 1, 2, 5, 20]), min_size=1, max_size=60),
    raises=st.none() | st.integers(0, 60),
    as_items=st.booleans(),
)
def test_results_output_and_errors_are_the_loops(shared, log, capfd, ticks, raises, as_items):
    """Each element but the first is computed once; text and warnings come in order, up to the first error."""
    capfd.readouterr()
    log.start()
    f = partial(work, log=log, seconds=[tick * 1e-4 for tick in ticks], raises=raises)
    array = np.arange(len(ticks), dtype=float)
    ends = raises if raises is not None and raises < len(ticks) else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = parallel_map(f, list(array), **TWO) if as_items else parallel_apply(f, array, **TWO)
        except ZeroDivisionError as error:
            assert error.args == (ends,)  # noqa: PT017 - no error is right too
        else:
            assert ends is None
            assert_same(np.asarray(result), array + 0.5)
    done = len(ticks) if ends is None else ends
    assert capfd.readouterr().out == "".join(f"element {k}\n" for k in range(done))
    assert [str(one.message) for one in caught] == [f"element {k}" for k in range(0, done, 3)]
    counts = np.bincount([index for index, _ in log.lines], minlength=len(ticks))
    assert (counts[:1] <= 2).all()
    assert (counts[1:] <= 1).all()
    assert counts[: done + (ends is not None)].all()


def test_both_compute(shared, log):
    def f(x):
        log.note(int(x))
        end = time.monotonic() + 20
        while os.getpid() == CALLER and x == 3 and len({pid for index, pid in log.lines if index}) < 2:
            assert time.monotonic() < end
            time.sleep(0.001)
        spin(1e-3)

    parallel_map(f, list(range(40)), **TWO)
    by = {pid: [index for index, one in log.lines if one == pid] for _, pid in log.lines}
    own = by.pop(CALLER)
    assert own == list(range(len(own)))
    assert len(by) == 1  # one of two workers leaves the caller a CPU
    (theirs,) = by.values()
    assert set(own) | set(theirs) == set(range(40))
    assert len(theirs) > 1


class Late:
    """A function that no worker has before a file is there."""

    def __init__(self, path):
        self.path = path

    def __call__(self, x):
        return x * 3 + os.getpid() * 0

    def __setstate__(self, state):
        vars(self).update(state)
        while os.getpid() != CALLER and not os.path.exists(self.path):
            time.sleep(0.001)


def test_a_late_worker_is_not_waited_for(shared, tmp_path):
    """What it has not begun is taken back; it skips that, and the next call has it as before."""
    late = Late(os.fspath(tmp_path / "go"))
    array = np.arange(200.0)
    with Pool(2) as pool:
        before = worker_pids(executor=pool, isolate=True)
        assert_same(parallel_apply(late, array, executor=pool), array * 3)
        (one,) = (worker for worker in pool._pool.workers if worker.taken_back)
        assert_same(parallel_apply(np.negative, array, executor=pool), -array)  # it is still late
        (tmp_path / "go").touch()
        while one.taken_back:
            assert set(worker_pids(executor=pool, isolate=True)) <= set(before)


class LateSum(Late):
    def __call__(self, block):
        return np.cumsum(block, axis=0)


def test_a_border_is_tried_by_a_worker_that_has_yet_to_skip_its_tasks(shared, tmp_path, monkeypatch):
    """In a first call the caller may be done before a worker has the function."""
    full, again = [], Dispatcher.compute_again

    def compute_again(self, *given):
        full.append(any(one.ready and not one.free for one in self._workers))
        (tmp_path / "go").touch()
        return again(self, *given)

    monkeypatch.setattr(Dispatcher, "compute_again", compute_again)
    monkeypatch.setattr(seam, "SHARE", 1e6)
    array = np.arange(6000.0).reshape(600, 10)
    with Pool(2) as pool:
        worker_pids(executor=pool, isolate=True)
        with pytest.warns(ReproducibilityWarning, match="depend on where its blocks begin"):
            parallel_apply(LateSum(os.fspath(tmp_path / "go")), array, executor=pool, vectorized=True, chunk=60)
    assert full[0]


def test_an_element_of_a_dead_worker_is_never_computed_here(shared, log):
    """It may end this process too."""

    def f(x):
        log.note(int(x))
        spin(1e-3)
        end = time.monotonic() + 10
        while os.getpid() == CALLER and x > 5 and not log.by_workers and time.monotonic() < end:
            pass  # a busy machine may leave no CPU to workers before the caller has done all
        if os.getpid() != CALLER and len(log.lines) < 30 and x > 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    array = np.arange(40.0)
    assert_same(parallel_apply(f, array, **TWO, retries=50), array)
    by_workers = log.by_workers
    own = [index for index, pid in log.lines if pid == CALLER]
    assert by_workers
    assert not by_workers.intersection(own) - {0}
    log.start()
    with pytest.raises(WorkerDiedError):
        parallel_apply(f, array, **TWO)
    assert not log.by_workers.intersection(index for index, pid in log.lines if pid == CALLER) - {0}


@pytest.mark.parametrize("seconds", [0.0, 3e-3])
def test_calls_that_take_another_time_than_expected(log, seconds):
    """What is known of a function from its last call may be wrong."""
    worker_pids(**ISOLATED)
    array = np.arange(12.0)
    for one in (3e-3 - seconds, seconds):
        f = partial(work, log=log, seconds=[one] * 12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(2):
                assert_same(parallel_apply(f, array, **TWO), array + 0.5)


def test_blocks_and_tuples_of_axes(shared):
    rows = np.random.default_rng(0).standard_normal((40, 6, 5))
    assert_same(parallel_apply(np.sort, rows, axis=(0, 2), **TWO), loop(np.sort, rows, axis=(0, 2)))
    cubes = np.moveaxis(np.random.default_rng(0).standard_normal((7, 9, 8)), 0, 1)[:, ::-1]
    assert_same(parallel_apply(np.cumsum, cubes, axis=(1, 2), **TWO), loop(np.cumsum, cubes, axis=(1, 2)))
    doubled = parallel_apply(lambda block: block * 2, rows, vectorized=True, chunk=3, **TWO)
    assert_same(doubled, rows * 2)


@pytest.mark.parametrize(("most", "seconds"), [(3_000, 0.003), (10**6, sharing.MOST_OWN_SECONDS), (10, 0.001)])
def test_tasks_of_the_caller_are_no_longer_than_those_of_its_workers(most, seconds):
    """Tasks of 1 MB took a worker 2 ms, and the caller sent the next one 6 ms later."""
    queue = types.SimpleNamespace(seconds_left=1.0, pace=1e-6)
    call = make_call(abs, (np.zeros(9),), settings=resolve({}))
    assert sharing.Sharing(call, queue, False).own_seconds(1, most) == seconds


def test_threads_are_not_looked_at_for_a_function_that_is_known_to_use_one(monkeypatch):
    job = types.SimpleNamespace(workers=2)
    cpus = background.CpuAvailability(job, frozenset())
    monkeypatch.setattr(cpus.watch, "at_work", lambda: pytest.fail("the state of each thread was read"))
    assert cpus.seems_free(single_threaded=True)
    job.workers = 1
    assert not background.CpuAvailability(job, frozenset()).seems_free(single_threaded=True)


def test_workers_begin_elements_beside_a_first_one_that_is_long(tmp_path):
    worker_pids(isolate=True, workers=3)

    def meet(index):
        """Wait until four elements have begun."""
        (tmp_path / str(index)).touch()
        end = time.monotonic() + 60
        while len(os.listdir(tmp_path)) < 4:
            assert time.monotonic() < end, "fewer than four elements were computed at a time"
        return index

    assert parallel_map(meet, range(5), workers=4, verify=False) == list(range(5))
