"""Fixtures for all tests: executors, and a guard that a call leaves nothing behind."""

from __future__ import annotations

import collections
import contextlib
import gc
import importlib.util
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import parwise
from parwise._executors.job import task_length
from parwise._executors.processes import background, inline, sharing
from parwise._workers.direct import job as direct
from parwise._workers.pool.primitives import why_portable
from parwise.errors import NoWorkersError

from .support import executors, pairs, portable
from .support.adversarial import WAYS
from .support.gate import Gate
from .support.internals import default_pool

# A cluster of Dask looks at itself up to 100 times a second, which takes 15 % of a CPU.
os.environ |= {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__TICK__CYCLE": "5s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}
hypothesis.settings.register_profile(
    "parwise", deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
# For a change of the machinery: pytest --hypothesis-profile=long tests/executors/test_item_machine.py
hypothesis.settings.register_profile("long", hypothesis.settings.get_profile("parwise"), max_examples=2100)
# For other versions of dependencies, beside a whole run: pytest --hypothesis-profile=short
hypothesis.settings.register_profile("short", hypothesis.settings.get_profile("parwise"), max_examples=20)
hypothesis.settings.load_profile("parwise")


#: Executors of others that tests have made so far; Dask opens and closes sockets and threads as it goes.
made = []
# Those of them that are `parwise.Pool`s.
pools = []
# Descriptors after the last guarded test.
last_descriptors = collections.Counter()


#: ``pytest -m quick``: the contract, with parwise's own executors and in xarray, and the worst faults, in 20 seconds.
QUICK = {
    "tests/executors/test_contract.py",
    "tests/core/test_arguments.py",
    "tests/core/test_layout.py",
    "tests/core/test_random.py",
    "tests/workers/test_exceptions.py",
    "tests/workers/test_faults.py",
    "tests/xarray/test_map.py",
}
# Runners of other libraries, which take a second to start, and what is much like another runner.
NOT_QUICK = {"dask", "process_executor", "thread_executor", "initialized_pool", "pool", "one"}


def pytest_configure(config):
    """Register the marks of NumPy's own tests, some of which run here, and hear Ctrl-C.

    A shell starts programs in the background with SIGINT ignored: tests that wait for one would then wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("PARWISE_DIRECT") == "always":  # also where a copy by the caller would be cheaper
        direct.DIRECT_BYTES = direct.PIECE_BYTES = 1
    if config.option.markexpr == "quick":
        config.pluginmanager.register(QuickFiles())  # a hook of this file would not be asked about those in src
    for mark in ("thread_unsafe", "slow", "slow_pypy", "leaks_references", "parallel_threads"):
        config.addinivalue_line("markers", f"{mark}: of NumPy")


class QuickFiles:
    """For ``pytest -m quick``: to read the files without quick tests too would take 8 more seconds."""

    def pytest_ignore_collect(self, collection_path, config):
        if collection_path.suffix == ".py" and str(collection_path.relative_to(config.rootpath)) not in QUICK:
            return True
        return None


def pytest_collection_finish():
    """Leave what is imported by now out of garbage collection, which otherwise takes 0.1 s each time."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser):
    """Have all cases of tests with the mark ``pairs`` on demand."""
    parser.addoption("--every-case", action="store_true", help="each combination of parameters, not each pair alone")


def pytest_collection_modifyitems(config, items):
    """Mark quick tests, and run those with Dask and its like last: before them all descriptors are accounted for."""
    if not config.option.every_case:
        items[:], left_out = pairs.divide(items)
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        runner = item.callspec.params.get("runner") if hasattr(item, "callspec") else None
        if item.nodeid.partition("::")[0] in QUICK and runner not in NOT_QUICK:
            item.add_marker("quick")

    def restless(item):
        return any(f"[{name}" in item.nodeid or f"-{name}" in item.nodeid for name in RESTLESS)

    if why_portable() is not None:
        for item in items:
            if (why := portable.reason(item)) is not None:
                item.add_marker(pytest.mark.skip(reason=f"of forked workers only: {why}"))
    items.sort(key=lambda item: "dask" in item.nodeid or "dask_client" in item.fixturenames or restless(item))


@pytest.fixture(scope="session", autouse=True)
def _full_pool():
    """Start as many workers as any test uses, so that counts before and after a test can be compared.

    From Python 3.14 on multiprocessing too has a fork server, which stays once it is started.
    """
    if multiprocessing.get_start_method() == "forkserver":
        forkserver.ensure_running()
    fill_pools()
    yield
    default_pool().stop()


def fill_pools():
    """Start missing workers and stop surplus ones, so that each pool has all of its workers."""
    for pool, options in ((default_pool(), {"workers": 3}), *((one._pool, {"executor": one}) for one in pools)):
        workers = options.get("workers", 2)
        for worker in pool.workers[workers:]:
            pool.drop(worker)
        if len(pool.workers) != workers or any(worker.over for worker in pool.workers) or pool.dirty:
            parwise.parallel_apply(np.sum, np.ones((8, 2)), isolate=True, **options)
        while not all(worker.pid and worker.ready for worker in pool.workers):  # some have not told yet
            pool.wait(0.01)
            assert pool.running is not None


@pytest.fixture(autouse=True)
def _nothing_left():
    """Compare children, descriptors, threads, environment, handlers and shared memory before and after each test."""
    fill_pools()  # doctests have no guard, and some of them end workers
    shared = shared_memory()
    before, others = process_state(shared), len(made)
    if before["descriptors"] != last_descriptors:  # of a dead worker, which garbage collection closes at any time
        gc.collect()
        before = process_state(shared)
    before["shm"] = []  # what another program was making in this moment may be gone afterwards
    yield
    fill_pools()
    kinds = set(before)
    if len(made) > others:  # they stay until the end of the session
        kinds -= {"children", "descriptors", "threads", "path", "log"}
    after = process_state(shared)
    if any(after[kind] != before[kind] for kind in kinds):
        gc.collect()  # 0.1 s where Dask and xarray are loaded: not after each of 5,000 tests
        after = process_state(shared)
    since = time.monotonic()
    while (waited := time.monotonic() - since) < 30 and (
        # Another program may be making it in this moment, and has not mapped it yet; of one that was killed the
        # resource tracker removes it.
        after["shm"] or (waited < 2 and after["descriptors"] != before["descriptors"] and "descriptors" in kinds)
    ):
        os.sched_yield()  # the helper thread of a call that is over may hold its arrays, and so a file, for a moment
        after = process_state(shared)
    if after["descriptors"] != before["descriptors"] and "descriptors" in kinds:
        gc.collect()  # in a cycle, which that thread held when they were collected above
        after = process_state(shared)
    for name in before["descriptors"] - after["descriptors"]:
        if "/pytest-" in name:  # a file of an earlier test, which garbage collection closes at any time
            before["descriptors"][name] = after["descriptors"][name]
    before["descriptors"] += collections.Counter()
    last_descriptors.clear()
    last_descriptors.update(after["descriptors"])
    assert {kind: after[kind] for kind in kinds} == {kind: before[kind] for kind in kinds}


# Of others, these open and close sockets and threads as they go.
RESTLESS = {"dask", "ipyparallel", "ray", "mpi"}


# Variables that pytest, Dask, loky and Ray set at any time.
LEFT_BY_OTHERS = ("PYTEST_", "DASK_", "KMP_INIT_AT_FORK", "RAY_")


def process_state(shared):
    """Return what a call may not change; of shared memory, what has come since there was `shared`."""
    deadline = time.monotonic() + 2
    while any(t.name.startswith("parwise") for t in threading.enumerate()) and time.monotonic() < deadline:
        os.sched_yield()
    restless = not RESTLESS.isdisjoint(made)
    return {
        "children": children(),
        "workers": len(default_pool().workers),
        "descriptors": descriptors(restless=restless),
        "threads": None if restless else sorted(t.name for t in threading.enumerate()),
        "environ": {k: v for k, v in os.environ.items() if not k.startswith(LEFT_BY_OTHERS)},
        "folder": os.getcwd(),
        "handlers": {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)},
        "switch": sys.getswitchinterval(),
        "err": (np.geterr(), np.geterrcall(), np.getbufsize()),
        "streams": (sys.__stdout__, sys.__stderr__),
        "log": (logging.root.level, logging.root.manager.disable),
        "path": list(sys.path),
        "shm": own(shared_memory() - shared),
    }


def shared_memory():
    """Return the names of shared memory: of this process, of other programs, and what killed ones have left."""
    return {name for name in os.listdir("/dev/shm") if "parwise" in name or name.startswith("psm_")}


def own(names):
    """Return those of the names of shared memory that no other program has mapped: several may run these tests."""
    if names:  # reading what all processes have mapped takes 50 ms
        relatives = family()
        for process in Path("/proc").glob("[0-9]*"):
            if int(process.name) not in relatives:
                with contextlib.suppress(OSError):
                    maps = (process / "maps").read_text()
                    names = {name for name in names if f"/dev/shm/{name}" not in maps}
    return sorted(name for name in names if Path("/dev/shm", name).exists())


def family():
    """Return the ids of this process and of all that come from it, but not of a notebook's kernel and its processes.

    A kernel's worker may still be starting when a cell ends, and its memory has a name until the next cell.
    """
    found, todo = set(), [os.getpid()]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):
            if b"ipykernel" in Path(f"/proc/{pid}/cmdline").read_bytes():
                continue
        found.add(pid)
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                todo.extend(map(int, path.read_text().split()))
    return found


def children():
    """Return the sorted names of this process's children."""
    found = []
    for thread in os.listdir("/proc/self/task"):  # twice for each test: pathlib takes five times as long
        pids = []
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
            pids = file.read().split()  # or a helper thread has just left
        for pid in pids:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
                found.append(file.read().strip())
    return sorted(found)


def descriptors(*, restless):
    """Count this process's descriptors by kind."""
    found = collections.Counter()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}").partition("[")[0]
            target = "shared memory" if target.startswith("/dev/shm/psm_") else target  # of any portable worker
            # A monitor, as Dask's, reads these all the time.
            # A helper thread may still read umask, rights and namespaces when its call is over.
            passing = target.startswith("/proc/") and target.endswith(("/status", "/cgroup", "/ns"))
            if not (
                passing or (restless and target.startswith(("socket:", "pipe:", "anon_inode:", "/proc/", "/tmp/ray/")))
            ):
                found[target] += 1
    return found


@pytest.fixture
def eager(monkeypatch):
    """Leave all but two elements to workers, however small the call and busy the machine."""
    poll = background.BackgroundDispatcher.poll

    def attend_until_served(self, wanted):
        poll(self, wanted)
        while self._state != "active" and self.dispatcher.started and not self.dispatcher.serving:
            try:
                self.dispatcher.step(None)
            except NoWorkersError as error:
                self.give_up(error)

    monkeypatch.setattr(background.BackgroundDispatcher, "poll", attend_until_served)
    monkeypatch.setattr(inline, "COLD_SECONDS", -1.0)
    monkeypatch.setattr(inline, "WARM_SECONDS", -1.0)
    monkeypatch.setattr(inline, "BUSY_SECONDS", -1.0)
    monkeypatch.setattr(sharing, "BESIDE_SECONDS", -1.0)
    monkeypatch.setattr(inline, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(inline, "EARLY_SECONDS", 0.0)
    monkeypatch.setattr(inline, "WARM_LOOKS", (0.0,))
    monkeypatch.setattr(inline, "COLD_LOOKS", (0.0,))
    monkeypatch.setattr(inline, "OWN_SECONDS", 0.0)


@pytest.fixture
def small_tasks(monkeypatch):
    """Spread results over many tasks, however cheap the function."""
    monkeypatch.setattr(task_length, "LEAST_SECONDS", 0.0)


@pytest.fixture
def way(request):
    """Options for one of `adversarial.WAYS`, call by call."""
    if request.param == "eager":
        request.getfixturevalue("eager")
    return WAYS[request.param]


#: Executors of others: a name, and how one is made with a folder for files.
FOREIGN = {
    "spawn": lambda folder: executors.processes("spawn"),
    "fork": lambda folder: executors.processes("fork"),
    "forkserver": lambda folder: executors.processes("forkserver"),
    "threads": lambda folder: executors.threads(),
    "home_made": lambda folder: executors.home_made(),
    "loky": lambda folder: executors.loky(),
    "ipyparallel": executors.ipyparallel,
    "ray": executors.ray,
    "mpi": lambda folder: executors.mpi(),
    "dask": lambda folder: executors.dask(),
}


# Those of FOREIGN that are tested where they are installed.
OPTIONAL = ("ipyparallel", "ray")


def foreign_names(default):
    """Names of the executors to test: those that are asked for, else `default`, without MPI, which needs mpiexec."""
    asked = os.environ.get("PARWISE_EXECUTORS")
    missing = {"mpi", *(one for one in OPTIONAL if importlib.util.find_spec(one) is None)}
    return asked.split(",") if asked else [one for one in default if one not in missing]


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    """Executors of others by name, each made once."""
    found = {}
    with contextlib.ExitStack() as stack:

        def get(name):
            if name not in found:
                made.append(name)
                found[name] = stack.enter_context(FOREIGN[name](tmp_path_factory.mktemp(name)))
            return found[name]

        yield get


@pytest.fixture(scope="session")
def process_executor(foreign):
    return foreign("spawn")


@pytest.fixture(scope="session")
def thread_executor(foreign):
    return foreign("threads")


@contextlib.contextmanager
def full_pool(**given):
    """A `parwise.Pool` that is filled anew after each test."""
    made.append("pool")
    with parwise.Pool(2, **given) as pool:
        pools.append(pool)
        fill_pools()
        yield pool
        pools.remove(pool)


@pytest.fixture(scope="session")
def pool():
    with full_pool() as pool:
        yield pool


@pytest.fixture
def mortal():
    """A `parwise.Pool` whose workers the test may kill."""
    with parwise.Pool(2) as pool:
        yield pool


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path)
    yield gate
    gate.open()


@pytest.fixture(scope="session")
def initialized_pool():
    with full_pool(initializer=np.zeros, initargs=(3,)) as pool:
        yield pool


@pytest.fixture(scope="session")
def dask_client(foreign):
    return foreign("dask")


RUNNERS = {
    "serial": lambda request: {"executor": "serial"},
    "one": lambda request: {"workers": 1},
    "threads": lambda request: {"executor": "threads", "workers": 3},
    "processes": lambda request: (request.getfixturevalue("eager"), {"workers": 2})[1],
    "isolated": lambda request: {"workers": 2, "isolate": True},
    "thread_executor": lambda request: {"executor": request.getfixturevalue("thread_executor")},
    "process_executor": lambda request: {"executor": request.getfixturevalue("process_executor")},
    "pool": lambda request: (request.getfixturevalue("eager"), {"executor": request.getfixturevalue("pool")})[1],
    "initialized_pool": lambda request: {"executor": request.getfixturevalue("initialized_pool")},
    "dask": lambda request: {"executor": request.getfixturevalue("dask_client")},
}


@pytest.fixture(params=foreign_names(RUNNERS))
def runner(request):
    """Options that choose one executor."""
    if request.param in RUNNERS:
        return RUNNERS[request.param](request)
    return {"executor": request.getfixturevalue("foreign")(request.param)}
