"""Results one after another, computed ahead of who asks for them, but not far."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from typing import Any

from .._core.call import Call
from .._core.input_items import LOOK_AHEAD
from .._core.output import Listing
from .._executors.job import Job
from .._executors.runner import Source, _source_of, runner_of
from .._executors.serial import PAUSE_SECONDS, _Alone
from .._report.observer import Watch, is_watched
from .._verify.audit import audit


def compute(call: Call) -> Any:
    """The result of a call that has been checked."""
    if not is_watched(call):
        return _compute(call, None)
    with Watch(call) as watch:
        result = _compute(call, watch)
        watch.finish()
        return result


def _compute(call: Call, watch: Watch | None) -> Any:
    if call.settings.verify:
        from .._verify.audit import run_with_audit

        return run_with_audit(call, watch)
    job = Job(call, watch=watch)
    runner_of(call)(job)
    if job.disputed is not None:
        from .._verify.audit import audit

        return audit(job)
    return job.finish()


# Tasks that each worker is ahead of who asks: one at hand, one that waits, and
# as many done, in case their lengths are uneven.
AHEAD = 4


def stream(call: Call) -> Generator[Any, None, None]:
    """Yield the results of a call over items, in order.

    Nothing is computed, and no item taken, before the first one is asked for.
    """
    with Watch(call) if is_watched(call) else contextlib.nullcontext() as watch:
        job = Job(call, watch=watch)
        with _source_of(job) as source:
            try:
                yield from _results(job, source)
            except GeneratorExit:
                # Nobody wants the rest; what workers are at they may bring to its end.
                return
        if job.disputed is not None:
            audit(job)
        if watch is not None:
            watch.finish()


def _results(job: Job, source: Source) -> Generator[Any, None, None]:
    feed, listing, plan = job.call.feed, job.assembler, job.plan
    assert feed is not None
    assert isinstance(listing, Listing)
    index, clock = 0, time.perf_counter
    # A forked child has the workers' channels too, and would take the parent's results.
    owner = None if isinstance(source, _Alone) else os.getpid()
    while True:
        _check_owner(owner)
        # Whichever thread asks: the plain loop would take its items there.
        feed.belong()
        size = max(1, int(source.seconds / plan.pace)) if plan.pace else 1
        feed.most = index + max(LOOK_AHEAD, AHEAD * source.workers * size)
        source.attend()
        while index not in listing:
            if index >= job.limit or source.finished:
                job.finish()
                return
            source.step()
        job.repeat()
        seen = clock()
        for result in listing.take(index):
            yield result
            index += 1
            if clock() - seen > PAUSE_SECONDS:
                _check_owner(owner)
                source.attend()
                job.repeat()
                seen = clock()


def _check_owner(pid: int | None) -> None:
    if pid not in (None, os.getpid()):
        raise RuntimeError(
            "these results are computed for the process that this one was forked from; call parallel_imap anew here"
        )
