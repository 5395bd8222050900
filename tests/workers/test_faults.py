"""Workers that die: one clear error each, and the next call is right."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest

from parwise import ParwiseError, WorkerDiedError, parallel_apply
from parwise._executors.processes import runner as processes
from parwise._executors.processes.faults import FaultPolicy
from parwise._workers.pool import fork_server_start as fork_server
from parwise._workers.pool.primitives import why_portable
from parwise._workers.pool.worker_handle import Assignment, WorkerHandle

from ..support.faults import N, Once, assert_next_call_is_right, in_the_function, killed_by, throw
from ..support.functions import ISOLATED, worker_pids
from ..support.internals import Job, Task, WorkerPool, default_pool, make_call, resolve
from ..support.oracle import assert_same, loop


def segfault():
    ctypes.string_at(0)


HOW = {
    "SIGKILL": (killed_by(signal.SIGKILL), signal.SIGKILL, None),
    "SIGTERM": (killed_by(signal.SIGTERM), signal.SIGTERM, None),
    "SIGSEGV": (segfault, signal.SIGSEGV, None),
    "SIGBUS": (killed_by(signal.SIGBUS), signal.SIGBUS, None),
    "abort": (os.abort, signal.SIGABRT, None),
    "exit 3": (lambda: os._exit(3), None, 3),
    "exit 0": (lambda: os._exit(0), None, 0),
}


#: Those that let the stack be written down.
WITH_STACK = ("SIGTERM", "SIGSEGV", "SIGBUS", "abort")


class AtLoad:
    """A function that ends its worker as it is unpickled there."""

    def __init__(self, die):
        self.die = die

    def __call__(self, x):
        raise AssertionError("was loaded")

    def __reduce__(self):
        return self.die, ()


def with_a_grandchild(die, index):
    """A child that the function forked lives on, with copies of all that the worker has."""

    def f(x):
        if x == index:
            if os.fork() == 0:
                while True:
                    signal.pause()
            die()
        return float(x)

    return f


def while_sending(die, index):
    class Result:
        def __reduce__(self):
            die()
            return int, ()

    return lambda x: Result() if x == index else float(x)


WHERE = {
    "in f": in_the_function,
    "with a grandchild": with_a_grandchild,
    "while sending": while_sending,
    "while loading": lambda die, index: AtLoad(die),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("where", WHERE)
def test_crash_table(where, how):
    die, signum, code = HOW[how]
    index = 17
    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(WHERE[where](die, index), np.arange(N), **ISOLATED)
    error = caught.value
    assert (error.signal, error.exitcode) == (signum, code)
    assert f"worker process {error.pid} ended" in str(error)
    assert (signal.Signals(signum).name if signum else f"exit code {code}") in str(error)
    if where in ("in f", "with a grandchild"):
        assert error.index == index
        assert f"in element {index} along axis 0" in str(error)
    if where == "while loading":
        assert "before it c" in str(error)
    if where == "in f":
        assert ('in f"' in error.stack or " in f" in error.stack) == (how in WITH_STACK)
        assert (how in WITH_STACK) == any("innermost call first" in note for note in getattr(error, "__notes__", ()))
    assert_next_call_is_right()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_crash_at_start(how, monkeypatch):
    """A worker is killed as soon as it has been forked."""
    born = []
    take = WorkerPool._receive

    def kill_it(self, message, fds):
        take(self, message, fds)
        if message[0] == "forked" and not born:
            born.append(message[2])
            os.kill(message[2], HOW[how][1])

    pool = WorkerPool()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(processes, "default_pool", lambda: pool)
            patch.setattr(WorkerPool, "_receive", kill_it)
            # Nobody may finish before the one that was killed is found.
            with pytest.raises(WorkerDiedError) as caught:
                parallel_apply(lambda x: time.sleep(0.05), np.arange(200), **ISOLATED)
            assert caught.value.pid == born[0]
            assert caught.value.signal == HOW[how][1]
            assert_same(parallel_apply(np.negative, np.arange(9), **ISOLATED), -np.arange(9))
    finally:
        pool.stop()


def test_no_more_processes_can_be_made(monkeypatch):
    pool = WorkerPool()
    monkeypatch.setattr(processes, "default_pool", lambda: pool)
    command = fork_server._command

    def crippled(python):
        *most, code, name = command(python)
        refuse = "import os\ndef refuse():\n    raise BlockingIOError(11, 'no more processes')\nos.fork = refuse\n"
        return [*most, refuse + code, name]

    monkeypatch.setattr(fork_server, "_command", crippled)
    try:
        with pytest.raises(ParwiseError, match="could not be started .*no more processes.*fewer workers"):
            parallel_apply(np.negative, np.arange(9), **ISOLATED)
    finally:
        pool.stop()


def test_twenty_crashes_in_a_row():
    for index in range(20):
        with pytest.raises(WorkerDiedError) as caught:
            parallel_apply(in_the_function(HOW["SIGKILL"][0], index), np.arange(20), **ISOLATED)
        assert caught.value.index == index
        assert_next_call_is_right()


def test_oom_killer_is_a_kill_that_names_no_cause():
    """The out-of-memory killer sends SIGKILL; the message does not guess at a cause."""
    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(in_the_function(HOW["SIGKILL"][0], 3), np.arange(20), **ISOLATED)
    assert "memory" not in str(caught.value)


@pytest.mark.parametrize("how", HOW)
def test_retries_bring_back_what_was_lost(how, tmp_path):
    a = np.arange(60.0)
    got = parallel_apply(Once(tmp_path, HOW[how][0], every=20), a, retries=1, **ISOLATED)
    assert_same(got, a * 2.5)


def test_retries_are_counted_per_element(tmp_path):
    tried = tmp_path / "tried"
    tried.touch()

    def f(x):
        if x == 5:
            with open(tried, "a") as file:
                file.write("x")
            os._exit(1)
        return x

    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(f, np.arange(50), retries=3, **ISOLATED)
    assert caught.value.index == 5
    assert tried.read_text() == "xxxx"


def test_retries_of_blocks_and_grids(tmp_path):
    a = np.arange(60.0)
    once = Once(tmp_path, HOW["SIGKILL"][0], every=30)
    got = parallel_apply(lambda b: [once(x) for x in b], a, vectorized=True, chunk=7, retries=1, **ISOLATED)
    assert_same(got, a * 2.5)
    (tmp_path / "grid").mkdir()
    once = Once(tmp_path / "grid", HOW["SIGKILL"][0], every=30)
    got = parallel_apply(once, a.reshape(5, 12), axis=(0, 1), retries=1, **ISOLATED)
    assert_same(got, a.reshape(5, 12) * 2.5)


def test_a_function_that_cannot_be_loaded_is_not_tried_for_ever():
    with pytest.raises(WorkerDiedError):
        parallel_apply(AtLoad(HOW["exit 3"][0]), np.arange(N), retries=2, **ISOLATED)
    with pytest.raises(WorkerDiedError, match="before it c"):
        parallel_apply(AtLoad(HOW["exit 3"][0]), np.arange(N), **ISOLATED)


@pytest.mark.parametrize("workers", [2, 4])
def test_a_worker_that_dies_while_loading_costs_the_call_that_it_loads(workers):
    """Other workers may still be loading the function when the call has ended; the next call replaces them."""
    for _ in range(15 if why_portable() is None else 5):  # portable ones take 0.4 s to start
        with pytest.raises(WorkerDiedError):
            parallel_apply(AtLoad(HOW["exit 3"][0]), np.arange(N), isolate=True, workers=workers)
        assert_same(parallel_apply(abs, np.arange(8), isolate=True, workers=workers), np.arange(8))


def test_handshake_that_kills_its_worker(eager):
    """The caller has the result of that element."""
    caller = os.getpid()

    def f(x):
        if x == 0 and os.getpid() != caller:
            os._exit(1)
        return x

    assert_same(parallel_apply(f, np.arange(100), workers=2), np.arange(100))
    assert_next_call_is_right()


def test_a_hundred_kills_at_random():
    """Workers killed from outside, at any moment of a call."""
    a = np.random.default_rng(0).standard_normal((300, 2000))
    want = loop(np.sort, a)
    rng = random.Random(1)
    kills = 0
    stop = threading.Event()

    def kill():
        nonlocal kills
        while kills < 100 and not stop.is_set():
            stop.wait(rng.uniform(0.001, 0.02))
            pids = [handle.pid for handle in default_pool().workers if handle.pid]
            if pids:
                try:
                    os.kill(rng.choice(pids), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while killer.is_alive():
            assert_same(parallel_apply(np.sort, a, retries=1000, **ISOLATED), want)
    finally:
        stop.set()
        killer.join()
    assert kills == 100


@pytest.mark.parametrize("options", [{"errors": "ignore"}, {"retries": 2}])
def test_handshake_that_kills_its_worker_with_options(eager, options):
    caller = os.getpid()

    def f(x):
        if x == 0 and os.getpid() != caller:
            os._exit(1)
        return x

    a = np.arange(200.0)
    assert_same(parallel_apply(f, a, workers=2, **options), a)
    assert_next_call_is_right()


@pytest.mark.parametrize("end", [lambda: sys.exit(0), lambda: throw(ValueError), lambda: None])
def test_child_of_the_function_does_not_answer_for_it(end):
    def f(x):
        child = os.fork()
        if child == 0:
            sys.stderr = None
            end()
            return -1.0
        os.waitpid(child, 0)
        return x

    a = np.arange(6.0)
    for options in ({}, {"errors": "ignore"}):
        assert_same(parallel_apply(f, a, **ISOLATED, **options), a)


def test_signal_without_a_name():
    with pytest.raises(WorkerDiedError, match="ended by signal 40 in element 2") as caught:
        parallel_apply(in_the_function(killed_by(40), 2), np.arange(4), **ISOLATED)
    assert caught.value.signal == 40


@pytest.mark.parametrize("proven", [True, False])
def test_worker_that_is_killed_while_idle_costs_nothing(proven):
    """An idle worker's death is no error if it had computed anything; a worker that never comes up is one."""
    settings = resolve({"workers": 2})
    call = make_call(
        abs, (np.arange(9),), axis=0, args=(), kwargs=None, vectorized=False, chunk=None, depth=0, boundary=None,
        out=None, rng=None, settings=settings,
    )  # fmt: skip
    handle = WorkerHandle(1, 4096, bytes(16))
    try:
        handle.pid, handle.has_computed = 1, proven
        handle.slots.cursor.leave()
        if proven:
            assert FaultPolicy(Job(call)).handle_exit(handle, -9, None)
        else:
            with pytest.raises(WorkerDiedError, match="SIGKILL before it came to an element"):
                FaultPolicy(Job(call)).handle_exit(handle, -9, None)
    finally:
        handle.close()


def test_deaths_that_cost_nothing_spend_no_retry():
    """The fork server ends before an element has begun; then its worker dies once."""
    call = make_call(
        abs, (np.arange(9),), axis=0, args=(), kwargs=None, vectorized=False, chunk=None, depth=0, boundary=None,
        out=None, rng=None, settings=resolve({"workers": 2, "retries": 1}),
    )  # fmt: skip
    job = Job(call)
    job.open()
    policy, task = FaultPolicy(job), job.queue.next_task()
    for orphaned in (True, False):
        handle = WorkerHandle(1, 4096, bytes(16))
        try:
            handle.pid, handle.orphaned = 1, orphaned
            handle.slots.cursor.leave()
            handle.assignments[1] = Assignment(task, False, [], 0)
            if not orphaned:
                handle.slots.cursor.enter(task.lo)
            assert policy.handle_exit(handle, -9, None)
        finally:
            handle.close()


@pytest.mark.parametrize(
    ("at", "tasks", "lost"),
    [
        (49, [(49, 52), (46, 49)], 49),  # the second one was given back, and ends where the first one begins
        (49, [(46, 49), (49, 52)], 48),  # it was sending the results of the first one
        (None, [(46, 49), (49, 52)], 46),
        (47, [(46, 49), (49, 52)], 47),
    ],
)
def test_the_element_that_ends_a_worker_is_in_the_first_of_its_tasks(at, tasks, lost):
    call = make_call(
        abs, (np.arange(60),), axis=0, args=(), kwargs=None, vectorized=False, chunk=None, depth=0, boundary=None,
        out=None, rng=None, settings=resolve({"workers": 2, "errors": "ignore"}),
    )  # fmt: skip
    job = Job(call)
    job.open()
    handle = WorkerHandle(1, 4096, bytes(16))
    try:
        handle.pid = 1
        for number, bounds in enumerate(tasks):
            handle.assignments[number] = Assignment(Task(*bounds), False, [], number)
        if at is None:
            handle.slots.cursor.leave()
        else:
            handle.slots.cursor.enter(at)
        assert not FaultPolicy(job).handle_exit(handle, -9, None)
    finally:
        handle.close()
    assert job._gaps.indices.tolist() == [lost]


def test_function_that_cannot_travel_says_so_from_a_cold_start():
    """The background thread finds it while the caller computes a long element."""
    pool = WorkerPool()
    lock = threading.Lock()

    def f(x):
        with lock:
            time.sleep(0.2)
        return x

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(processes, "default_pool", lambda: pool)
            with pytest.raises(TypeError, match="cannot be sent to a worker process"):
                parallel_apply(f, np.arange(4.0), workers=2)
    finally:
        pool.stop()


def die_at(index, how):
    def f(x):
        if x == index:
            how()
        return float(x)

    return f


@pytest.mark.parametrize(
    ("how", "signum", "code"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), signal.SIGKILL, None),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), signal.SIGTERM, None),
        (os.abort, signal.SIGABRT, None),
        (lambda: os._exit(7), None, 7),
        (lambda: os._exit(0), None, 0),
    ],
)
@pytest.mark.parametrize("index", [0, 17, 39])
def test_dead_worker(how, signum, code, index):
    with pytest.raises(WorkerDiedError, match=f"in element {index} along axis 0") as caught:
        parallel_apply(die_at(index, how), np.arange(40), **ISOLATED)
    error = caught.value
    assert (error.index, error.signal, error.exitcode) == (index, signum, code)
    assert str(error.pid) in str(error)
    assert_same(parallel_apply(np.negative, np.arange(40), **ISOLATED), -np.arange(40))


def test_dead_worker_in_a_grid_and_a_block():
    kill = die_at(17.0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(kill, np.arange(40.0).reshape(8, 5), axis=(0, 1), **ISOLATED)
    assert caught.value.index == (3, 2)
    with pytest.raises(WorkerDiedError, match="in block 15:20 along axis 0"):
        parallel_apply(lambda b: kill(b[2]) + b, np.arange(40.0), vectorized=True, chunk=5, **ISOLATED)


def test_dead_worker_while_the_caller_computes(eager):
    caller = os.getpid()

    def f(x):
        if x == 59 and os.getpid() != caller:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return x

    worker_pids(**ISOLATED)
    with pytest.raises(WorkerDiedError):
        parallel_apply(f, np.arange(60), workers=2)
    assert_same(parallel_apply(np.negative, np.arange(60), **ISOLATED), -np.arange(60))


def test_earlier_exception_wins_over_a_death():
    def f(x):
        if x == 3:
            time.sleep(0.05)
            raise KeyError("three")
        if x == 9:
            os._exit(3)
        return x

    with pytest.raises((KeyError, WorkerDiedError)) as caught:
        parallel_apply(f, np.arange(10), **ISOLATED)
    assert isinstance(caught.value, KeyError)


def test_death_while_sending_results():
    class Last:
        def __reduce__(self):
            os._exit(7)

    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(lambda x: Last(), np.arange(6.0).reshape(2, 3), axis=(0, 1), **ISOLATED)
    assert caught.value.exitcode == 7
    assert caught.value.index == (0, 0)
