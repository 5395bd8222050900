"""Dispatches the tasks of one job to worker processes, collects outcomes, replaces dead workers."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from ..._clock import perf_counter, thread_time
from ..._core.indexing import Task
from ..._core.results import Results
from ..._workers.pool.silence import Silence
from ..._workers.pool.watchdog import Watchdog
from ..._workers.pool.worker_handle import WorkerHandle
from ..._workers.pool.worker_pool import WorkerPool
from ..._workers.protocol import ForeignBytesError
from ..._workers.session import SetUp
from ...errors import NoWorkersError, user_level
from ..job.job import Job
from .faults import FaultPolicy
from .sender import Sender, numbers

ALL = 10**9  # messages; `step` reads one, as others wake it again: to look for one that is not there takes 3 us


class Dispatcher(Sender):
    """Dispatches the tasks of one job to worker processes; a context manager.

    One thread at a time uses it. An exception that leaves its ``with`` block
    ends the workers, since their state is then unknown.

    Parameters
    ----------
    pool : WorkerPool
        The caller holds its `lock`.
    """

    def __init__(self, job: Job, pool: WorkerPool) -> None:
        super().__init__(job, pool)
        # CPU seconds that sending tasks and collecting outcomes took.
        self.feeding = 0.0
        self._fault_policy = FaultPolicy(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._pool.owned_by_parent:  # a forked child: the workers are the parent's
            return
        for worker in self._workers:  # before they are killed: what a worker has begun to write becomes whole
            worker.revoke()
        if error is not None and self._pool.dirty:
            self._pool.abandon()
        if self.started and error is None and self._session is not None:
            self._session.unload(self._workers, self._part_bytes)
        # A second interrupt within `abandon` leaves it set: the next call then starts new workers.
        self._pool.dirty = False

    @property
    def warm(self) -> bool:
        """True if workers of an earlier call are up and have not been sent this one."""
        return not self.started and self._pool.running

    @property
    def serving(self) -> bool:
        """True if a worker is up and can compute tasks."""
        return self.started and any(worker.ready for worker in self._workers)

    @property
    def idle(self) -> bool:
        """True if no worker holds an element of the call."""
        return all(one.handshake for one in self._assignments)

    @property
    def own_seconds(self) -> float:
        """Length of the caller's next task beside the workers."""
        fitting = self._job.queue.capacity
        longest = min((self._direct.capacity(one) or fitting for one in self._workers), default=fitting)
        return self._sharing.own_seconds(self._width, longest)

    def stop_assigning(self) -> None:
        """Assign no more tasks."""
        self._most = self._width = 0

    def assign_again(self) -> None:
        """Assign tasks again: those of workers that have ended are computed by others."""
        self._most = self._job.workers
        self.assign_tasks()
        self.step(0)

    def take_back(self) -> bool:
        """Return a task to the queue that no worker has begun, if nothing before it is left; False without one.

        A comparison that no worker has begun is left out.
        """
        out = sorted((one.task.lo, number) for worker in self._workers for number, one in worker.assignments.items())
        for lo, number in out:
            worker = next(worker for worker in self._workers if number in worker.assignments)
            one = worker.assignments[number]
            possible = lo < self._job.limit and not self._job.queue.is_for_workers(one.task)
            taken = possible and worker.take_back(number)
            if taken and not one.handshake:
                self._job.queue.resume(one.task)
            if not one.handshake:
                return taken
        return False

    def assign_tasks(self) -> None:
        """Assign tasks to workers with free slots, and start workers in the place of dead ones."""
        self._width = self._sharing.workers(self._most)
        while len(self._workers) < self._width and not self._job.queue.empty:
            try:
                worker = self._pool.another(self._workers)
            except NoWorkersError as error:
                self._use_fewer(error)
                break
            self._workers.append(worker)
            self._send_session([worker])
        for worker in list(self._workers):
            self._assign_tasks(worker)

    def _use_fewer(self, error: NoWorkersError) -> None:
        """Go on with the workers that there are, since there can be no more; raise `error` if there is none."""
        for worker in [one for one in self._workers if one not in self._pool.workers]:  # it stops if it cannot start
            self._workers.remove(worker)
            self._job.queue.lose(one.task for one in worker.assignments.values() if not one.handshake)
        if not self._workers:
            raise error
        self._most = self._width = len(self._workers)

    def give_up(self, error: NoWorkersError) -> None:
        """Leave all to the caller, and say why there are no workers; raise `error` where only these may compute."""
        settings = self._job.call.settings
        if settings.isolate or settings.needs_killable_workers or self._job.queue.has_lost:
            raise error
        self.started = False
        self._workers, self._most, self._width = [], 0, 0
        self._pool.stop()
        self._job.explain(f"there were no workers: {error}")
        warnings.warn(f"the calling process computed this call alone: {error}", RuntimeWarning, stacklevel=user_level())

    def wake(self) -> None:
        """Make `step` return in another thread."""
        self._pool.wake()

    def start_workers(self) -> None:
        """Start workers, without waiting for them."""
        self._most = self._job.workers
        self._width = self._sharing.workers(self._most)
        self._job.observer.workers_called(self._pool.why)
        setup = self._job.call.settings.setup
        self._set_up = None if setup is None else SetUp.of(setup, self.local_settings)
        self._workers = list(self._pool.start(self._width, self._set_up and self._set_up.mark))

    def start(self) -> None:
        """Start workers and send them the session, unless that has been done."""
        self._workers = [one for one in self._workers if one in self._pool.workers]  # `warm` drops those that ended
        if not self._workers:
            self.start_workers()
        try:
            if self._session is None:
                self.pack_function()
        except BaseException:
            self._workers, self._pool.dirty = [], False  # they know nothing of this call
            raise
        self._watchdog = Watchdog(self._job.call.settings.timeout, self._width, self._job.stepwise)
        self._handshake.start(self._width + self.beside)
        self._send_session(self._workers)
        self.started = True
        self.assign_tasks()

    @property
    def finished(self) -> bool:
        """True if nothing is left that could change the result."""
        job = self._job
        waiting = any(one.task.lo < job.limit and not (one.handshake and job.limit <= 0) for one in self._assignments)
        return not waiting and job.queue.empty

    def step(self, timeout: float | None) -> bool:
        """Wait for messages of workers, act on them, and assign more tasks; return True if there were any."""
        observer = self._job.observer
        since = perf_counter() if observer.active else 0.0
        events = self._pool.wait(self._watchdog.wait_seconds(timeout, self._workers))
        self._watchdog.waited()
        observer.waited(since)
        begun = thread_time()
        for kind, worker in events:
            if worker in self._workers:
                worker.ready &= kind != "death"
                if kind == "refused":
                    self._on_refused(worker)
                    continue
                self._read_messages(worker, most=1 if kind == "message" else ALL)
                if kind == "death" and worker in self._workers:
                    self._on_exit(worker)
            elif worker in self._pool.workers:  # unused by this call, and not dropped just now
                self._pool.poll_idle(worker)
        self._replace_workers()
        self._handshake.check()
        self.feeding += thread_time() - begun
        if self.outcomes > len(self._workers):  # the first ones take longer
            self._job.queue.length.measure_hand_over(self.feeding / self.outcomes)
        return bool(events)

    def _on_refused(self, worker: WorkerHandle) -> None:
        """The system had no process for a worker."""
        error = self._pool.why_refused(worker)
        self._pool.drop(worker)
        self._workers.remove(worker)
        self._use_fewer(error)

    def _replace_workers(self) -> None:
        """Replace workers that exceed the deadline of an element or their memory, and those that are silent."""
        for worker, index in self._watchdog.overdue(self._workers):
            self._kill(worker, index)
        if elapsed := self._watchdog.look(self._workers):
            self._pool.look(self._workers, elapsed)
        for worker in self._watchdog.oversized(self._workers):
            self._pool.retire(worker)
            self._workers.remove(worker)
            self.assign_tasks()
        for worker in self._watchdog.silent(self._workers):
            if self._fault_policy.handle_silence(worker):
                self._kill(worker, worker.silence)

    def _kill(self, worker: WorkerHandle, killed_for: int | Silence) -> None:
        worker.ready = False
        worker.kill_with_stack()
        self._read_messages(worker, killed_for)

    def _read_messages(self, worker: WorkerHandle, killed_for: int | Silence | None = None, most: int = ALL) -> None:
        """Read messages of a worker; `killed_for` is the element or the silence for which it was killed."""
        try:
            while most > 0 or worker.streaming:
                (kind, *content), _ = worker.channel.receive()
                worker.messages += 1
                getattr(self, f"_on_{kind}")(worker, *content)
                most -= 1
            self._assign_tasks(worker)
        except BlockingIOError:
            if killed_for is None:
                self._assign_tasks(worker)
            else:
                self._on_exit(worker, killed_for)
        except ForeignBytesError as error:
            raise error.told(f"worker process {worker.pid}") from None
        except (EOFError, ConnectionError):
            self._on_exit(worker, killed_for)

    def compute_again(
        self, stages: list[tuple[Task, Callable[..., Any]]], seconds: float
    ) -> list[Results | None] | None:
        """Have workers compute blocks once more, for at most so many seconds.

        Each is staged by a function like `Job.stage`. Nothing of it counts: prints and errors are dropped, files cannot
        be written, and what a worker has begun it may go on with until the next call replaces it. Returns None if the
        time was too short, or if the function acts on other processes.
        """
        end, found = perf_counter() + seconds, dict[int, Results | None]()
        idle = [worker for worker in self._workers if worker.ready and not worker.streaming and not worker.retiring]
        if not idle or (self._session is not None and self._session.payload.attachments):
            return None
        waiting = deque(enumerate(stages))
        while len(found) < len(stages) and (left := end - perf_counter()) > 0:
            for worker in idle:
                if waiting and worker in self._workers and worker.free and not worker.assignments and not worker.sender:
                    number, (task, stage) = waiting.popleft()
                    staged = worker.stage(stage, task, self._pool.slot_bytes)
                    worker.send_task(key := next(numbers), staged, True, kind="trial")
                    worker.assignments[key].receive = partial(found.__setitem__, number)
            # A worker that has yet to skip tasks which were taken back, as in a first call, has no free slot so far.
            expected = waiting and any(worker in self._workers for worker in idle)
            if not (expected or any(one.receive for one in self._assignments)):  # their workers have died
                return None
            self.step(left)
        return [found[number] for number in range(len(stages))] if len(found) == len(stages) else None

    def _on_exit(self, worker: WorkerHandle, killed_for: int | Silence | None = None) -> None:
        """Handle a worker's exit: requeue or fail its tasks, and start a replacement."""
        code = self._pool.exit_code(worker)
        self._pool.drop(worker)
        self._workers.remove(worker)
        again = self._fault_policy.handle_exit(worker, code, killed_for)
        if again and any(one.handshake for one in worker.assignments.values()):
            self._handshake.pending = True
        self.assign_tasks()
