"""Worker processes on this machine; the caller computes until they are up."""

from __future__ import annotations

import time

from .._company import COLD_SECONDS, PATIENCE, WARM_SECONDS, Company, Room
from .._crew import Crew
from .._interrupt import Uninterrupted
from .._job import Job
from .._pool import WorkerPool, default_pool
from .._trial import Trial
from . import serial

# The caller's own tasks: the second one is long enough to trust its pace. With
# workers up each 2 ms of them leave a CPU idle, so that less must do.
TRIAL_SECONDS = 0.002
EARLY_SECONDS = 0.0004
OWN_SECONDS = 0.004
# So much more than pays must seem to be left, after that little.
WORTH = 2
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
            company.expect(company.patience(), trial.claim)
            trial.run(TRIAL_SECONDS, EARLY_SECONDS, WORTH * WARM_SECONDS if company.warm else float("inf"))
            if job.end_with(trial):
                return
            joined = company.join(trial.claim)
            job.go_on_from(trial)
        else:
            joined = company.join(lambda: 0)
        if joined:
            _run_beside(job, company)
        else:  # another thread's call has the workers
            company.leave()
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
    _compute_here(job, company)
    company.leave()
    crew = company.crew
    if not crew.started:
        return
    crew.take_all()
    race = _Race(crew, company.pace, job.call.carriage())
    while not crew.finished:
        crew.step(None)
        job.repeat()
        if race.lost():
            _take_back(job, crew)


def _take_back(job: Job, crew: Crew) -> None:
    """Compute here what workers are too slow for: copying can cost more than the function."""
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


def _worth(crew: Crew, pool: WorkerPool, left: float) -> bool:
    """Whether `left` seconds of work are enough to bring in workers.

    Calls of middling size are each too short for a cold start. What they could
    have saved is added up, and pays for it in the end.
    """
    return left > WARM_SECONDS if crew.warm else left + pool.missed > COLD_SECONDS


def _compute_here(job: Job, company: Company) -> None:
    """Compute tasks in this thread until workers take over or none is left."""
    plan, crew, room, pool = job.plan, company.crew, company.room, company.pool
    seconds = EARLY_SECONDS if company.warm else TRIAL_SECONDS
    missed = 0.0
    begun = plan.pace is not None
    if plan.pace is not None:
        company.pace = plan.pace
        _look_up(crew, room, _worth(crew, pool, plan.seconds_left))
    while not (crew.serving or company.error is not None):
        if (task := plan.take(seconds)) is None:
            break
        company.expect(None if plan.empty else company.at_least())
        start = time.perf_counter()
        if room.watch.suspicious:
            with room.watch:
                start = time.perf_counter()
                job.compute_and_accept(task)
        else:
            job.compute_and_accept(task)
        job.repeat()
        company.pace = (time.perf_counter() - start) / len(task)
        left = plan.seconds_left
        worth = _worth(crew, pool, left)
        if begun:
            company.attend(worth and room.known_free())
            missed = max(missed, left if left > WARM_SECONDS else 0.0)
            # Where BLAS keeps the CPUs, look again ever more seldom.
            seconds = min(2 * seconds, PATIENCE / 2) if room.watch.busy else OWN_SECONDS
        else:
            _look_up(crew, room, worth)
        begun = True
    pool.missed = 0.0 if crew.started else pool.missed + missed


def _look_up(crew: Crew, room: Room, worth: bool) -> None:
    """After the first element: see to workers that are there, or whether there is room for some."""
    if crew.started:
        crew.wake()  # there is something now to compare a worker's results with
    else:
        room.watch.suspicious = worth
