"""The runner that a call gets, by its executor and size."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from .._core.call import Call
from .._core.nesting import is_nested
from .._core.options.executors import is_dask_client, is_dask_executor, is_pool, is_thread_pool
from .._workers.pool.default_pool import put_back, take_pool
from .job.job import Job
from .processes import runner as processes
from .runner import Runner, drive
from .serial import ITEM_SECONDS, SerialRunner, run_serially


def is_serial(call: Call) -> bool:
    """Tell whether a call is the plain loop, by its options or its size."""
    nested, executor = is_nested(), call.settings.executor
    if nested and is_pool(executor):
        executor._check_nested()
    return call.serial_reason(nested) is not None


def run(job: Job) -> None:
    """Compute all tasks of a job, in the executor of its call."""
    executor = job.call.settings.executor
    if is_serial(job.call):
        run_serially(job)
    elif executor == "processes":
        processes.run(job)
    elif is_pool(executor):
        executor._run(job)
    elif executor == "threads":
        from .threads.inline import run as run_in_threads  # imported by the calls that need it

        run_in_threads(job)
    else:
        run_in_executor(job)


def run_in_executor(job: Job) -> None:
    """Compute all tasks of a job in an executor of `concurrent.futures` or Dask."""
    with _open_executor(job, whole=True) as runner:
        drive(runner)
        runner.end()


@contextlib.contextmanager
def open_runner(job: Job) -> Iterator[Runner]:
    """The runner of a job whose results are taken one after another; it may be left at any time."""
    settings = job.call.settings
    if is_serial(job.call):
        job.open()
        yield SerialRunner(job, ITEM_SECONDS)
    elif is_pool(settings.executor) and settings.needs_own_workers:
        with settings.executor._spare() as spare, processes.open_runner(job, spare) as runner:
            yield runner
    elif settings.executor != "processes":
        with _open_executor(job, whole=False) as runner:
            yield runner
    else:
        pool = take_pool()
        try:
            with processes.open_runner(job, pool) as runner:
                yield runner
        finally:
            put_back(pool)


@contextlib.contextmanager
def _open_executor(job: Job, whole: bool) -> Iterator[Runner]:
    """The runner of a job in threads or in a given executor; `whole` if the call returns all results at once."""
    # Imported by the calls that need them: they take 0.3 ms.
    from .remote.runner import RemoteRunner
    from .threads.executor import Threads
    from .threads.runner import SharedThreadRunner, ThreadRunner, ThreadState

    executor = job.call.settings.executor
    owner = os.getpid()

    def end(call: Callable[[], object]) -> None:
        if os.getpid() == owner:  # in a forked child, threads that it has not may hold the locks for ever
            call()

    with contextlib.ExitStack() as stack:
        runner: SharedThreadRunner | ThreadRunner | RemoteRunner
        if executor == "threads":
            own = Threads(job.workers)
            in_threads = runner = ThreadRunner(job, own, job.workers)
            stack.callback(end, lambda: own.shutdown(wait=not in_threads.within))
        elif is_thread_pool(executor) and whole:
            job.open()
            runner = SharedThreadRunner(job, executor, executor._max_workers, ThreadState())
        elif is_thread_pool(executor):
            runner = ThreadRunner(job, executor, executor._max_workers)
        elif is_dask_client(executor) or is_dask_executor(executor):
            from .remote.dask import DaskRunner, outside_pool

            stack.enter_context(outside_pool())
            runner = DaskRunner(job, executor)
        else:
            if is_pool(executor):
                executor._check_wait()
            runner = RemoteRunner(job, executor, getattr(executor, "_max_workers", None))
        stack.callback(end, runner.cancel)
        yield runner
