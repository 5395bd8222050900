"""Connections of portable workers: neither side waits for the other within a message, and none is cut or doubled."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import connection, resource_tracker

import numpy as np
import pytest

from parwise import WorkerDiedError, parallel_apply
from parwise._system.inheritance import tracker_fd
from parwise._workers.pool import silence
from parwise._workers.portable import wire
from parwise._workers.portable.channel import PortableChannel
from parwise._workers.portable.pool import PortablePool
from parwise._workers.portable.start import behind_launcher
from parwise._workers.protocol import ForeignBytesError

from ..support.oracle import assert_same
from ..support.scripts import run_script

COOKIE = bytes(range(16))
LARGE = bytes(10_000_000)


@pytest.fixture(scope="module", autouse=True)
def _tracker():
    """Start the resource tracker, which stays as long as this process."""
    resource_tracker.ensure_running()


@pytest.fixture
def no_collection():
    """Keep a signal's exception out of callbacks of the garbage collector, as Hypothesis has one: Python reports it."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def ends():
    """The ends of a connection."""
    made = connection.Pipe()
    yield made
    for one in made:
        with contextlib.suppress(OSError):
            one.close()


@pytest.fixture
def caller(ends):
    """The caller's end as a channel."""
    channel = PortableChannel(ends[0], COOKIE)
    yield channel
    channel.close()


@pytest.fixture
def other(ends):
    """The other end, whose `send` waits for room."""
    channel = PortableChannel(ends[1], COOKIE, waits=True)
    yield channel
    channel.close()


def receive(channel):
    """Wait for a message."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return channel.receive()
        connection.wait([channel.waitable])


def test_a_message_without_room_waits(caller, other):
    caller.send("load", pickle.PickleBuffer(LARGE), 7)
    assert caller.full
    with pytest.raises(BlockingIOError):
        other.receive()
    while caller.full:
        caller.flush()
        with contextlib.suppress(BlockingIOError):
            found = other.receive()
    assert found[0][0] == "load"
    assert bytes(found[0][1]) == LARGE
    assert found[0][2] == 7


def test_a_message_cut_by_the_end_of_its_sender(caller, other):
    caller.send("load", pickle.PickleBuffer(LARGE))
    with pytest.raises(BlockingIOError):
        other.receive()
    caller.close()
    with pytest.raises(EOFError):
        other.receive()


def test_descriptors_come_with_their_message(caller, other):
    with open(os.devnull, "rb") as file:
        caller.send("load", pickle.PickleBuffer(LARGE))
        caller.send("track", fds=[file.fileno()])
        caller.send("unload")
    found = []
    while len(found) < 3:
        caller.flush()
        with contextlib.suppress(BlockingIOError):
            found.append(other.receive())
    assert [message[0] for message, _ in found] == ["load", "track", "unload"]
    assert [len(fds) for _, fds in found] == [0, 1, 0]
    (fd,) = found[1][1]
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("foreign", [b"hello", b"x" * 100, COOKIE[:8] + b"x" * 8])
def test_foreign_bytes_are_refused(foreign, caller, other):
    os.write(caller.fileno(), foreign)
    caller.send("load", 1)
    with pytest.raises(ForeignBytesError):
        other.receive()


def test_messages_of_several_threads(caller, other):
    def talk(k):
        for i in range(30):
            other.send("output", k, i, bytes(30_000))

    threads = [threading.Thread(target=talk, args=(k,)) for k in range(5)]
    for one in threads:
        one.start()
    found = [receive(caller)[0] for _ in range(5 * 30)]
    for one in threads:
        one.join()
    assert sorted(message[1:3] for message in found) == [(k, i) for k in range(5) for i in range(30)]
    assert not other.waiting


class Late(Exception):
    """Raised by the handler of a signal."""


@pytest.mark.usefixtures("no_collection")
def test_signals_that_raise_within_a_message(caller, other):
    """No message is cut, or sent twice; the one that was interrupted follows with the next one."""
    found = []

    def read():
        while not found or found[-1][1] is not None:
            found.append(receive(caller)[0])

    def handle(*_):
        raise Late

    reader = threading.Thread(target=read)
    reader.start()
    before = signal.signal(signal.SIGALRM, handle)
    interrupted = 0
    try:
        for k in range(300):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0002 + k % 7 * 0.0001)
                    other.send("output", k, pickle.PickleBuffer(LARGE[:1_000_000]))
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Late:
                interrupted += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    other.send("output", None)
    reader.join()
    numbers = [message[1] for message in found]
    assert interrupted > 10
    assert numbers == [*sorted(set(numbers) - {None}), None]
    assert not other.waiting
    assert all(len(bytes(one[2])) == 1_000_000 for one in found[:-1])


@pytest.mark.usefixtures("no_collection")
def test_signals_that_raise_leave_the_connection_free(caller, other):
    """Right behind the step that takes the lock, too: all messages of later calls would wait for ever."""

    def read():
        while receive(caller)[0][1] is not None:
            pass

    def handle(*_):
        raise Late

    reader = threading.Thread(target=read)
    reader.start()
    before = signal.signal(signal.SIGALRM, handle)
    try:
        for k in range(3000):
            with contextlib.suppress(Late):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.00001 + k % 50 * 0.000001)
                    for _ in range(5):
                        other.send("output", k)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            if other._sending.locked():
                break
    finally:
        signal.signal(signal.SIGALRM, before)
    locked = other._sending.locked()
    if locked:
        other._sending.release()  # so that the reader ends
    other.send("output", None)
    reader.join()
    assert not locked


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="without /proc nobody sees that a worker is stopped")
def test_a_stopped_worker_does_not_stop_the_caller(monkeypatch):
    """The function has no room in its connection: it is sent to the other worker, and to a new one."""
    monkeypatch.setattr(silence, "STOPPED_SECONDS", 0.5)
    pool = PortablePool()
    monkeypatch.setattr("parwise._executors.processes.runner.default_pool", lambda: pool)
    a, large = np.arange(8.0), np.ones(10**6)
    try:
        assert_same(parallel_apply(np.negative, a, workers=2, isolate=True), -a)
        stopped = pool.workers[0].pid
        os.kill(stopped, signal.SIGSTOP)

        def multiply(x):
            while os.path.exists(f"/proc/{stopped}"):  # the other worker is not to end the call alone
                time.sleep(0.01)
            return x * large[0]

        assert_same(parallel_apply(multiply, a, workers=2, isolate=True, timeout=60), a)
        assert stopped not in [worker.pid for worker in pool.workers]
    finally:
        pool.stop()


def test_a_wake_is_never_lost():
    pool = PortablePool()
    try:
        pool._add_worker()
        for _ in range(3):
            pool.wake()
            pool.wake()
            poll = select.poll()
            poll.register(pool._wake[0].fileno(), select.POLLIN)
            while poll.poll(0):
                pool.wait(0)
            assert not pool._woken
    finally:
        pool.stop()


def test_pipes_carry_the_same_messages(ends, monkeypatch):
    """Those of Windows, whose connections have the same methods."""
    monkeypatch.setattr("parwise._workers.portable.channel.PIPES", True)
    one, two = PortableChannel(ends[0], COOKIE), PortableChannel(ends[1], COOKIE, waits=True)
    assert isinstance(one.wire, wire.PipeWire)
    one.send("load", pickle.PickleBuffer(b"abc"), 7)
    with pytest.raises(BlockingIOError):  # the other side may not read yet: a pipe would keep the caller waiting
        two.receive()
    two.send("ready", False)
    assert receive(one)[0] == ("ready", False)
    kind, data, number = two.receive()[0]
    assert (kind, bytes(data), number) == ("load", b"abc", 7)
    for channel in (one, two):
        channel.close()


def test_the_launcher_of_a_virtual_environment_is_left_out(monkeypatch):
    """Of Windows, where it would be the process that gets the handles."""
    monkeypatch.setattr(sys, "executable", "/env/python.exe")
    monkeypatch.setattr(sys, "_base_executable", "/base/python.exe")
    assert behind_launcher("/env/python.exe") == ("/base/python.exe", {"__PYVENV_LAUNCHER__": "/env/python.exe"})
    assert behind_launcher("/other/python.exe") == ("/other/python.exe", {})
    monkeypatch.setattr(sys, "_base_executable", "/env/python.exe")
    assert behind_launcher("/env/python.exe") == ("/env/python.exe", {})


def test_no_resource_tracker_is_started_on_windows(monkeypatch):
    """It could not be: its start needs a module of Unix."""
    pytest.importorskip("multiprocessing.shared_memory")
    monkeypatch.setattr(resource_tracker, "getfd", lambda: 5)
    assert tracker_fd() == 5
    monkeypatch.setattr(os, "name", "nt")
    assert tracker_fd() is None


def test_as_many_workers_as_the_system_can_wait_for(monkeypatch):
    monkeypatch.setattr(PortablePool, "MOST", 1)
    pool = PortablePool()
    monkeypatch.setattr("parwise._executors.processes.runner.default_pool", lambda: pool)
    try:
        a = np.arange(8.0)
        assert_same(parallel_apply(np.negative, a, workers=3, isolate=True), -a)
        assert len(pool.workers) == 1
    finally:
        pool.stop()


def test_what_a_worker_has_started_ends_without_waitid(monkeypatch, tmp_path):
    """As on macOS up to Python 3.12: the number of the worker is free as soon as its end is known."""
    monkeypatch.delattr(os, "waitid")
    pool = PortablePool()
    monkeypatch.setattr("parwise._executors.processes.runner.default_pool", lambda: pool)
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)

    def leave_behind(x):
        with open(fifo, "w") as file:
            file.write("begun\n")
            file.flush()
            subprocess.Popen(["sleep", "60"], pass_fds=[file.fileno()])
            os._exit(3)

    read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(WorkerDiedError):
            parallel_apply(leave_behind, np.arange(1.0), workers=1, isolate=True)
        os.set_blocking(read, True)
        assert os.read(read, 100) == b"begun\n"
        poll = select.poll()
        poll.register(read, select.POLLIN)
        assert poll.poll(10_000), "the program goes on"  # its end closes the pipe
        assert os.read(read, 100) == b""
    finally:
        os.close(read)
        pool.stop()


def test_another_process_with_the_number_of_a_worker_is_spared(monkeypatch):
    """A program that waits for all of its children may make that number free at any time."""
    pool = PortablePool()
    try:
        worker = pool._add_worker()
        os.kill(worker.pid, signal.SIGKILL)
        os.waitpid(worker.pid, 0)
        worker.pid = os.getppid()
        killed = []
        monkeypatch.setattr(os, "killpg", lambda *given: killed.append(given))
        assert worker.over
        worker.kill()
        assert killed == []
    finally:
        monkeypatch.undo()
        pool.stop()


@pytest.mark.parametrize("message", ["PortableWorker.introduce", "reduction.ForkingPickler.dumps"])
def test_a_caller_that_is_killed_while_a_worker_starts(message):
    """Before the first message, and before the second one: the worker prints nothing."""
    done = run_script(
        f"""
        import os, signal
        from parwise import parallel_map
        from multiprocessing import reduction
        from parwise._workers.portable.worker import PortableWorker
        {message} = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
        parallel_map(abs, range(2), isolate=True, workers=1)
        """,
        "-",
        env={**os.environ, "PARWISE_WORKERS": "portable"},
    )
    assert done.returncode == -signal.SIGKILL
    assert [line for line in done.stderr.splitlines() if "resource_tracker" not in line and "warn(" not in line] == []


@pytest.mark.parametrize("errors", ["raise", "ignore"])
def test_workers_that_are_killed_as_they_start(errors, monkeypatch):
    """No element is at fault, and the call does not go on for ever."""
    pool = PortablePool()
    monkeypatch.setattr("parwise._executors.processes.runner.default_pool", lambda: pool)
    add = pool._add_worker

    def add_killed():
        worker = add()
        worker.process.kill()
        return worker

    monkeypatch.setattr(pool, "_add_worker", add_killed)
    try:
        with pytest.raises(WorkerDiedError, match="ended by SIGKILL before it came to an element") as caught:
            parallel_apply(np.negative, np.arange(3.0), workers=2, isolate=True, errors=errors)
        assert caught.value.index is None
    finally:
        pool.stop()
