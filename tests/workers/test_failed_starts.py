"""Starting workers is all or nothing: what fails once leaves nothing behind, and the next call starts anew."""

from __future__ import annotations

import _socket
import errno
import fcntl
import gc
import mmap
import os
import select
import signal
import subprocess
import sys

import numpy as np
import pytest

from parwise import ParwiseError, parallel_apply
from parwise._executors.processes import runner as processes
from parwise._executors.processes.dispatcher import Dispatcher
from parwise._system import interpreter

from ..support.functions import ISOLATED
from ..support.internals import Job, WorkerPool, make_call, resolve
from ..support.oracle import assert_same
from ..support.scripts import run_script

A = np.arange(120.0).reshape(40, 3)


EPOLL = interpreter.select.epoll


class FailingPoll:
    """An epoll whose n-th registration fails."""

    def __init__(self, fail):
        self.real, self.fail = EPOLL(), fail

    def register(self, *args):
        self.fail()
        return self.real.register(*args)

    def __getattr__(self, name):
        return getattr(self.real, name)


#: System calls of a start, by the module that makes them and their name there.
CALLS = {
    "socketpair": (_socket, "socketpair"),
    "memfd_create": (os, "memfd_create"),
    "ftruncate": (os, "ftruncate"),
    "fcntl": (fcntl, "fcntl"),
    "mmap": (mmap, "mmap"),
    "eventfd": (os, "eventfd"),
    "epoll": (interpreter.select, "epoll"),
    "pidfd_open": (os, "pidfd_open"),
    "posix_spawn": (os, "posix_spawn"),
}


@pytest.fixture
def pool(monkeypatch):
    pool = WorkerPool()
    monkeypatch.setattr(processes, "default_pool", lambda: pool)
    yield pool
    pool.stop()


def failing(real, nth, times=1):
    """A function that fails when it is called for the n-th time."""
    calls = iter(range(1, 1_000_000))

    def call(*args, **kwargs):
        if nth <= next(calls) < nth + times:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*args, **kwargs)

    return call


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CALLS)
def test_a_system_call_that_fails_once(name, nth, pool, monkeypatch):
    module, attribute = CALLS[name]
    before = set(descriptors())
    with monkeypatch.context() as patch:
        patch.setattr(module, attribute, failing(getattr(module, attribute), nth))
        error = error_of(lambda: assert_same(parallel_apply(np.negative, A, **ISOLATED), -A))
    if error is not None:  # a start makes fewer of most of them
        assert "open files" in error
        pool.stop()
        gc.collect()  # frames of the error that refer to each other
        assert set(descriptors()) <= before  # some of earlier tests may be collected only now
    assert_same(parallel_apply(np.cumsum, A, **ISOLATED), A.cumsum(axis=1))
    assert len(pool.workers) == 2


def error_of(call):
    """Return the text of the error of a call, if any; the error itself would keep frames."""
    try:
        call()
    except (OSError, ParwiseError) as error:
        return str(error)


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_registration_that_fails_once(nth, pool, monkeypatch):
    fail = failing(lambda: None, nth)
    with monkeypatch.context() as patch:
        patch.setattr(interpreter.select, "epoll", lambda: FailingPoll(fail))
        error = error_of(lambda: assert_same(parallel_apply(np.negative, A, **ISOLATED), -A))
    assert "open files" in str(error) if error is not None else nth > 2  # the first worker is enough
    assert_same(parallel_apply(np.cumsum, A, **ISOLATED), A.cumsum(axis=1))


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("free", range(12))
def test_descriptors_run_out(free):
    """With so many left the call works or fails; once there are more the next one works."""
    done = run_script(f"""
import os, resource, numpy as np
from parwise import ParwiseError, parallel_apply
a = np.arange(120.0).reshape(40, 3)
opened = lambda: len(os.listdir("/proc/self/fd")) - 1
before = opened()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (before + {free}, hard))
for _ in range(2):
    try:
        assert (parallel_apply(np.negative, a, isolate=True, workers=2) == -a).all()
    except (OSError, ParwiseError) as error:
        assert "open files" in str(error), error
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert (parallel_apply(np.negative, a, isolate=True, workers=2) == -a).all()
from parwise._workers.pool.default_pool import default_pool
default_pool().stop()
assert opened() == before, (opened(), before)
print("done")
""")
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_forked_children_that_end_at_once_print_nothing():
    """Their fork servers find no caller as they come up."""
    done = run_script("""
import os, numpy as np
from parwise._workers.pool.fork_server_handle import ForkServerHandle
import parwise._workers.pool.forked_pool
for _ in range(20):
    if (pid := os.fork()) == 0:
        ForkServerHandle({}, bytes(16))
        os._exit(0)
    os.waitpid(pid, 0)
""")
    assert (done.stdout, done.stderr) == ("", "")


def test_stop_kills_no_process_that_got_the_number(pool):
    """Something in the program has waited for the fork server, and another process has its number by now."""
    parallel_apply(np.negative, A, **ISOLATED)
    server = pool.fork_server
    os.kill(server.pid, signal.SIGKILL)
    os.waitpid(server.pid, 0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        server.pid = other.pid
        pool.stop()
        assert other.poll() is None
        other.communicate(b"\n")
    assert other.returncode == 0


def test_workers_that_end_before_they_are_sent_the_call(pool):
    """Whoever looks whether they are up drops them meanwhile, as a helper thread that could not pack the function."""
    job = Job(make_call(np.cumsum, (A,), settings=resolve({"isolate": True, "workers": 2})))
    job.open()
    with pool.lock, Dispatcher(job, pool) as dispatcher:
        dispatcher.start_workers()
        first = list(pool.workers)
        while not all(worker.pid for worker in first):
            pool.wait(1.0)
        for worker in first:
            worker.kill()
            poll = select.poll()
            poll.register(worker.pidfd, select.POLLIN)
            assert poll.poll(30_000)
        assert not dispatcher.warm
        dispatcher.start()
        while not dispatcher.finished:
            dispatcher.step(None)
    assert_same(job.finish(), A.cumsum(axis=1))
