"""Worker processes on this machine; the caller computes until they are up."""

from __future__ import annotations

import _thread
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

from .._blas import ThreadWatch, read_threads, workers_beside
from .._crew import Crew
from .._interrupt import Uninterrupted
from .._job import Job
from .._pool import WorkerPool, default_pool
from . import serial

# Bringing up the first workers takes 160 ms, beside the caller; handing a call
# to workers that are up costs about 0.5 ms of the caller's time.
COLD_SECONDS = 0.100
WARM_SECONDS = 0.002
# One task of the caller that takes longer than this gets company at once.
PATIENCE = 0.010
# The caller's own tasks: the second one is long enough to trust its pace.
TRIAL_SECONDS = 0.002
OWN_SECONDS = 0.004
SWITCH_SECONDS = 0.0001
# How long an isolated call waits for another thread's.
TURN_SECONDS = 0.5
# Workers that are slower than the caller for this long are given up.
RACE_SECONDS = 0.030
RACE_ELEMENTS = 50
COPYING_SHARE = 0.3


def run(job: Job, pool: WorkerPool | None = None) -> None:
    """Compute all tasks, those of a small call here and others in workers."""
    pool = pool or default_pool()
    isolate = job.call.settings.isolate
    held = False
    try:
        with Uninterrupted():
            held = pool.lock.acquire(timeout=TURN_SECONDS if isolate else 0)
        if not held and isolate:
            _run_in_other_workers(job)
        elif not held:  # another thread's call has the workers
            serial.run(job)
        elif isolate:
            _drive(job, Crew(job, pool))
        else:
            _run_beside(job, pool)
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


def _run_beside(job: Job, pool: WorkerPool) -> None:
    """Compute here first; go over to workers when that is worth it."""
    with Crew(job, pool) as crew:
        company = _Company(crew, _Room(job))
        try:
            _compute_here(job, crew, company, pool)
        finally:
            company.leave()
        if crew.started:
            race = _Race(crew, company.pace)
            while not crew.finished:
                if crew.prove_here():
                    continue
                crew.step(None)
                job.repeat()
                if race.lost():
                    _take_back(job, crew)


def _take_back(job: Job, crew: Crew) -> None:
    """Compute here what workers are too slow for: copying can cost more than the function."""
    crew.rest()
    while not crew.idle:
        crew.step(None)
    serial.run(job)
    crew.step(0)


class _Race:
    """Whether workers are slower than the caller was by itself.

    Parameters
    ----------
    crew : Crew
    pace : float
        Seconds that an element took here, with all copying.
    """

    def __init__(self, crew: Crew, pace: float) -> None:
        self._crew = crew
        self._pace = pace
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
        copying = feeding - self._begun[2] > COPYING_SHARE * elapsed
        return enough and copying and elements * self._pace < 0.9 * elapsed


def _worth(crew: Crew, pool: WorkerPool, left: float) -> bool:
    """Whether `left` seconds of work are enough to bring in workers.

    Calls of middling size are each too short for a cold start. What they could
    have saved is added up, and pays for it in the end.
    """
    return left > WARM_SECONDS if crew.warm else left + pool.missed > COLD_SECONDS


def _compute_here(job: Job, crew: Crew, company: _Company, pool: WorkerPool) -> None:
    """Compute tasks in this thread until workers take over or none is left."""
    plan, room = job.plan, company.room
    seconds = TRIAL_SECONDS
    missed = 0.0
    while (task := plan.take(seconds)) is not None:
        company.expect(None if plan.empty else PATIENCE)
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
        if task != job.first_task:
            company.attend(worth and room.known_free())
            missed = max(missed, left if left > WARM_SECONDS else 0.0)
            # Where BLAS keeps the CPUs, look again ever more seldom.
            seconds = min(2 * seconds, PATIENCE / 2) if room.watch.busy else OWN_SECONDS
        elif crew.started:
            crew.wake()  # there is something now to compare a worker's results with
        else:
            room.watch.suspicious = worth
        if crew.serving or company.error is not None:
            return
    pool.missed = 0.0 if crew.started else pool.missed + missed


class _Room:
    """Whether there are CPUs for workers, or BLAS has them all at work already.

    Workers keep the caller's number of BLAS threads, which its bits depend on.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        # Native ids of this call's own threads.
        self.threads: set[int] = set()
        self.watch = ThreadWatch(self.threads)

    @cached_property
    def _any(self) -> bool:
        """Whether this process may use more than one CPU at all."""
        return self._job.call.settings.workers > 1

    @cached_property
    def _doubtful(self) -> bool:
        """Whether BLAS would leave no CPU to a second worker, if it is at work."""
        wanted = self._job.call.settings.blas_threads
        return not isinstance(wanted, int) and workers_beside(read_threads(), 2) < 2

    def known_free(self) -> bool:
        """Whether the last task has shown that there is room; if not, the next will."""
        if not (self._any and self._doubtful):
            return self._any
        self.watch.suspicious = self.watch.busy is not False
        return self.watch.busy is False

    def seems_free(self) -> bool:
        """Whether there is room at this moment, in the midst of a task."""
        # Looking for BLAS takes 20 ms beside a function in pure Python, so that comes last.
        return self._any and not (self.watch.running() and self._doubtful)


class _Company:
    """Attends to the workers while the caller computes.

    Between two tasks the caller does so itself. If one of its tasks lasts too
    long, a second thread takes over until the caller leaves: a raw thread, since
    a small call must not wait for it (starting and joining a `threading.Thread`
    takes 0.15 ms), and asleep until then.
    """

    def __init__(self, crew: Crew, room: _Room) -> None:
        self._crew = crew
        self.room = room
        self._deadline: float | None = None
        self._leaving = _thread.allocate_lock()
        self._leaving.acquire()
        self._gone = _thread.allocate_lock()
        self._gone.acquire()
        # Held by whichever thread is at the workers.
        self._turn = _thread.allocate_lock()
        self._state: Literal["alone", "waiting", "active", "left"] = "alone"
        self.error: BaseException | None = None
        # Seconds per element of the caller's last task.
        self.pace = 0.0

    def expect(self, seconds: float | None) -> None:
        """Take over if the caller's next task takes longer than `seconds`."""
        self._deadline = None if seconds is None else time.monotonic() + seconds
        if self._state == "alone" and seconds is not None:
            self._state = "waiting"
            # Not where the interpreter ends, or has as many threads as it may have.
            with contextlib.suppress(RuntimeError):
                _thread.start_new_thread(self._run, ())

    def attend(self, wanted: bool) -> None:
        """See to the workers from the caller's thread, and start them if `wanted`."""
        self._deadline = None
        with self._turn:
            if self._state == "active":
                return
            if self._crew.started:
                self._crew.step(0)
            elif wanted:
                self._crew.start()

    def leave(self) -> None:
        """Stop; when this returns the caller has the workers to itself."""
        # An interrupt in here would leave two threads at the workers.
        with Uninterrupted():
            with self._turn:
                active, self._state = self._state == "active", "left"
            self._leaving.release()
            if active:
                self._crew.wake()
                self._gone.acquire()
        if active and self.error is not None:
            raise self.error

    def _run(self) -> None:
        self.room.threads.add(threading.get_native_id())
        while not self._leaving.acquire(True, self._patience()):
            with _short_turns(), self._turn:
                if self._state == "left":
                    return
                if self._deadline is None or time.monotonic() < self._deadline:
                    continue
                if not self.room.seems_free():
                    self._deadline += PATIENCE
                    continue
                self._state = "active"
            with _short_turns():
                self._drive()
            return

    def _patience(self) -> float:
        deadline = self._deadline
        return PATIENCE if deadline is None else max(0.0, deadline - time.monotonic())

    def _drive(self) -> None:
        """Be at the workers until the caller leaves."""
        try:
            if not self._crew.started:
                self._crew.start()
            while self._state == "active":
                self._crew.step(None)
        except BaseException as error:
            self.error = error
        finally:
            self._gone.release()


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Let this thread have the GIL soon, beside a function in pure Python.

    Every system call lets go of it, and such a function gives it back only
    after the switch interval: of the usual 5 ms, looking for BLAS threads took
    0.4 s and starting workers half a second.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
