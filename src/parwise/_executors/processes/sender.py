"""Sends workers the function of a call, and tasks, as far as they have free slots."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..._clock import monotonic
from ..._core.effects.isolated import FirstTask, Look
from ..._core.indexing import Task
from ..._system.blas import ThreadCounts, read_threads, workers_beside
from ..._system.library_settings import LocalSettings
from ..._system.surroundings import CallerState
from ..._workers.pickling.sent_definitions import Definitions
from ..._workers.pool.worker_handle import Assignment, WorkerHandle
from ..._workers.pool.worker_pool import WorkerPool
from ..._workers.session import PackedSession, SetUp, send_definitions
from ..._workers.shared_memory import SLOTS
from ..job.job import Job
from .receiver import Receiver
from .sharing import Sharing

# Those of tasks.
numbers = itertools.count(1)


class Sender(Receiver):
    """Decides which worker gets which task, and sends it.

    Attributes
    ----------
    started : bool
        True once workers have been sent the function.
    caller_computes : bool
        True if the caller computes too: one worker then gets no tasks and
        leaves it a CPU.
    local_threads : dict, optional
        Thread counts that belong to the caller's thread, if the helper thread
        starts the workers.
    local_settings : LocalSettings, optional
        Settings of libraries that belong to the caller's thread, likewise.
    look : Look, optional
        Generators and iterators of the function, as workers get copies of them.
    """

    def __init__(self, job: Job, pool: WorkerPool) -> None:
        super().__init__(job)
        self._pool = pool
        self._workers: list[WorkerHandle] = []
        self.started = False
        self._threads: ThreadCounts = 1
        self._sharing = Sharing(job.call, job.queue, job.stepwise)
        # Workers that may be used at most, and those that are.
        self._most = self._width = 0
        self.caller_computes = False
        self._set_up: SetUp | None = None
        self._session: PackedSession | None = None
        # Size of the largest part of definitions that a worker was sent.
        self._part_bytes = 0
        self.local_threads: dict[str, int] | None = None
        self.local_settings: LocalSettings | None = None
        self.look: Look | None = None

    @property
    def _assignments(self) -> Iterator[Assignment]:
        """Tasks that workers hold."""
        return (one for worker in self._workers for one in worker.assignments.values())

    @property
    def beside(self) -> bool:
        """True as long as the caller goes on computing beside the workers."""
        return self._sharing.beside

    def pack_function(self) -> None:
        """Pickle the function; workers come up meanwhile."""
        call = self._job.call
        # A thread count other than the caller's may change bits, of elements that no handshake compares.
        counts, told = read_threads() | (self.local_threads or {}), call.settings.blas_threads
        self._threads = told if isinstance(told, int) else counts
        self._call = next(self._pool.calls)
        if call.feed is None and not all(one.loaded for one in call.inputs):
            from ..job.files import FileTasks

            self._job.files = FileTasks.of_own_workers(call, self._job.workers, self._job.queue)
        self._look_at_copies()
        self._pack(self._job.state)
        assert self._session is not None
        self._job.output_replay.doubt_blas()
        if self._session.payload.attachments:  # queues, locks: f acts on other processes, once for each element
            self._handshake.pending = False

    def _look_at_copies(self) -> None:
        """Look at what the function holds, of which workers get copies.

        Where this process computes an element only after this, the copies of workers begin as it does, and return its
        bits: no handshake shows that all of them draw the same numbers.
        """
        call = self._job.call
        if call.settings.verify is None and not call.settings.isolate:
            self.look = FirstTask().look(call.func, call.args, call.kwargs, prepared=True)

    def _pack(self, state: CallerState | None) -> None:
        job = self._job
        arguments = job.shared_layouts, self._direct.places
        # One of several sessions is whole by itself: in a worker it takes the place of another, or is its first.
        definitions = job.definitions if state is None else Definitions()
        self._session = PackedSession.of(
            self._call, job.kernel, arguments, self._threads, definitions, state, self.local_settings, job.opened
        )

    def _send_session(self, workers: list[WorkerHandle]) -> None:
        assert self._session is not None
        self._session.send(workers, self._set_up)

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
        if not (self._handshake.due_last and queue.empty) or worker.assignments:
            return
        if self._has_cpu and self._handshake.fits(self._seconds_left):
            self._send_handshake(worker)

    def _next_task(self, worker: WorkerHandle) -> Task | None:
        """The next task of a worker: the last one, if the caller computes from the first on."""
        queue, workers = self._job.queue, len(self._workers)
        beside, capacity = self.beside, self._direct.capacity(worker)
        return queue.next_task(workers=workers + beside, lost=True, last=beside, capacity=capacity)

    @property
    def _limit(self) -> int:
        """Workers that may hold tasks at a time."""
        return min(self._width, max(1, self._width - (self.caller_computes and not self.beside)))

    @property
    def _has_cpu(self) -> bool:
        """True if a CPU is free for a worker without a task; the caller uses one until its first element is done."""
        busy = sum(bool(worker.assignments) for worker in self._workers)
        return self._job.comparison.results is not None or busy + 1 < self._width

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
        worker.send_task(next(numbers), staged, handshake, rows, stores, self._job.task_message)
