"""Threads of this process, for functions that let go of the GIL."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import Any

from .._blas import local_threads, with_local_threads
from .._floats import floats, read_floats
from .._job import Job
from .._watch import Watch
from . import serial


def run(job: Job) -> None:
    """Compute all tasks in new threads and the calling one."""
    others = job.call.settings.workers - 1
    if not others:  # one CPU
        job.open()
        serial.go_on(job)
        return
    with ThreadPoolExecutor(others, thread_name_prefix="parwise") as executor:
        run_in(job, executor.submit, others)


def run_in(job: Job, submit: Callable[..., Future[Any]], others: int) -> None:
    """Compute all tasks in this thread and `others` that `submit` gives.

    This thread works too, so that all gets done even if the executor is busy
    with something else, or is the one that this call runs in.
    """
    job.open()
    # A thread starts with default contexts; error handling, print options and
    # decimal precision are to be the caller's.
    control, counts = read_floats(), local_threads() or {}

    def draw() -> None:
        with floats(control), with_local_threads(counts):
            _draw(job, 1 + others)

    futures = [submit(contextvars.copy_context().run, draw) for _ in range(others)]
    try:
        _draw(job, 1 + others)
        if job.watch is not None:
            _await(job.watch, [future for future in futures if not future.cancel()])
    except BaseException:
        job.plan.cut(0)
        raise
    finally:
        begun = [future for future in futures if not future.cancel()]
        wait(begun)
    for future in begun:
        future.result()


def _await(watch: Watch, futures: list[Future[Any]]) -> None:
    """Wait for threads that are at their last tasks, and show when one has done it."""
    since = time.perf_counter()
    for _ in as_completed(futures):
        watch.show()
    watch.waited(since)


def _draw(job: Job, threads: int) -> None:
    """Compute tasks until none is left."""
    while (task := job.plan.take(workers=threads)) is not None:
        job.compute_and_accept(task)
        job.show()
