"""Worker processes on this machine; the caller computes until they are up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from .._system.interpreter import Uninterrupted
from .._workers.default_pool import default_pool
from .._workers.worker_pool import WorkerPool
from . import inline, serial
from .background import Company
from .dispatcher import Crew
from .inline import Caller, Trial, _least
from .job import Job
from .serial import _Alone
from .task_queue import TASK_SECONDS

# How long an isolated call waits for another thread's.
TURN_SECONDS = 0.5
# Workers that are slower than the caller for this long are given up.
RACE_SECONDS = 0.030
RACE_ELEMENTS = 50
COPYING_SHARE = 0.3


def run(job: Job, pool: WorkerPool | None = None) -> None:
    """Compute all tasks, those of a small call here and others in workers."""
    if job.call.settings.isolate:
        _run_isolated(job, pool or default_pool())
        return
    with Company(job, pool) as company:
        if Trial.suits(job.call):
            trial = Trial(job.call, job.kernel)
            alone = company.expect(company.patience(), trial.claim)
            trial.run(alone, inline.TRIAL_SECONDS, inline.EARLY_SECONDS, inline.enough_seconds(company.warm))
            if trial.end(job):
                if job.watch is not None:
                    job.explain(f"all of it took {trial.seconds * 1e3:.2g} ms; {_least(company)}")
                return
            joined = company.join(trial.claim)
            trial.hand_over(job)
        else:
            joined = company.join(lambda: 0)
        if joined:
            _run_beside(job, company)
        else:
            company.leave()
            job.explain("another thread's call has the workers")
            serial.go_on(job)


def _run_isolated(job: Job, pool: WorkerPool) -> None:
    """Compute in workers only."""
    job.open()
    held = False
    try:
        with Uninterrupted():
            held = pool.lock.acquire(timeout=TURN_SECONDS)
        if held:
            _drive(job, Crew(job, pool))
        else:
            _run_in_other_workers(job)
    finally:
        if held:
            pool.lock.release()


def _run_in_other_workers(job: Job) -> None:
    """Compute in workers of this call's own, where another thread's call keeps the usual ones.

    That one may be waiting for this one: its function may have started the thread.
    """
    pool = WorkerPool()
    try:
        _drive(job, Crew(job, pool))
    finally:
        pool.stop()


def _drive(job: Job, crew: Crew) -> None:
    """Feed and collect until all is done."""
    with crew:
        crew.start()
        while not crew.finished:
            crew.step(None)
            job.repeat()


def _run_beside(job: Job, company: Company) -> None:
    """Compute here first; go over to workers when that is worth it."""
    caller = Caller(job, company)
    while caller.step():
        pass
    crew = caller.leave()
    job.repeat()
    if not crew.started:
        return
    crew.supply()
    race = _Race(crew, company.pace, job.call.carriage())
    while not crew.finished:
        crew.step(None)
        job.repeat()
        if race.lost():
            _take_back(job, crew)
    if not crew.computed:
        job.explain("all was done before the first worker was up")


def _take_back(job: Job, crew: Crew) -> None:
    """Compute here what workers are too slow for: copying can cost more than the function."""
    job.explain("it went back to the caller: copying the arguments took workers longer than computing took the caller")
    crew.rest()
    while not crew.idle:
        crew.step(None)
    serial.go_on(job)
    crew.step(0)


class _Race:
    """Whether workers are slower than the caller was by itself.

    Parameters
    ----------
    crew : Crew
    pace : float
        Seconds that an element took here, with all copying.
    carriage : float
        Seconds that handing one over is known to take.
    """

    def __init__(self, crew: Crew, pace: float, carriage: float) -> None:
        self._crew = crew
        self._pace = pace
        self._carriage = carriage
        self._begun: tuple[float, int, float] | None = None

    def lost(self) -> bool:
        """Whether it is clear by now."""
        now, computed, feeding = time.perf_counter(), self._crew.computed, self._crew.feeding
        if self._begun is None:
            # From the first results on: until then workers were getting ready.
            self._begun = (now, computed, feeding) if computed else None
            return False
        elapsed, elements = now - self._begun[0], computed - self._begun[1]
        # A few long elements say nothing: they may be uneven. And where copying
        # is not what holds workers up, other programs are, for a while.
        enough = elapsed > max(RACE_SECONDS, RACE_ELEMENTS * self._pace)
        copying = self._carriage > self._pace or feeding - self._begun[2] > COPYING_SHARE * elapsed
        return enough and copying and elements * self._pace < 0.9 * elapsed


@contextlib.contextmanager
def _workers(job: Job, pool: WorkerPool) -> Iterator[_Led | _Beside | _Alone]:
    """Processes of this machine; the caller computes until they are up."""
    if job.call.settings.isolate:
        job.open()
        with pool.lock, Crew(job, pool) as crew:
            crew.start()
            yield _Led(job, crew)
    else:
        with Company(job, pool) as company:
            yield _Beside(job, company) if company.join(lambda: 0) else _Alone(job)


class _Led:
    """Workers that the thread that asks feeds and hears."""

    seconds = TASK_SECONDS

    def __init__(self, job: Job, crew: Crew) -> None:
        self.workers = job.workers
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
        self.workers = job.workers
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
