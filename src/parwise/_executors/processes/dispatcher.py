"""Dispatches the tasks of one job to worker processes, collects outcomes, replaces dead workers."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

from ..._clock import monotonic, perf_counter, thread_time
from ..._core.indexing import Task
from ..._core.results import Results
from ..._system.blas import ThreadCounts, read_threads, workers_beside
from ..._system.library_settings import LocalSettings
from ..._system.surroundings import CallerState
from ..._workers.pool.silence import Silence
from ..._workers.pool.watchdog import Watchdog
from ..._workers.pool.worker_handle import Assignment, WorkerHandle
from ..._workers.pool.worker_pool import WorkerPool
from ..._workers.protocol import ForeignBytesError
from ..._workers.session import PackedSession, SetUp, send_definitions
from ..._workers.shared_memory import SLOTS
from ..job import Job
from .faults import FaultPolicy
from .receiver import Receiver
from .sharing import Sharing

_numbers = itertools.count(1)
ALL = 10**9  # messages; `step` reads one, as others wake it again: to look for one that is not there takes 3 us


class Dispatcher(Receiver):
    """Dispatches the tasks of one job to worker processes; a context manager.

    One thread at a time uses it. An exception that leaves its ``with`` block
    ends the workers, since their state is then unknown.

    Parameters
    ----------
    pool : WorkerPool
        The caller holds its `lock`.
    """

    def __init__(self, job: Job, pool: WorkerPool) -> None:
        super().__init__(job)
        self._pool = pool
        self._workers: list[WorkerHandle] = []
        self.started = False
        # CPU seconds that sending tasks and collecting outcomes took.
        self.feeding = 0.0
        self._fault_policy = FaultPolicy(job)
        self._threads: ThreadCounts = 1
        self._sharing = Sharing(job.call, job.queue, job.stepwise)
        # Workers that may be used at most, and those that are.
        self._most = self._width = 0
        # True if the caller computes too: one worker then gets no tasks and leaves it a CPU.
        self.caller_computes = False
        self._set_up: SetUp | None = None
        self._session: PackedSession | None = None
        # Size of the largest part of definitions that a worker was sent.
        self._part_bytes = 0
        # Thread counts that belong to the caller's thread, if the helper thread starts the workers.
        self.local_threads: dict[str, int] | None = None
        # Settings of libraries that belong to the caller's thread, likewise.
        self.local_settings: LocalSettings | None = None

    def __enter__(self) -> Dispatcher:
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
    def _assignments(self) -> Iterator[Assignment]:
        """Tasks that workers hold."""
        return (one for worker in self._workers for one in worker.assignments.values())

    @property
    def beside(self) -> bool:
        """True as long as the caller goes on computing beside the workers."""
        return self._sharing.beside

    @property
    def own_seconds(self) -> float:
        """Length of the caller's next task beside the workers."""
        return self._sharing.own_seconds(self._width)

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
            worker = self._pool.another(self._workers)
            self._workers.append(worker)
            self._send_session([worker])
        for worker in list(self._workers):
            self._assign_tasks(worker)

    def wake(self) -> None:
        """Make `step` return in another thread."""
        self._pool.wake()

    def start_workers(self) -> None:
        """Start workers, without waiting for them."""
        self._most = self._job.workers
        self._width = self._sharing.workers(self._most)
        self._job.observer.workers_called()
        setup = self._job.call.settings.setup
        self._set_up = None if setup is None else SetUp.of(setup, self.local_settings)
        self._workers = list(self._pool.start(self._width, self._set_up and self._set_up.mark))

    def pack_function(self) -> None:
        """Pickle the function; workers come up meanwhile."""
        settings = self._job.call.settings
        # A thread count other than the caller's may change bits, of elements that no handshake compares.
        counts = read_threads() | (self.local_threads or {})
        self._threads = settings.blas_threads if isinstance(settings.blas_threads, int) else counts
        self._call = next(self._pool.calls)
        call = self._job.call
        if call.feed is None and not all(one.loaded for one in call.inputs):
            from ..files import FileTasks

            self._job.files = FileTasks.of_own_workers(call, self._job.workers, self._job.queue)
        self._pack(self._job.state)
        assert self._session is not None
        self._job.output_replay.doubt_blas()
        if self._session.payload.attachments:  # queues, locks: f acts on other processes, once for each element
            self._handshake.pending = False

    def _pack(self, state: CallerState | None) -> None:
        job = self._job
        arguments = job.shared_layouts, self._direct.places
        self._session = PackedSession.of(
            self._call, job.kernel, arguments, self._threads, job.definitions, state, self.local_settings, job.opened
        )

    def _send_session(self, workers: list[WorkerHandle]) -> None:
        assert self._session is not None
        self._session.send(workers, self._set_up)

    def start(self) -> None:
        """Start workers and send them the session, unless that has been done."""
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
                self._read_messages(worker, most=1 if kind == "message" else ALL)
                if kind == "death" and worker in self._workers:
                    self._on_exit(worker)
            elif worker in self._pool.workers:  # unused by this call, and not dropped just now
                self._pool.poll_idle(worker)
        self._replace_workers()
        self._handshake.check()
        self.feeding += thread_time() - begun
        return bool(events)

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

    def _assign_tasks(self, worker: WorkerHandle) -> None:
        """Send a worker chunks and tasks, as far as it has free slots."""
        try:
            worker.send_chunks()
            self._assign(worker)
        except ConnectionError:
            worker.ready = False  # dead; `step` sees its exit

    def _reduce_workers(self) -> None:
        """Assign tasks to fewer workers, since BLAS uses threads in each.

        OpenBLAS waits by spinning: with more threads than CPUs, 200 x 200
        solves took fifteen times as long as in the plain loop.
        """
        if not isinstance(self._threads, int):
            self._most = self._width = workers_beside(self._threads, self._width)

    def _assign(self, worker: WorkerHandle) -> None:
        """Send a worker tasks, as far as it has free slots."""
        if not (self.started and worker.ready and worker.sender is None) or worker.retiring:
            return
        queue = self._job.queue
        if self._handshake.due and worker.free:
            self._send_handshake(worker)
        if len(self._workers) > self._limit <= sum(bool(one.assignments) for one in self._workers if one is not worker):
            return
        # Results as they come are not to wait behind a task that takes long.
        most = SLOTS if queue.queue_ahead and self._job.ordered else 1
        while worker.sender is None and worker.free and len(worker.assignments) < most:
            task = self._next_task(worker)
            if task is None:
                break
            self._send_task(worker, task)
        if queue.empty and not worker.assignments and self._has_cpu and self._handshake.fits(self._seconds_left):
            self._send_handshake(worker)

    def _next_task(self, worker: WorkerHandle) -> Task | None:
        """The next task of a worker: the last one, if the caller computes from the first on."""
        queue, workers = self._job.queue, len(self._workers)
        if self.beside:
            return queue.next_task(workers=workers + 1, lost=True, last=True)
        return queue.next_task(workers=workers, lost=True, capacity=self._direct.capacity(worker))

    @property
    def _limit(self) -> int:
        """Workers that may hold tasks at a time."""
        return min(self._width, max(1, self._width - (self.caller_computes and not self.beside)))

    @property
    def _has_cpu(self) -> bool:
        """True if a CPU is free for a worker without a task; the caller uses one until its first element is done."""
        busy = sum(bool(worker.assignments) for worker in self._workers)
        return self._job.first is not None or busy + 1 < self._width

    @property
    def _seconds_left(self) -> float:
        """Seconds for which the other workers will be busy, if their elements take as long as those so far."""
        pace, now = self._job.queue.pace or 0.0, monotonic()
        ends = (one.since + pace * len(one.task) for one in self._assignments if not one.handshake)
        return max(0.0, max(ends, default=now) - now)

    def _send_handshake(self, worker: WorkerHandle) -> None:
        """Send a worker the first task, to compare its results with the caller's."""
        self._handshake.mark_sent()
        self._send_task(worker, self._job.first_task, handshake=True)

    def _send_task(self, worker: WorkerHandle, task: Task, handshake: bool = False) -> None:
        """Copy the arguments of a task to a slot and send the worker a message."""
        if (state := self._job.state_for(task)) is not worker.state:
            self._pack(state)
            self._send_session([worker])
        staged = self._direct.stage(worker, task) or worker.stage(self._job.stage, task, self._pool.slot_bytes)
        if handshake and staged.attachments:  # a second call would take or send a message too many
            worker.unstage(staged)
            return
        definitions, parts = self._job.needed_parts(task)
        if parts:
            self._part_bytes = max(self._part_bytes, send_definitions(worker, definitions, parts))
        self._job.observer.served()
        rows = () if handshake else self._direct.offer(worker, staged)
        stores = not handshake and self._job.files is not None and bool(self._job.files.outputs) and staged.slot >= 0
        worker.send_task(next(_numbers), staged, handshake, rows, stores, self._job.task_message)

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
                    worker.send_task(key := next(_numbers), staged, True, kind="trial")
                    worker.assignments[key].receive = partial(found.__setitem__, number)
            if not any(one.receive for one in self._assignments):  # their workers have died
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
