"""Executors of others, over all of which one contract is tested; in a process of theirs each finds a parwise."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest


class OverPool(Executor):
    """The least that an executor is: `submit`. It passes calls to a pool that has `apply_async`."""

    def __init__(self, pool):
        self._pool = pool

    def submit(self, func, /, *args, **kwargs):
        future = Future()
        future.set_running_or_notify_cancel()
        self._pool.apply_async(func, args, kwargs, future.set_result, future.set_exception)
        return future


@contextlib.contextmanager
def same_environment():
    """Take back what a library leaves in the environment for processes that it starts."""
    environ = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environ)


@contextlib.contextmanager
def processes(method):
    # Forked processes would have pytest's filters, by which each warning is an error.
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, context, warnings.resetwarnings) as executor:
        list(executor.map(time.sleep, [0.05] * 2))  # both processes are there from the start
        yield executor


@contextlib.contextmanager
def threads():
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(time.sleep, [0.05] * 2))  # both threads are there from the start
        yield executor


@contextlib.contextmanager
def loky():
    """The executor of joblib, which brings it along."""
    module = pytest.importorskip("joblib.externals.loky")
    with same_environment():
        executor = module.ProcessPoolExecutor(2)
        list(executor.map(time.sleep, [0.05] * 2))
    try:
        yield executor
    finally:
        executor.shutdown()


@contextlib.contextmanager
def home_made():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield OverPool(pool)


@contextlib.contextmanager
def dask():
    """Two worker processes of Dask, and a client."""
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "host": "127.0.0.1"}
        with same_environment():
            cluster = stack.enter_context(distributed.LocalCluster(**how))
        yield stack.enter_context(distributed.Client(cluster))


@contextlib.contextmanager
def ipyparallel(folder):
    """Two engines of ipyparallel, which has its files in `folder`."""
    module = pytest.importorskip("ipyparallel")
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        with same_environment():
            os.environ["IPYTHONDIR"] = str(folder)
            client = stack.enter_context(module.Cluster(n=2, log_level=40))
        yield client.executor()


@contextlib.contextmanager
def ray(folder):
    """Two processes of Ray, by its pool: it has no executor of its own."""
    module = pytest.importorskip("ray")
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        with same_environment():
            module.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
            stack.callback(module.shutdown)
            from ray.util.multiprocessing import Pool

            pool = Pool(2)
        signal.signal(signal.SIGTERM, handler)
        yield OverPool(pool)


@contextlib.contextmanager
def mpi():
    """The other ranks; only under ``mpiexec -n 3 python -m mpi4py.futures``."""
    module = pytest.importorskip("mpi4py.futures")
    with module.MPIPoolExecutor() as executor:
        yield executor
