"""Worker processes on this machine; the caller computes until they are up."""

from __future__ import annotations

import time

from .._company import COLD_SECONDS, PATIENCE, WARM_SECONDS, Company
from .._crew import Crew
from .._interrupt import Uninterrupted
from .._job import Job
from .._pool import WorkerPool
from .._shared_pool import default_pool
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
            alone = company.expect(company.patience(), trial.claim)
            trial.run(alone, TRIAL_SECONDS, EARLY_SECONDS, WORTH * WARM_SECONDS if company.warm else float("inf"))
            if job.end_with(trial):
                if job.watch is not None:
                    job.explain(f"all of it took {trial.seconds * 1e3:.2g} ms; {_least(company)}")
                return
            joined = company.join(trial.claim)
            job.go_on_from(trial)
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


def _least(company: Company) -> str:
    """What workers would have to be worth."""
    if company.warm:
        return f"workers pay from {WARM_SECONDS * 1e3:g} ms of work on"
    return f"starting workers pays from {COLD_SECONDS * 1e3:g} ms of work on"


class Caller:
    """The calling thread, as it computes tasks until workers take over or none is left.

    Parameters
    ----------
    job : Job
    company : Company
        Which has joined.
    """

    def __init__(self, job: Job, company: Company) -> None:
        self._job = job
        self._company = company
        self._seconds = EARLY_SECONDS if company.warm else TRIAL_SECONDS
        # The most work that was left and could have been shared, and that was left at all.
        self._missed = self._most = 0.0
        pace = job.plan.pace
        self._begun = pace is not None
        if pace is not None:
            company.pace, self._most = pace, job.plan.seconds_left
            self._look_up(self._worth(job.plan.seconds_left))

    def step(self) -> bool:
        """Compute one task, if it is the caller's turn; otherwise return False."""
        job, company = self._job, self._company
        plan, room = job.plan, company.room
        if company.crew.serving or company.error is not None or (task := plan.take(self._seconds)) is None:
            return False
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
        self._most = max(self._most, left)
        worth = self._worth(left)
        if self._begun:
            company.attend(worth and room.known_free())
            self._missed = max(self._missed, left if left > WARM_SECONDS else 0.0)
            # Where BLAS keeps the CPUs, look again ever more seldom.
            self._seconds = min(2 * self._seconds, PATIENCE / 2) if room.watch.busy else OWN_SECONDS
        else:
            self._look_up(worth)
        self._begun = True
        return True

    def leave(self) -> Crew:
        """Leave what is left to the workers, if they have been started."""
        pool, crew = self._company.pool, self._company.crew
        if self._job.watch is not None and not crew.started:
            self._explain()
        pool.missed = 0.0 if crew.started else pool.missed + self._missed
        self._company.leave()
        crew.beside = False
        return crew

    def _explain(self) -> None:
        """Tell why no worker was started."""
        job, company, most = self._job, self._company, self._most
        if company.room.watch.busy:
            job.explain("BLAS or OpenMP uses all CPUs already, in each call of the function")
        elif most <= WARM_SECONDS if company.warm else most <= COLD_SECONDS:
            job.explain(f"{most * 1e3:.2g} ms of work were left after the first elements; {_least(company)}")

    def _worth(self, left: float) -> bool:
        """Whether `left` seconds of work are enough to bring in workers.

        Calls of middling size are each too short for a cold start. What they could
        have saved is added up, and pays for it in the end.
        """
        company = self._company
        return left > WARM_SECONDS if company.found_warm else left + company.pool.missed > COLD_SECONDS

    def _look_up(self, worth: bool) -> None:
        """After the first element: see to workers that are there, or whether there is room for some."""
        crew = self._company.crew
        if crew.started:
            crew.wake()  # there is something now to compare a worker's results with
        else:
            self._company.room.watch.suspicious = worth
