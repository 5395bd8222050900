"""Results one after another, computed ahead of who asks for them, but not far."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator
from typing import Any, Protocol

from ._audit import audit
from ._call import Call
from ._company import Company
from ._crew import Crew
from ._items import LOOK_AHEAD, Listing
from ._job import Job
from ._options import is_pool
from ._plan import TASK_SECONDS
from ._pool import WorkerPool
from ._runners import is_serial
from ._runners.futures import dispatch
from ._runners.processes import Caller
from ._shared_pool import put_back, take_pool
from ._watch import Watch, is_watched

# Tasks that each worker is ahead of who asks: one at hand, one that waits, and
# as many done, in case their lengths are uneven.
AHEAD = 4
# While there are results at hand, workers are seen to no more often than this.
PAUSE_SECONDS = 0.001


class Source(Protocol):
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

    def attend(self) -> None:
        """See to what others compute, and wait for nothing."""


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


@contextlib.contextmanager
def _source_of(job: Job) -> Iterator[Source]:
    settings = job.call.settings
    if is_serial(job.call):
        job.open()
        yield _Alone(job)
    elif is_pool(settings.executor) and settings.needs_own_workers:
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


@contextlib.contextmanager
def _workers(job: Job, pool: WorkerPool) -> Iterator[Source]:
    """Processes of this machine; the caller computes until they are up."""
    if job.call.settings.isolate:
        job.open()
        with pool.lock, Crew(job, pool) as crew:
            crew.start()
            yield _Led(job, crew)
    else:
        with Company(job, pool) as company:
            yield _Beside(job, company) if company.join(lambda: 0) else _Alone(job)


class _Alone:
    """The thread that asks computes what it asks for."""

    workers = 1
    seconds = PAUSE_SECONDS

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def finished(self) -> bool:
        return self._job.plan.empty

    def step(self) -> None:
        task = self._job.plan.take(self.seconds)
        if task is not None:
            self._job.compute_and_accept(task)

    def attend(self) -> None:
        """Nobody else computes."""


class _Led:
    """Workers that the thread that asks feeds and hears."""

    seconds = TASK_SECONDS

    def __init__(self, job: Job, crew: Crew) -> None:
        self.workers = job.call.settings.workers
        self._crew = crew

    @property
    def finished(self) -> bool:
        return self._crew.finished

    def step(self) -> None:
        self._crew.supply()
        self._crew.step(None)

    def attend(self) -> None:
        self._crew.supply()
        self._crew.step(0)


class _Beside:
    """The thread that asks computes until workers are up, and leads them from then on."""

    seconds = TASK_SECONDS

    def __init__(self, job: Job, company: Company) -> None:
        self.workers = job.call.settings.workers
        self._company = company
        self._caller: Caller | None = Caller(job, company)
        self._led = _Led(job, company.crew)

    @property
    def finished(self) -> bool:
        return self._caller is None and (not self._company.crew.started or self._led.finished)

    def step(self) -> None:
        if self._caller is None:
            self._led.step()
        elif not self._caller.step():
            self._caller.leave()
            self._caller = None

    def attend(self) -> None:
        if self._caller is not None:
            self._company.attend(False)
        elif self._company.crew.started:
            self._led.attend()
