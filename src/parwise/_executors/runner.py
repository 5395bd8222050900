"""Where tasks are computed.

Each runner has one function, ``run(job)``: it takes every task from
``job.queue`` and gives what became of it to ``job.accept``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from .._core.call import Call
from .._core.kernel import is_nested
from .._core.settings import is_dask_client, is_pool
from .._workers.default_pool import put_back, take_pool
from . import processes, serial
from .job import Job
from .processes import _workers
from .serial import _Alone

if TYPE_CHECKING:
    from .futures import ExecutorRunner


def is_serial(call: Call) -> bool:
    """Whether a call is the plain loop, by its options or its size."""
    return call.serial_reason(is_nested()) is not None


def runner_of(call: Call) -> Callable[[Job], None]:
    """The runner for a call, by its executor and size."""
    executor = call.settings.executor
    if is_serial(call):
        return serial.run
    if is_pool(executor):
        run: Callable[[Job], None] = executor._run
        return run
    if not isinstance(executor, str):
        return run_elsewhere
    if executor == "threads":
        from . import threads

        return threads.run
    return processes.run


def run_elsewhere(job: Job) -> None:
    """Compute all tasks in the executor that the user gave."""
    from . import threads

    executor = job.call.settings.executor
    if isinstance(executor, ThreadPoolExecutor):
        threads.run_in(job, executor.submit, executor._max_workers)
        return
    with dispatch(job) as flight:
        while not flight.finished:
            flight.step()


@contextlib.contextmanager
def dispatch(job: Job) -> Iterator[ExecutorRunner]:
    """Tasks of a call on their way to and from its executor, step by step."""
    from .futures import RemoteRunner
    from .threads import ThreadRunner

    executor = job.call.settings.executor
    with contextlib.ExitStack() as stack:
        flight: ExecutorRunner
        if executor == "threads":
            workers = job.workers
            own = ThreadPoolExecutor(workers, thread_name_prefix="parwise")
            to_threads = flight = ThreadRunner(job, own, workers)
            stack.callback(lambda: own.shutdown(wait=not to_threads.within))
        elif isinstance(executor, ThreadPoolExecutor):
            flight = ThreadRunner(job, executor, executor._max_workers)
        elif is_dask_client(executor):
            # The same element twice must be two computations: pure=False.
            submitter = stack.enter_context(executor.get_executor(pure=False))
            flight = RemoteRunner(job, submitter, sum(executor.nthreads().values()))
        else:
            if is_pool(executor):
                executor._check_wait()
            workers = getattr(executor, "_max_workers", job.workers)
            flight = RemoteRunner(job, executor, workers)
        stack.callback(flight.cancel)
        yield flight


class Runner(Protocol):
    """What computes the tasks of a job.

    Attributes
    ----------
    workers : int
        How many compute at a time.
    seconds : float
        How long tasks of many items are.
    """

    workers: int
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether nothing is left that could change the result."""

    def step(self) -> None:
        """Compute something, or wait for something."""

    def poll(self) -> None:
        """See to what others compute, and wait for nothing."""


@contextlib.contextmanager
def open_runner(job: Job) -> Iterator[Runner]:
    settings = job.call.settings
    if is_serial(job.call):
        job.open()
        yield _Alone(job)
    elif is_pool(settings.executor) and settings.needs_killable_workers:
        with settings.executor._spare() as spare, _workers(job, spare) as source:
            yield source
    elif settings.executor != "processes":
        with dispatch(job) as flight:
            yield flight
    else:
        pool = take_pool()
        try:
            with _workers(job, pool) as source:
                yield source
        finally:
            put_back(pool)
