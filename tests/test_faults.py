"""Workers that die, hang or raise: one clear error each, and the next call is right."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import parwise
from parwise import ElementTimeoutError, ParwiseError, WorkerDiedError, parallel_apply
from parwise._core.arguments import make_call
from parwise._core.options import resolve
from parwise._executors import processes
from parwise._executors.faults import FaultPolicy
from parwise._executors.job import Job
from parwise._workers import fork_server
from parwise._workers.default_pool import default_pool
from parwise._workers.handle import WorkerHandle
from parwise._workers.worker_pool import WorkerPool

from .oracle import assert_same, loop

ISOLATED = {"isolate": True, "workers": 2}
N = 40


def killed_by(signum):
    def die():
        os.kill(os.getpid(), signum)
        time.sleep(60)

    return die


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


def in_the_function(die, index):
    def f(x):
        if x == index:
            die()
        return float(x)

    return f


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


def right_call():
    a = np.arange(N * 3.0).reshape(N, 3)
    assert_same(parallel_apply(np.cumsum, a, **ISOLATED), a.cumsum(axis=1))


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
    right_call()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_crash_at_start(how, monkeypatch):
    """A worker that is killed as soon as it is born."""
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

    def crippled():
        *most, code = command()
        refuse = "import os\ndef refuse():\n    raise BlockingIOError(11, 'no more processes')\nos.fork = refuse\n"
        return [*most, refuse + code]

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
        right_call()


def test_oom_killer_is_a_kill_that_names_no_cause():
    """What the kernel does when memory is short; the message states no guess."""
    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(in_the_function(HOW["SIGKILL"][0], 3), np.arange(20), **ISOLATED)
    assert "memory" not in str(caught.value)


class Once:
    """Does something the first time that an element comes to any worker."""

    def __init__(self, folder, act, every=1):
        self.folder, self.act, self.every = str(folder), act, every

    def __call__(self, x):
        if int(x) % self.every == 0:
            try:
                os.close(os.open(f"{self.folder}/{x}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                self.act()
        return x * 2.5


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


def test_proof_that_kills_its_worker(eager):
    """The handshake's element does too."""
    caller = os.getpid()

    def f(x):
        if x == 0 and os.getpid() != caller:
            os._exit(1)
        return x

    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(f, np.arange(100), workers=2)
    assert caught.value.index == 0


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
            pids = [link.pid for link in default_pool().workers if link.pid]
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


@pytest.mark.parametrize(
    "stick",
    [lambda: ctypes.PyDLL(None).sleep(60), lambda: time.sleep(60), lambda: [None for _ in iter(int, 1)]],
    ids=["in C with the GIL", "asleep", "in Python"],
)
def test_timeout(stick):
    def f(x):
        if x == 7:
            stick()
        return x

    with pytest.raises(ElementTimeoutError, match=r"more than timeout=1 s in element 7 along axis 0") as caught:
        parallel_apply(f, np.arange(N), workers=2, timeout=1.0)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.index == 7
    assert "in f" in caught.value.stack
    assert "innermost call first" in caught.value.__notes__[0]
    right_call()


def test_timeout_is_of_each_element_not_of_all():
    assert_same(
        parallel_apply(lambda x: (time.sleep(0.04), x)[1], np.arange(60), workers=2, timeout=1.0), np.arange(60)
    )
    assert os.getpid() not in parallel_apply(lambda x: os.getpid(), np.arange(5), timeout=5.0)
    assert os.getpid() not in parallel_apply(lambda x: os.getpid(), np.arange(5), timeout=5.0, workers=1)


def test_timeout_of_a_function_that_ignores_sigterm():
    def f(x):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    with pytest.raises(ElementTimeoutError):
        parallel_apply(f, np.arange(3), workers=2, timeout=0.05)
    right_call()


def test_timeout_ends_what_the_function_started(tmp_path):
    pid_file = tmp_path / "pid"

    def f(x):
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        (pid_file.with_suffix(".tmp")).write_text(str(child.pid))
        pid_file.with_suffix(".tmp").rename(pid_file)
        child.wait()

    with pytest.raises(ElementTimeoutError):
        parallel_apply(f, np.arange(1), workers=1, timeout=1.0)
    assert_ends(int(pid_file.read_text()))


def assert_ends(pid):
    """Wait until a process that is not a child of this one has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        os.sched_yield()
    raise AssertionError(f"process {pid} is still there")


def test_timeout_and_retries(tmp_path):
    a = np.arange(30.0)
    got = parallel_apply(Once(tmp_path, lambda: time.sleep(60), every=15), a, workers=2, timeout=1.0, retries=1)
    assert_same(got, a * 2.5)
    with pytest.raises(ElementTimeoutError) as caught:
        parallel_apply(lambda x: time.sleep(60 * (x == 3)), np.arange(9), workers=2, timeout=1.0, retries=1)
    assert caught.value.index == 3


def test_timeout_of_a_block():
    with pytest.raises(ElementTimeoutError, match="in block 10:15 along axis 0") as caught:
        parallel_apply(
            lambda b: (time.sleep(60 * (b[0] == 10)), b)[1], np.arange(20), vectorized=True, chunk=5, timeout=1.0
        )
    assert caught.value.index == 10


class Custom(Exception):
    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Locked(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def raised(make, **options):
    """What comes of a function that raises ``make()`` for element 3."""

    def f(x):
        if x == 3:
            raise make()
        return x

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        parallel_apply(f, np.arange(12), **ISOLATED, **options)
    right_call()
    return caught.value


def test_exceptions_travel_whole():
    error = raised(lambda: Custom(7, reason="because"))
    assert (type(error), error.code, error.reason, str(error)) == (Custom, 7, "because", "7: because")
    assert "in element 3 along axis 0" in error.__notes__
    error = raised(lambda: Speechless())
    assert type(error) is Speechless
    error = raised(lambda: ValueError("x" * 10_000_000))
    assert error.args == ("x" * 10_000_000,)
    error = raised(lambda: OSError(2, "nothing", "file"))
    assert (type(error), error.errno, error.filename) == (FileNotFoundError, 2, "file")
    error = raised(lambda: ExceptionGroup("both", [ValueError("one"), KeyError("two")]))
    assert [type(one) for one in error.exceptions] == [ValueError, KeyError]


def test_exceptions_that_cannot_travel():
    error = raised(lambda: Locked("held"))
    assert type(error) is parwise.RemoteError
    assert error.type_name.endswith("Locked")
    assert "held" in str(error)
    assert "in f" in str(error.__cause__)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration])
def test_exceptions_that_mean_something_to_python(kind):
    error = raised(lambda: kind("text"))
    assert type(error) is kind
    if kind is not StopIteration:  # whose arguments `map` throws away
        assert error.args == ("text",)
    for executor in ("serial", "threads"):
        with pytest.raises(kind):
            parallel_apply(in_the_function(lambda: throw(kind), 3), np.arange(12), executor=executor)


def throw(kind):
    raise kind


@pytest.mark.parametrize("options", [{"errors": "ignore"}, {"retries": 2}])
def test_proof_that_kills_worker_after_worker(eager, options):
    """The caller has that element; the others are computed."""
    caller = os.getpid()

    def f(x):
        if x == 0 and os.getpid() != caller:
            os._exit(1)
        return x

    a = np.arange(200.0)
    if "retries" in options:
        with pytest.raises(WorkerDiedError):
            parallel_apply(f, a, workers=2, **options)
    else:
        assert_same(parallel_apply(f, a, workers=2, **options), a)
    right_call()


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


def test_late_element_that_ends_after_all():
    """It ignores the signal and is done before it is killed, or raises something."""

    def slow(x):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1.2 if x == 0 else 0.0)
        return x

    def raising(x):
        signal.signal(signal.SIGTERM, lambda *_: throw(RuntimeError))
        time.sleep(60.0 if x == 0 else 0.0)
        return x

    named = []
    for f in (slow, raising):
        for workers in (1, 2):
            for count in (1, 40):
                a = np.arange(float(count))
                try:
                    assert_same(parallel_apply(f, a, timeout=1.0, workers=workers), a)
                except (ElementTimeoutError, RuntimeError) as error:
                    named.append(f"{error} {error.__notes__}")
    assert all("in element 0 along axis 0" in one for one in named)
    right_call()


def test_signal_without_a_name():
    with pytest.raises(WorkerDiedError, match="ended by signal 40 in element 2") as caught:
        parallel_apply(in_the_function(killed_by(40), 2), np.arange(4), **ISOLATED)
    assert caught.value.signal == 40


@pytest.mark.parametrize("proven", [True, False])
def test_worker_that_is_killed_while_idle_costs_nothing(proven):
    """If it had computed anything before: a worker that never comes up is an error."""
    settings = resolve({"workers": 2})
    call = make_call(
        abs, (np.arange(9),), axis=0, args=(), kwargs=None, vectorized=False, chunk=None, depth=0, boundary=None,
        out=None, rng=None, settings=settings,
    )  # fmt: skip
    link = WorkerHandle(1, 4096)
    try:
        link.proven = proven
        link.slots.cursor.leave()
        if proven:
            assert FaultPolicy(Job(call)).handle_exit(link, -9, None)
        else:
            with pytest.raises(WorkerDiedError, match="SIGKILL before it came to an element"):
                FaultPolicy(Job(call)).handle_exit(link, -9, None)
    finally:
        link.close()


def test_function_that_cannot_travel_says_so_from_a_cold_start():
    """While the caller is at a long element a second thread finds it out."""
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
