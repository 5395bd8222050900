"""Worker processes on this machine; the caller computes until they are up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..._clock import perf_counter
from ..._core.effects.side_effects import SideEffects
from ..._core.indexing import Task
from ..._system.interpreter import DeferredInterrupt
from ..._workers.pool.default_pool import default_pool, new_pool
from ...errors import NoWorkersError
from ..job.job import Job
from ..job.task_length import TASK_SECONDS
from ..runner import Runner, drive
from ..serial import ITEM_SECONDS, SerialRunner
from .background import BackgroundDispatcher
from .inline import InlineTasks, is_middling, join_behind, run_inline, run_short
from .known_paces import PaceOfCall, known_paces

if TYPE_CHECKING:
    from ..._workers.pool.worker_pool import WorkerPool
    from .dispatcher import Dispatcher

# An isolated call waits so long for another thread's call to release the workers.
TURN_SECONDS = 0.5
# Workers that have been slower than the caller for this long, and so many of its elements, are given up.
SLOW_SECONDS = 0.030
SLOW_ELEMENTS = 50
# Copying holds workers up if it takes more than this part of the time.
COPYING_SHARE = 0.3


def run(job: Job, pool: WorkerPool | None = None) -> None:
    """Compute all tasks of a job, those of a small call here, others in workers of `pool` or those that calls share."""
    if job.call.settings.isolate:
        with _open_isolated(job, pool or default_pool()) as runner:
            drive(runner)
            runner.end()
        return
    pace = known_paces.of(job.call)
    effects = None if job.call.settings.verify is False else SideEffects(job.call.func)
    inline = run_short(job, pace)
    if inline is not None and inline.end(job):
        pace.keep(inline.seconds / job.call.count)
        if is_middling(inline.seconds):
            pace.keep_way(shared=False)
        return
    with BackgroundDispatcher(job, pool) as background:
        joined = run_inline(job, background, pace) if inline is None else join_behind(inline, job, background)
        if joined:
            _share(job, background, pace)
            if effects is not None and background.dispatcher.computed and job.limit == float("inf"):
                effects.warn()
        elif joined is False:
            background.leave()
            job.explain("another thread's call has the workers")
            drive(SerialRunner(job))


def _share(job: Job, background: BackgroundDispatcher, pace: PaceOfCall) -> None:
    """Compute what the caller has left of a call, with workers where they pay, and note how long it took."""
    dispatcher = background.dispatcher
    known, alone = pace.known, job.queue.mean_pace or 0.0
    runner = ProcessRunner(job, dispatcher, background, whole=True)
    drive(runner)
    runner.end()
    if dispatcher.started and not dispatcher.computed:
        job.explain("all was done before the first worker was up")
    if (mean := job.queue.mean_pace) is not None:
        pace.keep(mean, bool(background.cpus.watch.busy) or dispatcher.threaded)
        work = (alone if known is None else known.work) * job.call.count
        if is_middling(work) and background.warm and dispatcher.started and job.limit == float("inf"):
            if known is None:  # it took longer than the next one will, since workers got the function in it
                pace.keep_way(shared=False, elapsed=work)
            else:
                pace.keep_way(shared=True)


@contextlib.contextmanager
def open_runner(job: Job, pool: WorkerPool) -> Iterator[Runner]:
    """The runner of a job whose results are taken one after another."""
    if job.call.settings.isolate:
        with _open_isolated(job, pool) as runner:
            yield runner
    else:
        with BackgroundDispatcher(job, pool) as background:
            joined = background.join(lambda: 0)
            yield ProcessRunner(job, background.dispatcher, background) if joined else SerialRunner(job, ITEM_SECONDS)


@contextlib.contextmanager
def _open_isolated(job: Job, pool: WorkerPool) -> Iterator[ProcessRunner]:
    """The runner of a job that only workers compute.

    Where another thread's call keeps the workers of `pool` the job gets new ones: that call may be waiting for this
    one, if its function has started the thread.
    """
    job.open()
    locked = False
    try:
        with DeferredInterrupt():
            from .dispatcher import Dispatcher  # here: Ctrl-C in an import may leave Python's lock of imports taken

            locked = pool.lock.acquire(timeout=TURN_SECONDS)
        with contextlib.ExitStack() as stack:
            if not locked:
                pool = new_pool()
                stack.callback(pool.stop)
            dispatcher = stack.enter_context(Dispatcher(job, pool))
            dispatcher.start()
            yield ProcessRunner(job, dispatcher)
    finally:
        if locked:
            pool.lock.release()


class ProcessRunner:
    """Computes tasks in worker processes; the caller computes until they are up.

    Parameters
    ----------
    background : BackgroundDispatcher, optional
        Brings the workers up, and has joined. Without it they have been started.
    whole : bool, optional
        True if the call returns all results at once: work that workers are too slow for is then taken back.
    """

    task_seconds = TASK_SECONDS

    def __init__(
        self, job: Job, dispatcher: Dispatcher, background: BackgroundDispatcher | None = None, whole: bool = False
    ) -> None:
        self._job = job
        self._dispatcher = dispatcher
        self._background = background
        self._whole = whole
        self._inline = None if background is None else InlineTasks(job, background)
        self._slow: SlowWorkers | None = None
        # Computes the rest, where there are no workers.
        self._alone: SerialRunner | None = None

    @property
    def workers(self) -> int:
        """Workers of the job; looked up when asked for, since a small call does not count CPUs."""
        return self._job.workers

    @property
    def finished(self) -> bool:
        """True if nothing is left that could change the result."""
        if self._alone is not None:
            return self._alone.finished
        return self._inline is None and (not self._dispatcher.started or self._dispatcher.finished)

    def step(self) -> None:
        """Compute one task until workers are up; from then on wait for their messages."""
        if self._alone is not None:
            self._alone.step()
            return
        if self._inline is not None:
            if not self._inline.step():
                self._hand_over(self._inline)
            return
        with self._alone_without_workers():
            self._step()

    @contextlib.contextmanager
    def _alone_without_workers(self) -> Iterator[None]:
        """Leave the rest to the caller where it turns out that there are no workers."""
        try:
            yield
        except NoWorkersError as error:
            self._dispatcher.give_up(error)
            self._go_on_alone()

    def _go_on_alone(self) -> None:
        self._slow = None
        self._alone = SerialRunner(self._job, self.task_seconds if self._whole else ITEM_SECONDS)

    def _step(self) -> None:
        if not self._whole:  # items may have come meanwhile
            self._dispatcher.assign_tasks()
        own = self._next_own()
        if own is not None:
            self._job.compute_and_accept(own)
        self._dispatcher.step(None if own is None else 0)
        self._job.repeat()
        if self._slow is not None and self._slow.too_slow():
            self._take_back()

    def end(self) -> None:
        """Have done what waits for the end of the call and needs its workers, and tell what they had copies of."""
        job, dispatcher = self._job, self._dispatcher
        if not dispatcher.started or job.limit < float("inf"):
            return
        if job.at_end is not None:
            job.at_end(dispatcher)
        if dispatcher.look is not None and dispatcher.computed and job.comparison.disputed is None:
            for effect in dispatcher.look.effects():
                effect.repeat(job.call.func)

    def poll(self) -> None:
        """Read the messages of workers and assign tasks, without waiting."""
        if self._alone is not None:
            return
        if self._inline is not None and self._background is not None:
            self._background.poll(False)
        elif self._dispatcher.started:
            with self._alone_without_workers():
                self._dispatcher.assign_tasks()
                self._dispatcher.step(0)

    def _next_own(self) -> Task | None:
        """The next task for this process, if it goes on computing beside the workers; no task of a dead worker."""
        dispatcher, queue = self._dispatcher, self._job.queue
        if not (self._whole and dispatcher.started and dispatcher.beside):
            return None
        if queue.seems_empty and dispatcher.take_back():
            self._job.repeat()
        return queue.next_task(dispatcher.own_seconds, capacity=self._job.own_capacity)

    def _hand_over(self, inline: InlineTasks) -> None:
        """Leave the other tasks to the workers, if they have been started."""
        self._inline = None
        inline.leave()
        self._job.repeat()
        if self._background is not None and self._background.alone:
            self._go_on_alone()
            return
        if self._whole and self._dispatcher.started and self._background is not None:
            with self._alone_without_workers():
                self._dispatcher.assign_tasks()
            if self._dispatcher.beside or self._alone is not None:
                return
            self._slow = SlowWorkers(self._dispatcher, self._background.pace, self._job.transfer_seconds())

    def _take_back(self) -> None:
        """Compute here what workers are too slow for: copying can cost more than the function."""
        job, dispatcher = self._job, self._dispatcher
        job.explain(
            "it went back to the caller: copying the arguments took workers longer than computing took the caller"
        )
        dispatcher.stop_assigning()
        while not dispatcher.idle:
            dispatcher.step(None)
        drive(SerialRunner(job))
        dispatcher.assign_again()


class SlowWorkers:
    """Finds out that workers are slower than the caller was alone.

    Parameters
    ----------
    pace : float
        Seconds that an element took here, with all copying.
    transfer_seconds : float
        Estimated seconds to send an element to a worker and its result back.
    """

    def __init__(self, dispatcher: Dispatcher, pace: float, transfer_seconds: float) -> None:
        self._dispatcher = dispatcher
        self._pace = pace
        self._transfer_seconds = transfer_seconds
        self._begun: tuple[float, int, float] | None = None

    def too_slow(self) -> bool:
        """True once the measurement is long enough to show it."""
        now, computed, feeding = perf_counter(), self._dispatcher.computed, self._dispatcher.feeding
        if self._begun is None:
            # From the first results on: until then workers were getting ready.
            self._begun = (now, computed, feeding) if computed else None
            return False
        elapsed, elements = now - self._begun[0], computed - self._begun[1]
        # A few long elements say nothing: they may be uneven. And where copying
        # is not what holds workers up, other programs are, for a while.
        enough = elapsed > max(SLOW_SECONDS, SLOW_ELEMENTS * self._pace)
        copying = self._transfer_seconds > self._pace or feeding - self._begun[2] > COPYING_SHARE * elapsed
        return enough and copying and elements * self._pace < 0.9 * elapsed
