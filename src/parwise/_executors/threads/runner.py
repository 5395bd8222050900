"""Runners of a job in threads of this process, for functions that release the GIL, or a Python without it."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from typing import TYPE_CHECKING, Any

from ..._clock import perf_counter
from ..._core.indexing import Task
from ..._system.blas import local_threads, with_local_threads
from ..._system.environment import current_filters
from ..._system.library_settings import local_settings, read_local_settings
from ..._system.platforms.floating_point import floats, read_floats
from ..._workers.worker.context_capture import captured_in_thread
from ..futures import ExecutorRunner
from ..job.job import Job
from ..job.task_length import TASK_SECONDS

if TYPE_CHECKING:
    from ..._workers.worker.output_capture import OutputEvent
    from ...errors import ExecutorError

# While the caller waits for threads it repeats their output so often.
LOOK_SECONDS = 0.1


class ThreadState:
    """Runs functions in other threads with the settings of this one: a new thread starts with the defaults."""

    def __init__(self) -> None:
        self._floats, self._counts = read_floats(), local_threads() or {}
        self._settings = read_local_settings()
        self._owner = threading.get_ident()
        self._filters = list(current_filters())

    def submit(self, executor: Executor, function: Any, *args: Any) -> Future[Any]:
        """Submit a call of a function."""
        return executor.submit(contextvars.copy_context().run, self._run, function, *args)

    def _run(self, function: Any, *args: Any) -> None:
        with floats(self._floats), with_local_threads(self._counts), local_settings(self._settings):
            function(*args)

    def compute(self, job: Job, task: Task) -> None:
        """Compute a task and accept its outcome; what it prints, warns and logs comes in index order.

        The caller repeats that, in its own thread: at once where it computes the task itself.
        """

        def send(output: list[OutputEvent]) -> None:
            job.output_replay.record(task.lo, output)
            if threading.get_ident() == self._owner:
                job.repeat()

        with captured_in_thread(task.lo, self._filters, send):
            outcome = job.compute(task)
        job.accept(task, outcome)


def _fault(job: Job, executor: Executor, error: BaseException, done: int, lowest: Task | None = None) -> ExecutorError:
    """The error of a thread pool that was shut down, or whose initializer has failed."""
    from ..remote.faults import Faults  # imported by the calls that need it

    faults = Faults(job, type(executor).__name__)
    faults.done = done
    if isinstance(error, CancelledError):
        return faults.cancelled(lowest, error)
    if isinstance(error, BrokenExecutor):
        return faults.executor_error(f"{type(executor).__name__} is broken ({error}); make a new one", lowest, error)
    return faults.refused(lowest, error)


class SharedThreadRunner:
    """Computes tasks in the calling thread and in threads that take tasks themselves as long as there are any.

    All is computed even if the executor has all its threads at other work, or is
    the one that this call runs in.

    Parameters
    ----------
    job : Job
        It must be open.
    workers : int
        Threads of the executor.
    state : ThreadState
        That of the thread that makes the call.
    """

    task_seconds = TASK_SECONDS

    def __init__(self, job: Job, executor: Executor, workers: int, state: ThreadState) -> None:
        self._job = job
        self.workers = 1 + workers
        self.finished = False
        self._state = state
        self._executor = executor
        # Elements of each task that is done.
        self._done: list[int] = []
        self._others: list[Future[Any]] = []
        try:
            for _ in range(workers):
                self._others.append(state.submit(executor, self._compute_all))
        except RuntimeError as error:
            if not self._others:  # otherwise it was shut down just now: who has begun goes on
                raise _fault(job, executor, error, 0) from error

    def step(self) -> None:
        """Compute a task here, or wait for a thread that computes one of the last."""
        self._check(future for future in self._others if future.done())
        if self._compute_next():
            self._job.repeat()
            return
        self._others = [future for future in self._others if not future.cancel()]
        if not self._others:
            self.finished = True
            return
        since = perf_counter()
        done, _ = wait(self._others, LOOK_SECONDS, FIRST_COMPLETED)
        self._job.observer.waited(since)
        self._others = [future for future in self._others if future not in done]
        self._check(done)
        self._job.repeat()

    def _check(self, done: Iterable[Future[Any]]) -> None:
        """Raise what has ended a thread, or kept it from taking tasks."""
        try:
            for future in done:
                if not future.cancelled():  # by who has shut down the pool: others compute the tasks
                    future.result()
        except BrokenExecutor as error:
            raise _fault(self._job, self._executor, error, sum(self._done)) from error

    def poll(self) -> None:
        """Do nothing: threads accept outcomes and take tasks themselves."""

    def end(self) -> None:
        """Do nothing: threads had no copies of what the function holds."""

    def cancel(self) -> None:
        """Have threads end after their tasks, and wait for them: they use this process's memory."""
        if not self.finished:
            self._job.queue.cut(0)
            wait([future for future in self._others if not future.cancel()])

    def _compute_all(self) -> None:
        while self._compute_next():
            pass

    def _compute_next(self) -> bool:
        task = self._job.queue.next_task(workers=self.workers, capacity=self._job.own_capacity)
        if task is None:
            return False
        self._state.compute(self._job, task)
        self._done.append(len(task))
        self._job.show()
        return True


class ThreadRunner(ExecutorRunner):
    """Computes tasks in threads of this process, for a call whose results are taken one after another."""

    task_seconds = TASK_SECONDS
    look_seconds = LOOK_SECONDS

    def __init__(self, job: Job, executor: Executor, workers: int) -> None:
        super().__init__(job, executor, workers)
        self._state = ThreadState()
        self._done = 0
        self._computing: set[int] = set()

    @property
    def within(self) -> bool:
        """True in a thread that computes one of the tasks: garbage collection may end a generator there."""
        return threading.get_ident() in self._computing

    def step(self) -> None:
        """Wait for a finished task; or compute one here, if the executor has begun none.

        It may have all its threads at other work, or be the one that this runs in.
        """
        self.assign_tasks()
        first = next(iter(self._submitted), None)
        # Threads of the call's own are about to begin: results as they come need not wait for a task of this one.
        if not self._job.ordered and self._job.call.settings.executor == "threads":
            first = None
        if first is not None and not any(f.running() or f.done() for f in self._submitted) and first.cancel():
            self._state.compute(self._job, self._submitted.pop(first))
        else:
            super().step()
        self._job.repeat()

    def cancel(self) -> None:
        """Cancel tasks that have not begun, and wait for those that have: they use this process's memory."""
        if os.getpid() == self._owner:
            begun = [future for future in self._submitted if not future.cancel()]
            if not self.within:
                wait(begun)

    def _submit(self, task: Task) -> None:
        try:
            self._submitted[self._state.submit(self._executor, self._compute, task)] = task
        except RuntimeError as error:
            raise self._fault(error, task) from error

    def _compute(self, task: Task) -> None:
        thread = threading.get_ident()
        self._computing.add(thread)
        try:
            self._state.compute(self._job, task)
        finally:
            self._computing.discard(thread)

    def _collect(self, future: Future[Any], task: Task) -> None:
        try:
            future.result()
        except (BrokenExecutor, CancelledError) as error:
            raise self._fault(error, task) from error
        self._done += len(task)

    def _fault(self, error: BaseException, task: Task) -> ExecutorError:
        lowest = min([task, *self._submitted.values()], key=lambda one: one.lo)
        return _fault(self._job, self._executor, error, self._done, lowest)
