"""Processes that stand still: workers and fork servers that a signal has stopped, at any moment of a call."""

from __future__ import annotations

import _socket
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parwise import ParwiseError, WorkerDiedError, parallel_apply
from parwise._executors.processes import runner as processes
from parwise._workers import other_processes
from parwise._workers.pool import fork_server_handle, silence, watchdog
from parwise._workers.pool.default_pool import new_pool
from parwise.errors import NoWorkersError

from ..support.functions import ISOLATED
from ..support.internals import WorkerPool
from ..support.oracle import assert_same

A = np.arange(120.0).reshape(40, 3)
#: Options with which silent workers are replaced.
TIMED = {**ISOLATED, "timeout": 20.0}


@pytest.fixture
def pool(monkeypatch):
    """The workers that calls share, with bounds that end soon."""
    pool = WorkerPool()
    monkeypatch.setattr(processes, "default_pool", lambda: pool)
    monkeypatch.setattr(silence, "STOPPED_SECONDS", 0.2)
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watchdog, "SIGNAL_SECONDS", 0.05)
    yield pool
    pool.stop()


class Acting:
    """A function that sends signals: as it is loaded, in an element, or as a result is sent; each of them once.

    Parameters
    ----------
    actions : list of (phase, signal number, target)
        The target is "self", "other" (the other workers) or "fork server", as seen by the worker that acts.
    """

    def __init__(self, folder, actions):
        self.folder, self.actions = str(folder), actions

    def act(self, phase):
        for number, (when, signum, target) in enumerate(self.actions):
            if when == phase:
                try:
                    os.close(os.open(f"{self.folder}/{number}", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                for pid in pids_of(target):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signum)

    def __reduce__(self):
        return loaded, (self.folder, self.actions)

    def __call__(self, x):
        if x[0] == 60.0:
            self.act("in an element")
        return Acted(x * 2.5, self) if x[0] == 75.0 else x * 2.5


def loaded(folder, actions):
    function = Acting(folder, actions)
    function.act("loading")
    return function


class Acted(np.ndarray):
    """A result that acts as it is pickled."""

    def __new__(cls, array, function):
        self = np.asarray(array).view(cls)
        self.function = function
        return self

    def __reduce__(self):
        self.function.act("sending")
        return np.array, (self.tolist(),)


def pids_of(target):
    if isinstance(target, list):
        return target
    if target == "self":
        return [os.getpid()]
    if target == "fork server":
        return [os.getppid()]
    with open(f"/proc/{os.getppid()}/task/{os.getppid()}/children") as file:
        return [int(pid) for pid in file.read().split() if int(pid) != os.getpid()]


def is_stopped(pid):
    return other_processes.is_stopped(pid)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.parametrize("phase", ["loading", "sending"])
@pytest.mark.parametrize("target", ["self", "other", "fork server"])
def test_processes_stopped_by_the_function(phase, target, pool, tmp_path):
    function = Acting(tmp_path, [(phase, signal.SIGSTOP, target)])
    assert_same(parallel_apply(function, A, retries=1, **TIMED), A * 2.5)
    assert os.listdir(tmp_path) == ["0"]
    assert_same(parallel_apply(np.negative, A, **TIMED), -A)


@pytest.mark.parametrize("which", ["one worker", "all workers", "fork server", "everything"])
@pytest.mark.parametrize("options", [TIMED, ISOLATED, {"workers": 2}], ids=["timeout", "isolate", "neither"])
def test_processes_stopped_between_two_calls(which, options, pool):
    """They are replaced before the next call, if they have been stopped for a while."""
    parallel_apply(np.negative, A, **TIMED)
    pids = [worker.pid for worker in pool.workers]
    stopped = {"one worker": pids[:1], "fork server": []}.get(which, pids)
    server = which in ("fork server", "everything")
    if server:
        stopped = [*stopped, pool.fork_server.pid]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(map(is_stopped, stopped)))
    pool._checked = 0.0  # as after a second

    def look(workers, elapsed):
        up = any(worker.pid for worker in workers)
        assert not server or up or not pool.fork_server.stopped, "the call waits for it"

    pool.look = look
    assert_same(parallel_apply(np.cumsum, A, **options), A.cumsum(axis=1))
    assert_same(parallel_apply(np.negative, A, **TIMED), -A)


def test_worker_that_never_loads(pool, tmp_path):
    """Each worker that loads it is stopped: one error, in bounded time."""

    class Stops:
        def __reduce__(self):
            return os.kill, (Pid(), signal.SIGSTOP)

    class Pid:
        def __reduce__(self):
            return os.getpid, ()

    with pytest.raises(WorkerDiedError, match="had been stopped for .* before it called the function, or as") as caught:
        parallel_apply(lambda x, y: x, A, args=(Stops(),), **TIMED)
    assert caught.value.index == 0
    assert_same(parallel_apply(np.negative, A, **TIMED), -A)


def test_result_that_is_never_sent_is_charged_to_its_element(pool, tmp_path):
    function = Acting(tmp_path, [("sending", signal.SIGSTOP, "self")])
    with pytest.raises(WorkerDiedError, match="by parwise, since it had been stopped for"):
        parallel_apply(function, A, **TIMED)
    assert_same(parallel_apply(np.negative, A, **TIMED), -A)


def test_without_a_timeout_the_user_is_told_and_the_call_goes_on(pool, tmp_path):
    """A debugger may have stopped the worker."""
    continued = []
    function = Acting(tmp_path, [("loading", signal.SIGSTOP, "self")])
    take = pool.look

    def look(workers, elapsed):
        take(workers, elapsed)
        for worker in pool.workers:
            if worker.silence.told and worker.pid not in continued:
                continued.append(worker.pid)
                os.kill(worker.pid, signal.SIGCONT)

    pool.look = look
    with pytest.warns(
        RuntimeWarning, match=r"worker process \d+ has been stopped for .*timeout=seconds such workers are replaced"
    ) as caught:
        result = parallel_apply(function, A, **ISOLATED)
    assert caught[0].filename == __file__
    assert_same(result, A * 2.5)
    assert len(continued) == 1
    assert str(continued[0]) in str(caught[0].message)


def test_interrupt_of_a_call_that_waits_for_stopped_processes():
    """Ctrl-C works, and so does the next call."""
    code = """
        import os, signal, sys, numpy as np
        from parwise import parallel_apply
        from parwise._workers.pool.default_pool import default_pool
        parallel_apply(np.negative, np.ones((9, 2)), isolate=True, workers=2)
        pool = default_pool()
        servers = [pool.fork_server] if hasattr(pool, "fork_server") else []
        for one in [*servers, *pool.workers]:
            os.kill(one.pid, signal.SIGSTOP)
        wait = pool.wait
        def told(seconds):
            del pool.wait
            print("waits", flush=True)
            return wait(seconds)
        pool.wait = told
        try:
            parallel_apply(np.negative, np.ones((9, 2)), isolate=True, workers=2)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(parallel_apply(np.negative, np.ones((9, 2)), isolate=True, workers=2).sum())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("interrupted\n-18.0\n", "")


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("at_once", [False, True], ids=["before a wait", "before a look"])
def test_a_suspension_between_two_waits(busy, at_once, monkeypatch):
    """While the caller handles messages; only what it computes itself counts."""
    now = 100.0
    monkeypatch.setattr(watchdog, "monotonic", lambda: now)
    monkeypatch.setattr(watchdog, "process_time", lambda: now if busy else 1.0)
    dog = watchdog.Watchdog(3.0, 1)
    worker = SimpleNamespace(at=3, in_an_element=True, pid=1, since=now, assignments={1: None})
    dog.wait_seconds(None, [worker])
    dog.waited()
    now += 5.0
    if not at_once:
        dog.wait_seconds(None, [worker])
        dog.waited()
    assert list(dog.overdue([worker])) == [(worker, 3)] * busy
    dog.wait_seconds(None, [worker])
    dog.waited()
    assert list(dog.overdue([worker])) == [(worker, 3)] * busy
    now += 3.5
    assert list(dog.overdue([worker])) == [(worker, 3)] * busy


def test_a_suspended_machine_is_no_element_that_hangs():
    """The caller and its workers stand still for longer than an element may take."""
    code = """
        import os, sys, time, numpy as np
        from parwise import parallel_apply
        def f(x):
            if x == 3:
                os.write(1, b"%d\\n" % os.getpid())
                until = time.process_time() + 0.1
                while time.process_time() < until:
                    pass
            return x * 2
        print(parallel_apply(f, np.arange(6), isolate=True, workers=1, timeout=3.0).tolist())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        pids = [process.pid, int(process.stdout.readline())]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: all(map(is_stopped, pids)))
        time.sleep(5.0)  # the pause itself
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("[0, 2, 4, 6, 8, 10]\n", "")


def test_a_killed_fork_server_leaves_no_zombie(monkeypatch):
    """However short its time to answer is."""
    monkeypatch.setattr(fork_server_handle, "ANSWER_SECONDS", 0.0)
    pool = new_pool()
    pool.start(1, None)
    pid = pool.fork_server.pid
    pool.stop()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_answer_that_comes_too_late(pool, tmp_path, monkeypatch):
    """The fork server is asked how a worker ended while it is stopped."""
    monkeypatch.setattr(fork_server_handle, "ANSWER_SECONDS", 0.01)
    actions = [("in an element", signal.SIGSTOP, "fork server"), ("in an element", signal.SIGKILL, "self")]
    assert_same(parallel_apply(Acting(tmp_path, actions), A, retries=1, **ISOLATED), A * 2.5)
    assert pool.fork_server.stopped
    os.kill(pool.fork_server.pid, signal.SIGCONT)
    wait_until(lambda: not pool.fork_server.stopped)
    assert_same(parallel_apply(np.negative, A, **ISOLATED), -A)


def test_fork_server_stopped_beside_workers_that_the_call_does_not_use(pool, tmp_path):
    parallel_apply(np.negative, A, isolate=True, workers=4)
    pids = [worker.pid for worker in pool.workers[:2]]
    actions = [("in an element", signal.SIGSTOP, "fork server"), ("in an element", signal.SIGKILL, pids)]
    function = Acting(tmp_path, actions)
    assert_same(parallel_apply(function, A, retries=3, **TIMED), A * 2.5)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("streamed", [False, True])
def test_time_that_counts_for_an_element(streamed, monkeypatch):
    """Not that of a wait in which nothing ran, nor of the loop's body over streamed results; all other time does."""
    clock = Clock()
    monkeypatch.setattr(watchdog, "monotonic", clock)
    monkeypatch.setattr(watchdog, "process_time", lambda: used)
    used = 0.0
    worker = SimpleNamespace(at=3, since=100.0, assignments={1: None}, in_an_element=True, pid=9)
    dog = watchdog.Watchdog(10.0, 2, streamed)

    def step(waited, handled):
        nonlocal used
        asked = dog.wait_seconds(None, [worker])
        clock.now += waited
        dog.waited()
        clock.now += handled
        used += handled
        found = list(dog.overdue([worker]))
        return asked, bool(found)

    monkeypatch.setattr(watchdog, "SIGNAL_SECONDS", 1.0)
    assert step(1.0, 0.5) == (1.0, False)  # 1.5
    assert step(60.0, 0.5) == (1.0, False)  # 2.0: suspended
    assert step(1.0, 6.0) == (1.0, False)  # 9.0: busy with a result
    clock.now += 30.0  # the program, if it takes results one by one; or it computes, as an observer that draws
    used += 30.0
    asked, found = step(0.2, 0.0)
    if streamed:
        assert (asked, found) == (1.0, False)  # 3.2: neither the result nor the program's own work count
        assert [step(1.0, 0.0)[1] for _ in range(7)] == [False] * 6 + [True]
    else:
        assert found


# Fork servers that end in the middle of a call.


def killing(index):
    def f(x):
        if x[0] == index:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        return x * 2.5

    return f


def test_fork_server_killed_during_a_call(pool):
    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(killing(60.0), A, **ISOLATED)
    assert "NumPy" not in str(caught.value)
    assert_same(parallel_apply(np.negative, A, **ISOLATED), -A)


@pytest.mark.parametrize("phase", ["loading", "in an element", "sending"])
def test_retries_after_the_end_of_the_fork_server(phase, pool, tmp_path):
    function = Acting(tmp_path, [(phase, signal.SIGKILL, "fork server")])
    assert_same(parallel_apply(function, A, retries=1, **ISOLATED), A * 2.5)


def test_gaps_after_the_end_of_the_fork_server(pool):
    with pytest.warns(RuntimeWarning, match="no result"):
        result = parallel_apply(killing(60.0), A, errors="ignore", **ISOLATED)
    gaps = np.isnan(result).all(axis=1)
    assert gaps[20]
    assert gaps.sum() <= 2  # the other worker was in an element, too
    assert_same(result[~gaps], (A * 2.5)[~gaps])


@pytest.mark.parametrize("options", [{}, {"errors": "ignore"}, {"retries": 2}])
def test_interpreter_that_cannot_start_says_why(pool, options):
    """No element is at fault, and none is left out."""
    pool._variables = {"PYTHONHOME": "/nonexistent"}
    with pytest.raises(NoWorkersError, match=r"ended with exit code 1 before .* is NumPy importable"):
        parallel_apply(np.negative, A, **ISOLATED, **options)
    pool._variables = {}
    assert_same(parallel_apply(np.negative, A, **ISOLATED), -A)


# A random walk.

PHASES = ["before the call", "starting", "loading", "in an element", "sending"]
SIGNALS = [signal.SIGSTOP, signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL]
ACTIONS = st.lists(
    st.tuples(st.sampled_from(PHASES), st.sampled_from(SIGNALS), st.sampled_from(["self", "other", "fork server"])),
    min_size=1,
    max_size=4,
)


def act_from_here(pool, actions, phase):
    """Act on a worker ("self"), all workers ("other") or the fork server, from the caller."""
    for when, signum, target in actions:
        workers = [worker.pid for worker in pool.workers if worker.pid and not worker.over]
        server = [pool.fork_server.pid] if pool.fork_server is not None and not pool.fork_server.ended else []
        if when == phase:
            for pid in {"self": workers[:1], "other": workers}.get(target, server):
                os.kill(pid, signum)


@settings(max_examples=max(8, settings().max_examples // 2 - 50))
@given(ACTIONS, st.booleans())
def test_random_signals(pool, tmp_path_factory, actions, warm):
    """Right bits or one error, in bounded time; the next call is right, and nothing is left."""
    if not warm:
        pool.stop()
    function = Acting(tmp_path_factory.mktemp("walk"), actions)
    act_from_here(pool, actions, "before the call")
    add = pool.add_worker

    def add_worker():
        worker = add()
        act_from_here(pool, [one for one in actions if one[0] == "starting"], "starting")
        del pool.add_worker
        return worker

    pool.add_worker = add_worker
    begun = time.monotonic()
    with contextlib.suppress(ParwiseError, TimeoutError):
        assert_same(parallel_apply(function, A, isolate=True, workers=2, timeout=0.5, retries=4), A * 2.5)
    assert time.monotonic() - begun < 60
    vars(pool).pop("add_worker", None)
    assert_same(parallel_apply(np.negative, A, timeout=0.5, **ISOLATED), -A)
    assert len(pool.workers) == 2


def test_fork_server_that_only_closes_its_socket_is_ended(pool, monkeypatch):
    """As where something else in it closes descriptors, or in this process reads from the socket."""
    monkeypatch.setattr(fork_server_handle, "ANSWER_SECONDS", 0.2)
    parallel_apply(np.negative, A, **ISOLATED)
    pid = pool.fork_server.pid
    pool.fork_server.channel.sock.shutdown(_socket.SHUT_RD)
    os.kill(pid, signal.SIGSTOP)
    assert_same(parallel_apply(np.cumsum, A, retries=2, **ISOLATED), A.cumsum(axis=1))
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert pool.fork_server is None or pool.fork_server.pid != pid


def test_a_process_that_is_heard_is_not_looked_at(monkeypatch):
    found, looked = silence.Silence(), []
    monkeypatch.setattr(silence, "used", lambda pid: looked.append(pid) or (b"0",))
    for heard in (1, 2, 2, 2, 3):
        found.look(os.getpid(), heard, 1.0)
    assert (len(looked), found.seconds) == (2, 0.0)
    for _ in range(3):
        found.look(os.getpid(), 3, 1.0)
    assert found.seconds == 2.0
