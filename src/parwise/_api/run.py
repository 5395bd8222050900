"""Run a checked call: to its result, or one result at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from .._clock import perf_counter
from .._core.call import Call
from .._core.inputs.items import LOOK_AHEAD
from .._core.outputs.output import ListOutput
from .._core.outputs.unordered import UnorderedOutput
from .._executors.choice import is_serial, open_runner, run
from .._executors.job.job import Job
from .._executors.runner import Runner
from .._executors.serial import SerialRunner
from .._report.null_observer import UNOBSERVED, NullObserver
from .._report.observer import Observer, is_observed
from .._workers.shared_globals import set_up_here
from .out_files import allocate

if TYPE_CHECKING:
    from .._executors.processes.dispatcher import Dispatcher
    from .._verify.seam import SeamCheck


def compute(call: Call) -> Any:
    """Return the result of a checked call."""
    if call.out is not None:
        allocate(call.out)
    _set_up(call)
    if not is_observed(call):
        return _compute(call, UNOBSERVED)
    with Observer(call) as observer:
        result = _compute(call, observer)
        observer.finish()
        return result


def _compute(call: Call, observer: NullObserver) -> Any:
    if call.settings.resume is not None:
        from .resume.run import run_resumed

        return run_resumed(call, observer)
    if call.settings.verify:
        from .._verify.audit import run_with_audit

        return run_with_audit(call, observer)
    job = Job(call, observer=observer)
    borders: list[SeamCheck] = []
    if call.tasks > 1 and call.vectorized and call.settings.verify is None:
        job.at_end = partial(_try_border, job, perf_counter(), borders)
    try:
        run(job)
        if job.comparison.disputed is not None:
            from .._verify.audit import audit

            return audit(job)
        result = job.finish()
        for border in borders:
            border.warn()
        return result
    except BaseException:
        job.abandon()
        raise
    finally:
        if observer.active and hasattr(job, "output"):
            from .._executors.job.files import file_use

            observer.used_files(file_use(call, job.output, job.files))


def _try_border(job: Job, begun: float, borders: list[SeamCheck], dispatcher: Dispatcher) -> None:
    """Try a border between two blocks, in workers that have the function, in a tenth of the time that the call took."""
    from .._verify.seam import SeamCheck

    with contextlib.suppress(Exception):  # all results are there: a dead worker or no memory costs the check alone
        borders.append(SeamCheck(job, dispatcher, perf_counter() - begun))


def _set_up(call: Call) -> None:
    setup = call.settings.setup
    if setup is not None and call.tasks and (is_serial(call) or not call.settings.isolate):
        set_up_here(setup)


# Tasks by which each worker is ahead of the results taken: one being computed, one that waits, and two finished ones,
# in case their lengths are uneven.
AHEAD = 4
# While results are at hand, runners are polled no more often than this.
PAUSE_SECONDS = 0.001


class _LeftError(Exception):
    """Who takes the results has closed them; a `GeneratorExit` of the function is one of its exceptions."""


def stream(call: Call, ordered: bool = True) -> Generator[Any, None, None]:
    """Yield the results of a call over items, in order, or as they come if not `ordered`.

    Nothing is computed, and no item read, before the first result is taken.
    """
    _set_up(call)
    with Observer(call) if is_observed(call) else UNOBSERVED as observer:
        job = Job(call, observer=observer)
        job.stepwise, job.ordered = True, ordered
        with open_runner(job) as runner:
            try:
                yield from _results(job, runner)
            except _LeftError:
                # No other result is wanted; workers may finish the tasks that they hold.
                return
        if job.comparison.disputed is not None:
            from .._verify.audit import audit

            audit(job)
        observer.finish()


def _results(job: Job, runner: Runner) -> Generator[Any, None, None]:
    feed, output, queue = job.call.feed, cast("ListOutput | UnorderedOutput", job.output), job.queue
    assert feed is not None
    clock = perf_counter
    # A forked child has the channels of the workers too, and would take the parent's results.
    owner = None if isinstance(runner, SerialRunner) else os.getpid()
    while True:
        _check_owner(owner)
        # The thread that takes the results, since the plain loop would read its items there.
        feed.adopt_thread()
        size = max(1, int(runner.task_seconds / queue.pace)) if queue.pace else 1
        queue.limit = output.taken + max(LOOK_AHEAD, AHEAD * runner.workers * size)
        runner.poll()
        while not output.is_ready(job.limit):
            if output.ends_at(job.limit) or runner.finished:
                job.finish()
                runner.end()
                return
            runner.step()
        job.repeat()
        seen = clock()
        while output.is_ready(job.limit):
            try:
                yield output.pop()
            except GeneratorExit:
                raise _LeftError from None
            if clock() - seen > PAUSE_SECONDS:
                _check_owner(owner)
                runner.poll()
                job.repeat()
                seen = clock()


def _check_owner(pid: int | None) -> None:
    if pid not in (None, os.getpid()):
        raise RuntimeError(
            "these results are computed for the process that this one was forked from; call "
            "parallel_imap again in this process"
        )
