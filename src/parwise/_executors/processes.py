"""Worker processes on this machine; the caller computes until they are up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from .._system.interpreter import DeferredInterrupt
from .._workers.default_pool import default_pool
from .._workers.worker_pool import WorkerPool
from . import inline, serial
from .background import BackgroundDispatcher
from .dispatcher import Dispatcher
from .inline import InlineRun, InlineTasks, _least
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
    with BackgroundDispatcher(job, pool) as background:
        if InlineRun.suits(job.call):
            trial = InlineRun(job.call, job.kernel)
            alone = background.expect(background.help_after(), trial.claim)
            trial.run(alone, inline.TRIAL_SECONDS, inline.EARLY_SECONDS, inline.enough_seconds(background.warm))
            if trial.end(job):
                if job.observer is not None:
                    job.explain(f"all of it took {trial.seconds * 1e3:.2g} ms; {_least(background)}")
                return
            joined = background.join(trial.claim)
            trial.hand_over(job)
        else:
            joined = background.join(lambda: 0)
        if joined:
            _run_beside(job, background)
        else:
            background.leave()
            job.explain("another thread's call has the workers")
            serial.go_on(job)


def _run_isolated(job: Job, pool: WorkerPool) -> None:
    """Compute in workers only."""
    job.open()
    held = False
    try:
        with DeferredInterrupt():
            held = pool.lock.acquire(timeout=TURN_SECONDS)
        if held:
            _drive(job, Dispatcher(job, pool))
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
        _drive(job, Dispatcher(job, pool))
    finally:
        pool.stop()


def _drive(job: Job, dispatcher: Dispatcher) -> None:
    """Feed and collect until all is done."""
    with dispatcher:
        dispatcher.start()
        while not dispatcher.finished:
            dispatcher.step(None)
            job.repeat()


def _run_beside(job: Job, background: BackgroundDispatcher) -> None:
    """Compute here first; go over to workers when that is worth it."""
    caller = InlineTasks(job, background)
    while caller.step():
        pass
    dispatcher = caller.leave()
    job.repeat()
    if not dispatcher.started:
        return
    dispatcher.assign_tasks()
    race = SlowWorkers(dispatcher, background.pace, job.call.transfer_seconds())
    while not dispatcher.finished:
        dispatcher.step(None)
        job.repeat()
        if race.too_slow():
            _take_back(job, dispatcher)
    if not dispatcher.computed:
        job.explain("all was done before the first worker was up")


def _take_back(job: Job, dispatcher: Dispatcher) -> None:
    """Compute here what workers are too slow for: copying can cost more than the function."""
    job.explain("it went back to the caller: copying the arguments took workers longer than computing took the caller")
    dispatcher.stop_assigning()
    while not dispatcher.idle:
        dispatcher.step(None)
    serial.go_on(job)
    dispatcher.step(0)


class SlowWorkers:
    """Whether workers are slower than the caller was by itself.

    Parameters
    ----------
    dispatcher : Dispatcher
    pace : float
        Seconds that an element took here, with all copying.
    transfer_seconds : float
        Seconds that handing one over is known to take.
    """

    def __init__(self, dispatcher: Dispatcher, pace: float, transfer_seconds: float) -> None:
        self._dispatcher = dispatcher
        self._pace = pace
        self._transfer_seconds = transfer_seconds
        self._begun: tuple[float, int, float] | None = None

    def too_slow(self) -> bool:
        """Whether it is clear by now."""
        now, computed, feeding = time.perf_counter(), self._dispatcher.computed, self._dispatcher.feeding
        if self._begun is None:
            # From the first results on: until then workers were getting ready.
            self._begun = (now, computed, feeding) if computed else None
            return False
        elapsed, elements = now - self._begun[0], computed - self._begun[1]
        # A few long elements say nothing: they may be uneven. And where copying
        # is not what holds workers up, other programs are, for a while.
        enough = elapsed > max(RACE_SECONDS, RACE_ELEMENTS * self._pace)
        copying = self._transfer_seconds > self._pace or feeding - self._begun[2] > COPYING_SHARE * elapsed
        return enough and copying and elements * self._pace < 0.9 * elapsed


@contextlib.contextmanager
def _workers(job: Job, pool: WorkerPool) -> Iterator[_Led | _Beside | _Alone]:
    """Processes of this machine; the caller computes until they are up."""
    if job.call.settings.isolate:
        job.open()
        with pool.lock, Dispatcher(job, pool) as dispatcher:
            dispatcher.start()
            yield _Led(job, dispatcher)
    else:
        with BackgroundDispatcher(job, pool) as background:
            yield _Beside(job, background) if background.join(lambda: 0) else _Alone(job)


class _Led:
    """Workers that the thread that asks feeds and hears."""

    seconds = TASK_SECONDS

    def __init__(self, job: Job, dispatcher: Dispatcher) -> None:
        self.workers = job.workers
        self._dispatcher = dispatcher

    @property
    def finished(self) -> bool:
        return self._dispatcher.finished

    def step(self) -> None:
        self._dispatcher.assign_tasks()
        self._dispatcher.step(None)

    def poll(self) -> None:
        self._dispatcher.assign_tasks()
        self._dispatcher.step(0)


class _Beside:
    """The thread that asks computes until workers are up, and leads them from then on."""

    seconds = TASK_SECONDS

    def __init__(self, job: Job, background: BackgroundDispatcher) -> None:
        self.workers = job.workers
        self._background = background
        self._caller: InlineTasks | None = InlineTasks(job, background)
        self._led = _Led(job, background.dispatcher)

    @property
    def finished(self) -> bool:
        return self._caller is None and (not self._background.dispatcher.started or self._led.finished)

    def step(self) -> None:
        if self._caller is None:
            self._led.step()
        elif not self._caller.step():
            self._caller.leave()
            self._caller = None

    def poll(self) -> None:
        if self._caller is not None:
            self._background.poll(False)
        elif self._background.dispatcher.started:
            self._led.poll()
