"""Where workers cannot be had the caller goes on alone, and says so; the result is the loop's."""

from __future__ import annotations

import errno
import os
import select
import sys
import warnings

import numpy as np
import pytest

from parwise import ParwiseError, Pool, WorkerDiedError, parallel_apply, parallel_imap, parallel_map
from parwise._executors import choice
from parwise._executors.processes import background
from parwise._executors.processes import runner as processes
from parwise._workers import descriptors
from parwise._workers.pool import fork_server_start, primitives

from ..support.internals import WorkerPool
from ..support.oracle import assert_same
from ..support.scripts import run_script

A = np.arange(1200.0).reshape(400, 3)


def busy(x):
    return sum(range(3000)) * 0 + np.cumsum(x)


@pytest.fixture
def pool(monkeypatch):
    """A new pool, which has started nothing, used by all calls of the test."""
    pool = WorkerPool()
    monkeypatch.setattr(processes, "default_pool", lambda: pool)
    monkeypatch.setattr(choice, "take_pool", lambda: pool)
    monkeypatch.setattr(choice, "put_back", lambda pool: None)
    monkeypatch.setattr(background, "default_pool", lambda: pool)
    monkeypatch.setattr(background, "known_pool", lambda: pool)
    yield pool
    pool.stop()


def refuse(*_, **__):
    raise OSError(errno.ENOSYS, "Function not implemented")


def no_descriptors(*_, **__):
    raise OSError(errno.EMFILE, "Too many open files")


def crippled(line):
    """Commands of fork servers that do something first."""
    command = fork_server_start._command

    def changed(python):
        *most, code, name = command(python)
        return [*most, f"{line}\n{code}", name]

    return changed


NO_FORK = "import os\ndef refuse():\n    raise BlockingIOError(11, 'no more processes')\nos.fork = refuse"

#: What is missing: how it is taken away, and what the warning says.
WAYS = {
    "pidfd_open": (lambda patch: patch.setattr(os, "pidfd_open", refuse), "pidfd_open is not to be had .*implemented"),
    "memfd_create": (lambda patch: patch.delattr(os, "memfd_create"), "no memfd_create"),
    "eventfd": (lambda patch: patch.setattr(os, "eventfd", refuse), "eventfd is not to be had"),
    "fork": (lambda patch: patch.delattr(os, "fork"), "no fork"),
    "sys.executable": (lambda patch: patch.setattr(sys, "executable", ""), "sys.executable is ''"),
    "a program": (lambda patch: patch.setattr(sys, "executable", "/nowhere/python"), "/nowhere/python"),
    "a short path": (lambda patch: patch.setattr(sys, "path", [*sys.path, "/" + "x" * 2**18]), "could not be started"),
    "descriptors": (lambda patch: patch.setattr(descriptors, "open_sockets", no_descriptors), "Too many open .*ulimit"),
    "processes": (lambda patch: patch.setattr(fork_server_start, "_command", crippled(NO_FORK)), "no more processes"),
    "NumPy": (lambda patch: patch.setattr(fork_server_start, "_command", crippled("raise SystemExit(3)")), "code 3"),
}


@pytest.fixture(params=WAYS)
def words(request, pool, monkeypatch):
    """Workers cannot be had; the words that tell why."""
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)  # which names an interpreter too
    primitives.missing_primitive.cache_clear()
    take_away, words = WAYS[request.param]
    with monkeypatch.context() as patch:
        take_away(patch)
        patch.setattr("parwise._workers.protocol.open_sockets", descriptors.open_sockets)
        yield words
    primitives.missing_primitive.cache_clear()


CALLS = {
    "apply": lambda **given: parallel_apply(busy, A, workers=2, **given),
    "map": lambda **given: np.array(parallel_map(busy, list(A), workers=2, **given)),
    "imap": lambda **given: np.array(list(parallel_imap(busy, iter(A), workers=2, **given))),
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("call", CALLS)
def test_the_caller_goes_on_alone(words, call):
    with pytest.warns(RuntimeWarning, match=f"computed this call alone: .*{words}") as caught:
        assert_same(CALLS[call](), A.cumsum(axis=1))
    assert len(caught) == 1


@pytest.mark.parametrize("options", [{"isolate": True}, {"timeout": 60}, {"retries": 1}], ids=str)
def test_calls_that_only_workers_may_compute_raise_one_error(words, options, eager):
    with pytest.raises(ParwiseError, match=words):
        parallel_apply(busy, A, workers=2, **options)


def test_later_calls_have_workers(pool, monkeypatch, eager):
    with monkeypatch.context() as patch:
        patch.setattr(fork_server_start, "_command", crippled(NO_FORK))
        with pytest.warns(RuntimeWarning, match="alone"):
            assert_same(parallel_apply(busy, A, workers=2), A.cumsum(axis=1))
    assert_same(parallel_apply(busy, A, workers=2), A.cumsum(axis=1))
    assert len(pool.workers) == 2


def test_as_many_workers_as_processes_allow(pool, monkeypatch):
    """The third fork fails: the call goes on with two workers, without a word."""
    line = (
        "import os, itertools\nreal, count = os.fork, itertools.count()\n"
        "def fork():\n    if next(count) >= 2: raise BlockingIOError(11, 'no more processes')\n    return real()\n"
        "os.fork = fork"
    )
    monkeypatch.setattr(fork_server_start, "_command", crippled(line))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(parallel_apply(busy, A, workers=4, isolate=True), A.cumsum(axis=1))
    assert len(pool.workers) == 2


def test_elements_of_dead_workers_are_not_computed_here(pool, monkeypatch):
    """The function may have ended them: it would end the caller too."""
    line = (
        "import os, itertools\nreal, count = os.fork, itertools.count()\n"
        "def fork():\n    if next(count) >= 2: raise BlockingIOError(11, 'no more processes')\n    return real()\n"
        "os.fork = fork"
    )
    monkeypatch.setattr(fork_server_start, "_command", crippled(line))
    pid = os.getpid()

    def end_worker(x):
        if os.getpid() != pid and x > 500:
            os._exit(3)
        return x

    with pytest.raises((WorkerDiedError, ParwiseError)):
        parallel_apply(end_worker, np.arange(1000.0), workers=2, isolate=True, retries=2)


def test_pool_tells_by_its_futures(monkeypatch):
    monkeypatch.setattr(fork_server_start, "_command", crippled(NO_FORK))
    with Pool(2) as pool, pytest.raises(ParwiseError, match="no more processes"):
        pool.submit(abs, -1).result(30)


def test_the_answer_comes_with_the_end_of_the_socket(pool, monkeypatch):
    """A busy machine shows both at once: a worker that is refused is not a dead one, which another would replace."""
    monkeypatch.setattr(fork_server_start, "_command", crippled(NO_FORK))
    wait, waits = WorkerPool.wait, []

    def late(self, timeout):
        waits.append(timeout)
        assert len(waits) < 50, "workers are started again and again"
        for worker in self.workers:
            poll = select.poll()
            poll.register(worker.channel, select.POLLIN)
            assert poll.poll(30_000)
        return wait(self, timeout)

    monkeypatch.setattr(WorkerPool, "wait", late)
    with pytest.raises(ParwiseError, match="no more processes"):
        parallel_apply(busy, A, workers=2, isolate=True)
    assert not pool.workers


def test_as_many_workers_as_descriptors_allow():
    done = run_script("""
import os, resource, numpy as np
from parwise import parallel_apply
from parwise._workers.pool.default_pool import default_pool
resource.setrlimit(resource.RLIMIT_NOFILE, (140, 140))
a = np.arange(4000.0).reshape(400, 10)
print((parallel_apply(np.cumsum, a, isolate=True, workers=50) == a.cumsum(1)).all(), len(default_pool().workers))
""")
    assert (done.stdout, done.stderr) == ("True 4\n", "")
