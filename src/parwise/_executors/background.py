"""Workers brought up and attended to while the caller computes."""

from __future__ import annotations

import _thread
import contextvars
import threading
import time
from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import Any, Literal

from .._system.blas import ThreadWatch, local_threads, read_threads, workers_beside
from .._system.interpreter import DeferredInterrupt, short_switch_interval
from .._workers.default_pool import default_pool, known_pool
from .._workers.worker_pool import WorkerPool
from ..errors import ParwiseError
from .dispatcher import Dispatcher
from .job import Job


class CpuAvailability:
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
        return self._job.workers > 1

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
        return self._any and not (self.watch.at_work() and self._doubtful)


# Bringing up the first workers takes 90 ms of another CPU and 3 ms of the
# caller's time; handing a call to workers that are up about 0.5 ms of it.
COLD_SECONDS = 0.030
WARM_SECONDS = 0.002
# A task of the caller gets help once it has taken so long that, if all
# others take as long, workers pay; but not before, nor much later than this.
LEAST_HELP_SECONDS = 0.002
HELP_AFTER_SECONDS = 0.010
# Where handing over takes long, not before so many times that, nor before it is no hiccup of this machine's: the
# libraries that such a function needs take a worker up to a second.
TRANSFERS = 2
TRANSFER_HELP_SECONDS = 0.050


class BackgroundDispatcher:
    """Attends to the workers while the caller computes.

    Between two tasks the caller does so itself. If one of its tasks lasts too
    long, a second thread takes over until the caller leaves: a raw thread, since
    a small call must not wait for it (starting and joining a `threading.Thread`
    takes 0.15 ms), and asleep until then.

    Parameters
    ----------
    job : Job
    pool : WorkerPool, optional
        If not this process's own one.
    """

    dispatcher: Dispatcher
    cpus: CpuAvailability
    pool: WorkerPool

    def __init__(self, job: Job, pool: WorkerPool | None) -> None:
        self._job = job
        self._given_pool = pool
        self._joined = False
        self._start: Callable[[], int] = _nowhere
        self._deadline: float | None = None
        self._retry = LEAST_HELP_SECONDS / 2
        # Whether the second thread has made turns short.
        self._switch_shortened = False
        self._leaving = _thread.allocate_lock()
        self._leaving.acquire()
        self._gone = _thread.allocate_lock()
        self._gone.acquire()
        # Held by whichever thread is at the workers.
        self._turn = _thread.allocate_lock()
        self._state: Literal["alone", "waiting", "preparing", "active", "left"] = "alone"
        self.error: BaseException | None = None
        # Seconds per element of the caller's last task.
        self.pace = 0.0
        self._local_threads = local_threads(look=False)

    def __enter__(self) -> BackgroundDispatcher:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            try:
                self.leave()
            finally:
                # Again, if an interrupt came before it had begun: the other thread would go on with workers that
                # others use by then.
                self.leave()
        except BaseException as late:
            error = late
            raise
        finally:
            if self._joined:
                try:
                    self.dispatcher.__exit__(type(error), error, None)
                finally:
                    self.pool.lock.release()

    def join(self, start: Callable[[], int]) -> bool:
        """Open the job from an element on, and have the workers to oneself, if no other call has them."""
        with self._turn:
            self._start, self._deadline = start, None
            if not self._join():
                self._job.open(start())
            return self._joined

    def _join(self) -> bool:
        if self._joined:
            return True
        self.pool = self._given_pool or default_pool()
        with DeferredInterrupt():
            if not self.pool.lock.acquire(blocking=False):
                return False
            try:
                self._job.open(self._start())
                self.dispatcher = Dispatcher(self._job, self.pool)
                self.cpus = CpuAvailability(self._job)
                self._joined = True
            finally:
                if not self._joined:
                    self.pool.lock.release()
        return True

    def expect(self, seconds: float | None, start: Callable[[], int] | None = None) -> float:
        """Take over if the caller's next task takes longer than `seconds`.

        `start` gives the element to begin with, as long as the job is not open.

        Returns
        -------
        float
            When that is, by `time.perf_counter`; nothing is taken over before.
        """
        # The other thread only reads these, and holds no turn while it waits.
        self._start = start or self._start
        deadline = float("inf") if seconds is None else time.perf_counter() + seconds
        self._deadline = None if seconds is None else deadline
        if self._state == "alone" and seconds is not None:
            self._state = "waiting"
            # A new thread has none of the caller's contexts: error handling, precision.
            run = contextvars.copy_context().run
            try:
                _thread.start_new_thread(run, (self._run,))
            except RuntimeError:  # the interpreter ends, or has as many threads as it may have
                self._state = "alone"
        return deadline

    def poll(self, wanted: bool) -> None:
        """See to the workers from the caller's thread, and start them if `wanted`."""
        with self._turn:
            self._deadline = None
            if self._state in ("preparing", "active"):
                return
            if self.dispatcher.started:
                self.dispatcher.step(0)
            elif wanted:
                self.dispatcher.start()

    @cached_property
    def warm(self) -> bool:
        """Whether workers seemed to be up when the call began."""
        pool = self._given_pool or known_pool()
        return pool is not None and pool.seems_warm

    @property
    def has_idle_workers(self) -> bool:
        """Whether workers of an earlier call are up; if the other thread brings up some, it hears them."""
        with self._turn:
            return self._state not in ("preparing", "active") and self.dispatcher.warm

    def help_after(self) -> float:
        """How long the caller's first element may take before workers are brought in beside it."""
        least = WARM_SECONDS if self.warm else COLD_SECONDS
        return self.help_after_at_least(
            min(HELP_AFTER_SECONDS, max(LEAST_HELP_SECONDS, least / max(1, self._job.call.count - 1)))
        )

    def help_after_at_least(self, help_after: float = HELP_AFTER_SECONDS) -> float:
        """As much patience, or what there must be where handing over takes long."""
        transfer_seconds = self._job.call.transfer_seconds()
        return max(help_after, TRANSFER_HELP_SECONDS, TRANSFERS * transfer_seconds) if transfer_seconds else help_after

    def leave(self) -> None:
        """Stop; when this returns the caller has the workers to itself."""
        if self._joined and self.pool.owned_by_parent:  # the other thread is the parent's, as are the workers
            return
        with self._turn:
            if self._state != "active":
                self._stop_helping()
                return
        # An interrupt in here would leave two threads at the workers.
        with DeferredInterrupt():
            with self._turn:
                self._stop_helping()
            self.dispatcher.wake()
            self._gone.acquire()
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _stop_helping(self) -> None:
        if self._state != "left":
            self._state = "left"
            self._restore_switch_interval()
            self._leaving.release()

    def _restore_switch_interval(self) -> None:
        """Have turns of the usual length again; in the caller, since the other thread may come to it after the call."""
        short, self._switch_shortened = self._switch_shortened, False
        if short:
            short_switch_interval.end()

    def _run(self) -> None:
        """In the second thread: wait, take over when it is time, and attend to workers until the caller leaves."""
        with self._turn:
            if self._state == "left":
                return
            # Already while it waits: it gets here after 5 ms of a slow element, and not once in a call of less.
            short_switch_interval.begin()
            self._switch_shortened = True
        while not self._leaving.acquire(True, self._wait_seconds()):
            if self._may_start_workers() and self._pack_function():
                self._drive()
                return

    def _wait_seconds(self) -> float:
        deadline = self._deadline
        return HELP_AFTER_SECONDS if deadline is None else max(0.0, deadline - time.perf_counter())

    def _may_start_workers(self) -> bool:
        """Whether it is time to bring up workers; they are on their way then."""
        with self._turn:
            if self._state != "waiting" or self._deadline is None or time.perf_counter() < self._deadline:
                return False
            # Now and then a thread of BLAS is seen to run that only goes to sleep: look again soon.
            self._retry = min(2 * self._retry, HELP_AFTER_SECONDS)
            self._deadline = time.perf_counter() + self._retry
            if not self._join() or self._job.queue.empty:  # another thread's call has them; or nothing is left
                return False
            self.cpus.threads.add(threading.get_native_id())
            if not self.cpus.seems_free():
                return False
            try:
                if not self.dispatcher.started:
                    self.dispatcher.start_workers()
            except (ParwiseError, OSError):
                self._deadline = None  # the caller tries, and is told, between two tasks
                return False
            self._state = "preparing"
            return True

    def _pack_function(self) -> bool:
        """Pickle the function, for which no caller waits, and take over if it is still there."""
        # Looking for libraries takes 16 ms beside a function in pure Python: workers are on their way.
        prepared = self._local_threads is not None or not local_threads()
        if prepared:  # and no number of threads is known to the caller's own thread alone
            self.dispatcher.local_threads = self._local_threads
            try:
                if not self.dispatcher.started:
                    self.dispatcher.pack_function()
            except Exception:
                # The function may have changed what it holds: the caller tries again between two tasks.
                prepared = False
        with self._turn:
            if self._state != "left":
                self._state = "active" if prepared else "waiting"
            if not prepared:
                self._deadline = None
            return self._state == "active"

    def _drive(self) -> None:
        """Be at the workers until the caller leaves."""
        try:
            self.dispatcher.caller_computes = True
            if not self.dispatcher.started:
                self.dispatcher.start()
            while self._state == "active":
                self.dispatcher.step(None)
                self._job.show()
        except BaseException as error:
            self.error = error
        finally:
            self._gone.release()


def _nowhere() -> int:
    return 0
