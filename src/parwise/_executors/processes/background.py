"""The helper thread that starts workers, and dispatches tasks to them, while the caller computes."""

from __future__ import annotations

import _thread
import contextvars
import threading
from collections.abc import Callable, Set
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ..._clock import perf_counter
from ..._system.blas import ThreadWatch, local_threads, read_threads, workers_beside
from ..._system.interpreter import DeferredInterrupt, short_switch_interval, starts_threads
from ..._system.library_settings import read_local_settings
from ..._system.limits import cpu_is_idle
from ..._workers.pickling.multiprocessing_objects import beside_the_function
from ..._workers.pool.default_pool import default_pool, known_pool
from ...errors import NoWorkersError, ParwiseError
from ..job.job import Job

if TYPE_CHECKING:
    from ..._workers.pool.worker_pool import WorkerPool
    from .dispatcher import Dispatcher


class CpuAvailability:
    """Tells whether CPUs are free for workers, or BLAS threads of the caller use them all.

    Workers keep the caller's number of BLAS threads, which its bits depend on. `threads` are native ids of this call's
    own threads, which may become more.
    """

    def __init__(self, job: Job, threads: Set[int]) -> None:
        self._job = job
        self.watch = ThreadWatch(threads)

    @cached_property
    def _any(self) -> bool:
        """True if this process may use more than one CPU."""
        return self._job.workers > 1

    @cached_property
    def _doubtful(self) -> bool:
        """True if BLAS threads would leave no CPU to a second worker."""
        wanted = self._job.call.settings.blas_threads
        return not isinstance(wanted, int) and workers_beside(read_threads(), 2) < 2

    def known_free(self) -> bool:
        """True if CPUs were free during the last task. If that was not measured, the next task is."""
        if not (self._any and self._doubtful):
            return self._any
        self.watch.suspicious = self.watch.busy is not False
        return self.watch.busy is False

    def seems_free(self, single_threaded: bool = False) -> bool:
        """True if CPUs are free at this moment, during a task; whether the function is known to use one thread."""
        # To look at threads takes 40 us for each, and BLAS has as many as there are CPUs. Looking for BLAS takes 20 ms
        # beside a function in pure Python, so that comes last.
        return self._any and (single_threaded or not (self.watch.at_work() and self._doubtful))


# Starting the first workers takes 90 ms of another CPU and 3 ms of the caller's time. To hand a call to workers that
# are up and to read their messages takes 2 to 4 ms of it, and a worker is at work 1 to 2 ms after the call has begun:
# on 16 CPUs a call of 5.1 ms took 6.7 ms with a worker, and one of 11.4 ms took 8.8.
COLD_SECONDS = 0.030
WARM_SECONDS = 0.006
# The same where other programs have all CPUs: two of three processes on two CPUs get a third more than one of two does,
# or nothing if the system leaves both on one CPU. Calls of 0.1 s then took 0.7 to 1.75 times the loop, those of 0.3 s
# 0.7 to 0.9.
BUSY_SECONDS = 0.15
# An element that has taken so long is taken to be one of a call of that length.
BUSY_HELP_SECONDS = 0.040
# The helper thread acts once an element has taken so long that workers pay if
# all elements take as long: after the first of these times at the earliest,
# after the second at the latest.
LEAST_HELP_SECONDS = 0.002
HELP_AFTER_SECONDS = 0.010
# Where the transfer of an element takes long, not before so many times that, nor before this time, which is more than
# a slow moment of the machine: a worker takes up to a second to import the libraries that such a function needs.
TRANSFERS = 2
TRANSFER_HELP_SECONDS = 0.050


class BackgroundDispatcher:
    """Starts workers, and dispatches tasks to them, while the caller computes.

    Between two of its own tasks the caller does so itself. If one of them lasts
    too long, a helper thread takes over until the caller leaves. It sleeps until
    then, and is a raw thread: a small call must not wait for it (starting and
    joining a `threading.Thread` takes 0.15 ms).

    Parameters
    ----------
    pool : WorkerPool, optional
        The workers, if not those that calls share.
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
        # The native id of the helper thread, from its first moment on: when it wakes, BLAS threads do not.
        self._threads: set[int] = set()
        self._begun = perf_counter()
        self._retry = LEAST_HELP_SECONDS / 2
        # True if the helper thread has shortened the switch interval.
        self._switch_shortened = False
        self._leaving = _thread.allocate_lock()
        self._leaving.acquire()
        # A new thread has none of the caller's contexts: error handling, precision.
        self._context = contextvars.copy_context()
        # What the helper thread sees, until the caller leaves.
        self._shown = [self]
        self._gone = _thread.allocate_lock()
        self._gone.acquire()
        # Held by the thread that uses the dispatcher.
        self._turn = _thread.allocate_lock()
        self._state: Literal["alone", "waiting", "preparing", "active", "left"] = "alone"
        self.error: BaseException | None = None
        # True if there are no workers, and never will be.
        self.alone = False
        # Seconds per element of the caller's last task.
        self.pace = 0.0
        self._local_threads = local_threads(look=False)
        self._local_settings = read_local_settings()

    def __enter__(self) -> BackgroundDispatcher:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            try:
                self.leave()
            finally:
                # Again, if an interrupt came before it had begun: the helper thread would go on with workers that
                # another call uses by then.
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
        """Open the job at element `start()` and lock the pool; return False if another call holds it."""
        with self._turn:
            self._start, self._deadline = start, None
            if not self._join():
                self._job.open(start())
            return self._joined

    def _join(self) -> bool:
        if self._joined:
            return True
        with DeferredInterrupt():
            from .dispatcher import Dispatcher  # here, as the pool: calls without workers do without it

            self.pool = self._given_pool or default_pool()
            if not self.pool.lock.acquire(blocking=False):
                return False
            try:
                self._job.open(self._start())
                self.dispatcher = Dispatcher(self._job, self.pool)
                self.dispatcher.local_settings = self._local_settings
                self.cpus = CpuAvailability(self._job, self._threads)
                self._joined = True
            finally:
                if not self._joined:
                    self.pool.lock.release()
        return True

    def expect(self, seconds: float | None, start: Callable[[], int] | None = None) -> float:
        """Have the helper thread take over if the caller's next task takes longer than `seconds`.

        `start` returns the first element of the workers, as long as the job is not open. Returns the earliest time, by
        `time.perf_counter`, at which the thread takes over.
        """
        # The helper thread only reads these, and holds no lock while it waits.
        self._start = start or self._start
        deadline = float("inf") if seconds is None else perf_counter() + seconds
        self._deadline = None if seconds is None else deadline
        if self._state == "alone" and seconds is not None and starts_threads():
            self._state = "waiting"
            try:
                _thread.start_new_thread(_help, (self._leaving, self._shown))
            except RuntimeError:  # the interpreter ends, or has as many threads as it may have
                self._state = "alone"
        return deadline

    def poll(self, wanted: bool) -> None:
        """Read the messages of workers in the caller's thread, or start workers if `wanted`."""
        with self._turn:
            self._deadline = None
            if self._state in ("preparing", "active"):
                return
            try:
                if self.dispatcher.started:
                    self.dispatcher.step(0)
                elif wanted and not self.alone:
                    self.dispatcher.start()
            except NoWorkersError as error:
                self.give_up(error)

    def give_up(self, error: NoWorkersError) -> None:
        """Leave all to the caller, as `Dispatcher.give_up` does."""
        self.alone = True
        self.dispatcher.give_up(error)

    @cached_property
    def warm(self) -> bool:
        """True if workers seemed to be up when the call began."""
        pool = self._given_pool or known_pool()
        return pool is not None and pool.seems_warm

    @property
    def has_started_workers(self) -> bool:
        """True if there are workers, be they up or not."""
        pool = self._given_pool or known_pool()
        return pool is not None and bool(pool.workers)

    @property
    def has_idle_workers(self) -> bool:
        """True if workers of an earlier call are up, and the helper thread does not use them."""
        with self._turn:
            return self._state not in ("preparing", "active") and self.dispatcher.warm

    def help_after(self) -> float:
        """Seconds that the caller's first element may take before the helper thread starts workers."""
        least = WARM_SECONDS if self.warm else COLD_SECONDS
        return self.help_after_at_least(
            min(HELP_AFTER_SECONDS, max(LEAST_HELP_SECONDS, least / max(1, self._job.call.expected - 1)))
        )

    def help_after_at_least(self, help_after: float = HELP_AFTER_SECONDS) -> float:
        """`help_after` seconds, or more where the transfer of an element takes long."""
        transfer_seconds = self._job.call.transfer_seconds()  # not of items: they are not measured yet
        return max(help_after, TRANSFER_HELP_SECONDS, TRANSFERS * transfer_seconds) if transfer_seconds else help_after

    def leave(self) -> None:
        """Stop the helper thread; afterwards only the caller uses the dispatcher."""
        if self._joined and self.pool.owned_by_parent:  # a forked child: helper thread and workers are the parent's
            return
        with self._turn:
            if self._state != "active":
                self._stop_helping()
                return
        # After an interrupt in here two threads would use the dispatcher.
        with DeferredInterrupt():
            with self._turn:
                self._stop_helping()
            self.dispatcher.wake()
            self._gone.acquire()
        if self.error is not None:
            error, self.error = self.error, None
            if not isinstance(error, NoWorkersError):
                raise error
            self.give_up(error)

    def _stop_helping(self) -> None:
        if self._state != "left":
            self._state = "left"
            self._restore_switch_interval()
            self._shown.clear()
            self._leaving.release()

    def _restore_switch_interval(self) -> None:
        """Restore the switch interval; in the caller, since the helper thread may get there only after the call."""
        short, self._switch_shortened = self._switch_shortened, False
        if short:
            short_switch_interval.release()

    def help(self) -> float | None:
        """Take over if it is time, and dispatch until the caller leaves; otherwise return the seconds until then."""
        return self._context.run(self._act)

    def _act(self) -> float | None:
        if not self._threads:
            return self._begin_to_wait()
        if self._start_workers_if_due() and self._pack_function():
            self._drive()
            return None
        return self._wait_seconds()

    def _begin_to_wait(self) -> float | None:
        self._threads.add(threading.get_native_id())
        with self._turn:
            if self._state == "left":
                return None
            # Already while it waits: it gets here after 5 ms of a slow element, and in no shorter call.
            short_switch_interval.acquire()
            self._switch_shortened = True
        return self._wait_seconds()

    def _wait_seconds(self) -> float:
        deadline = self._deadline
        return HELP_AFTER_SECONDS if deadline is None else max(0.0, deadline - perf_counter())

    def _start_workers_if_due(self) -> bool:
        """Start workers if it is time, and return True if they are coming up."""
        with self._turn:
            if self._state != "waiting" or self._deadline is None or self.alone or perf_counter() < self._deadline:
                return False
            # Now and then a BLAS thread that is about to sleep is still seen to run: look again soon.
            self._retry = min(2 * self._retry, HELP_AFTER_SECONDS)
            self._deadline = perf_counter() + self._retry
            if perf_counter() - self._begun < BUSY_HELP_SECONDS and not cpu_is_idle(own=2):
                return False
            if not self._join() or self._job.queue.empty:  # another call holds the workers, or no task is left
                return False
            if not self.cpus.seems_free():
                return False
            try:
                if not self.dispatcher.started:
                    self.dispatcher.start_workers()
            except (ParwiseError, OSError, TypeError):  # a TypeError of what cannot be pickled
                self._deadline = None  # the caller tries, and is told, between two tasks
                return False
            self._state = "preparing"
            return True

    def _pack_function(self) -> bool:
        """Pickle the function, and take over if the caller still computes."""
        # Looking for libraries takes 16 ms beside a function in pure Python: workers are on their way.
        prepared = self._local_threads is not None or not local_threads()
        if prepared:  # no number of threads is known to the caller's own thread alone
            self.dispatcher.local_threads = self._local_threads
            try:
                if not self.dispatcher.started:
                    with beside_the_function():
                        self.dispatcher.pack_function()
            except BaseException:
                # The function may have changed what it holds: the caller tries again between two tasks.
                prepared = False
        with self._turn:
            if self._state != "left":
                self._state = "active" if prepared else "waiting"
            if not prepared:
                self._deadline = None
            return self._state == "active"

    def _drive(self) -> None:
        """Dispatch tasks until the caller leaves."""
        try:
            self.dispatcher.caller_computes = True
            if not self.dispatcher.started:
                self.dispatcher.start()
            self._dispatch()
        except BaseException as error:
            self.error = error
        finally:
            self._gone.release()

    def _dispatch(self) -> None:
        while self._state == "active":
            self.dispatcher.step(None)
            self._job.show()


def _nowhere() -> int:
    return 0


def _help(leaving: Any, shown: list[BackgroundDispatcher]) -> None:
    """The helper thread.

    While it waits it holds nothing of the call: the interpreter may end within that, and would free nothing of it.
    """
    seconds: float | None = 0.0
    while seconds is not None and not leaving.acquire(True, seconds):
        seconds = next((one.help() for one in shown.copy()), None)
