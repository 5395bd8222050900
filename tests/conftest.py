"""Fixtures for all tests: executors, and a guard that a call leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import parwise
from parwise._pool import default_pool
from parwise._runners import processes

hypothesis.settings.register_profile(
    "parwise", deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
hypothesis.settings.load_profile("parwise")


def descriptors():
    """Descriptors of the kinds that parwise opens; Dask opens sockets as it goes."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if any(kind in target for kind in ("parwise", "pidfd", "eventfd", "psm_")):
                found[name] = target
    return found


@pytest.fixture(scope="session", autouse=True)
def _full_pool():
    """Bring up as many workers as any test uses, so that later counts can be compared."""
    parwise.parallel_apply(np.sum, np.ones((8, 2)), workers=3, isolate=True)
    yield
    default_pool().stop()


@pytest.fixture(autouse=True)
def _nothing_left():
    """Environment, handlers, threads, descriptors and shared memory are as before each test."""
    state = _process_state()
    before = len(descriptors())
    yield
    gc.collect()
    assert _process_state() == state
    # A worker that a test killed is missing until a later test brings another up.
    assert len(descriptors()) <= _most_descriptors(before), descriptors()


_seen = 0


def _most_descriptors(before):
    global _seen
    _seen = max(_seen, before)
    return _seen


def _process_state():
    deadline = time.monotonic() + 2
    while threading.active_count() > _idle_threads() and time.monotonic() < deadline:
        os.sched_yield()
    return {
        "environ": {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "DASK_"))},
        "folder": os.getcwd(),
        "int": signal.getsignal(signal.SIGINT),
        "term": signal.getsignal(signal.SIGTERM),
        "chld": signal.getsignal(signal.SIGCHLD),
        "threads": [t.name for t in threading.enumerate() if t.name.startswith("parwise")],
        "switch": sys.getswitchinterval(),
        "err": np.geterr(),
        "shm": sorted(p.name for p in Path("/dev/shm").iterdir() if "parwise" in p.name or p.name.startswith("psm_")),
    }


def _idle_threads():
    return sum(not t.name.startswith("parwise") for t in threading.enumerate())


@pytest.fixture
def eager(monkeypatch):
    """Hand over to workers after two elements, however small the call and busy the machine."""
    attend = processes._Company.attend

    def attend_until_served(self, wanted):
        attend(self, wanted)
        while self._state != "active" and self._crew.started and not self._crew.serving:
            self._crew.step(None)

    monkeypatch.setattr(processes._Company, "attend", attend_until_served)
    monkeypatch.setattr(processes, "COLD_SECONDS", -1.0)
    monkeypatch.setattr(processes, "WARM_SECONDS", -1.0)
    monkeypatch.setattr(processes, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(processes, "OWN_SECONDS", 0.0)


@pytest.fixture(scope="session")
def process_executor():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="session")
def thread_executor():
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(time.sleep, [0.05] * 2))  # both threads are there from the start
        yield executor


@pytest.fixture(scope="session")
def dask_client():
    distributed = pytest.importorskip("distributed")
    environ = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            os.environ.clear()  # the cluster leaves thread settings for its workers there
            os.environ.update(environ)
            yield client


RUNNERS = {
    "serial": lambda request: {"executor": "serial"},
    "one": lambda request: {"workers": 1},
    "threads": lambda request: {"executor": "threads", "workers": 3},
    "processes": lambda request: (request.getfixturevalue("eager"), {"workers": 2})[1],
    "isolated": lambda request: {"workers": 2, "isolate": True},
    "thread_executor": lambda request: {"executor": request.getfixturevalue("thread_executor")},
    "process_executor": lambda request: {"executor": request.getfixturevalue("process_executor")},
    "dask": lambda request: {"executor": request.getfixturevalue("dask_client")},
}


@pytest.fixture(params=RUNNERS)
def runner(request):
    """Options that choose one executor."""
    return RUNNERS[request.param](request)
