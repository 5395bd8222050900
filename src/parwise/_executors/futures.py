"""Any `concurrent.futures.Executor`, and Dask through the executor of its client."""

from __future__ import annotations

import math
import os
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import Any

from .._clock import perf_counter
from .._core.indexing import Task
from .._core.settings import is_pool
from .._system.blas import read_threads
from .._workers.encoding import unpack_task
from .._workers.pickling.multiprocessing_objects import Attachments, Packed
from .._workers.pickling.payload import Payload
from .._workers.remote import MISSING, UNREAD, Luggage, Packet, compute
from .._workers.session import Session, TaskArguments
from ..errors import WorkerDiedError
from .files import FileTasks
from .job import Job
from .processes.handshake import Handshake

# Length of a task: to send one to another machine takes milliseconds.
TASK_SECONDS = 0.1
# A function of more bytes than this is sent once per process, in place of with each task.
LIGHT_BYTES = 2**16


def _packet(payload: Payload, late: bool = False) -> Packet:
    return Packet(payload.to_bytes(), payload.table, late)


class ExecutorRunner:
    """Submits tasks of one job to an executor and collects their outcomes.

    Parameters
    ----------
    workers : int
        Tasks that the executor computes at a time.
    """

    task_seconds = TASK_SECONDS

    def __init__(self, job: Job, executor: Executor, workers: int) -> None:
        job.open()
        self._job = job
        self._executor = executor
        self._owner = os.getpid()
        self.workers = max(1, workers)
        self._max_submitted = 2 * self.workers
        self._submitted: dict[Future[Any], Task] = {}

    @property
    def finished(self) -> bool:
        """True if no task is left, here or in the executor."""
        return not self._submitted and self._job.queue.empty

    def step(self) -> None:
        """Submit tasks, and wait for a finished one."""
        self.assign_tasks()
        if self._submitted:
            since = perf_counter()
            done, _ = wait(self._submitted, return_when=FIRST_COMPLETED)
            self._job.observer.waited(since)
            for future in done:
                self._collect(future, self._submitted.pop(future))
        self._job.show()

    def assign_tasks(self) -> None:
        """Submit tasks until each worker has two."""
        while len(self._submitted) < self._max_submitted:
            task = self._job.queue.next_task(self.task_seconds, self.workers)
            if task is None:
                return
            self._submit(task)

    def poll(self) -> None:
        """Collect finished tasks and submit new ones, without waiting."""
        for future in [future for future in self._submitted if future.done()]:
            self._collect(future, self._submitted.pop(future))
        self.assign_tasks()

    def cancel(self) -> None:
        """Cancel tasks that have not begun, and wait for none."""
        if os.getpid() == self._owner:  # not in a child that was forked meanwhile
            for future in self._submitted:
                future.cancel()

    def _submit(self, task: Task) -> None:
        raise NotImplementedError

    def _collect(self, future: Future[Any], task: Task) -> None:
        raise NotImplementedError


class RemoteRunner(ExecutorRunner):
    """Computes tasks in processes, on this machine or others; the caller computes the first task too."""

    def __init__(self, job: Job, executor: Executor, workers: int) -> None:
        job.files = files = None if is_pool(executor) else FileTasks(job.call, workers)
        super().__init__(job, executor, workers)
        # Arguments of tasks, and the parts of definitions that they need.
        self._staged: dict[Task, tuple[TaskArguments, list[int]]] = {}
        # Those of the first task, which each process computes for the handshake.
        self._first: tuple[TaskArguments, list[int]] | None = None
        settings = job.call.settings
        verified = settings.verify is not False and not settings.isolate
        self._own = None if settings.isolate else job.queue.next_task()
        if verified and self._own is not None:
            self._first = self._stage(job.first_task)
        self._threads = settings.blas_threads if isinstance(settings.blas_threads, int) else read_threads()
        opened = ([], []) if files is None else (files.inputs, files.outputs)
        payload = Session.pack_for_guest(
            job.kernel, job.shared_layouts, self._threads, settings.setup, job.definitions, opened
        )
        if payload.attachments or (self._first is not None and type(self._first[0].memory) is Packed):
            # Queues, locks and connections: f acts on other processes, once for each element.
            self._first = None
        self._check(payload.attachments)
        self._session = _packet(payload)
        self._parts: dict[int, Packet] = {}
        self._handshake = Handshake(job)
        job.output_replay.doubt_blas()

    @property
    def finished(self) -> bool:
        """True if no task is left, here or in the executor."""
        return self._own is None and super().finished

    def step(self) -> None:
        """Compute the first task here while the executor computes others, or wait for a finished one."""
        if self._own is None:
            super().step()
        else:
            self.assign_tasks()
            own, self._own = self._own, None
            self._job.compute_and_accept(own)
            self._job.show()
        self._handshake.check()

    def cancel(self) -> None:
        """Cancel tasks that have not begun, and wait for those that may write to `out`: none does after the call."""
        super().cancel()
        if os.getpid() == self._owner and self._job.files is not None and self._job.files.outputs:
            wait([future for future in self._submitted if not future.cancelled()])

    def _submit(self, task: Task) -> None:
        self._staged[task] = self._stage(task)
        self._send(task, LIGHT_BYTES)

    def _send(self, task: Task, limit: float) -> None:
        """Submit a task, and with it what the process may not have yet and has at most `limit` bytes."""
        arguments, needed = self._staged[task]
        session = self._session if len(self._session.data) <= limit else None
        first, parts = None, dict.fromkeys(needed)
        if session is not None and self._first is not None:
            first = self._first[0]
            parts |= dict.fromkeys(self._first[1])
        packets = {part: self._packet(part) for part in parts}
        sent = {part: packet if len(packet.data) <= limit else None for part, packet in packets.items()}
        try:
            luggage = Luggage(session, first, sent)
            future = self._executor.submit(compute, self._job.definitions.token, luggage, arguments)
        except BrokenExecutor as error:
            raise self._process_died(task, error) from error
        self._submitted[future] = task

    def _packet(self, part: int) -> Packet:
        found, definitions = self._parts.get(part), self._job.definitions
        if found is None:
            found = self._parts[part] = _packet(definitions.parts[part], definitions.late[part])
        return found

    def _stage(self, task: Task) -> tuple[TaskArguments, list[int]]:
        memory = bytearray()

        def grow(nbytes: int) -> bytearray:
            memory.extend(bytes(nbytes))
            return memory

        offsets, layouts, several = self._job.stage(task, grow)
        attachments = Attachments()
        for one in several:
            self._check(one)
            attachments.include(one)
        data = Packed.with_attachments(bytes(memory), attachments)
        _, parts = self._job.needed_parts(task)
        return TaskArguments(task.lo, task.hi, offsets, layouts, data), parts

    def _check(self, attachments: Attachments) -> None:
        """Raise a TypeError for connections and locks, unless the executor has parwise's own workers."""
        if attachments and not is_pool(self._executor):
            raise TypeError(
                "connections, sockets, locks and queues of multiprocessing cannot be sent to the processes of "
                f"{type(self._executor).__name__}; use executor='processes' or a parwise.Pool, or take those of a "
                "multiprocessing.Manager()"
            )

    def _collect(self, future: Future[Any], task: Task) -> None:
        try:
            reply = future.result()
        except BrokenExecutor as error:
            raise self._process_died(task, error) from error
        except WorkerDiedError as error:  # parwise's own pool starts another one
            del self._staged[task]
            self._lose(task, error)
            return
        if reply == MISSING:
            # A process that does not know this call is sent the function, once.
            self._send(task, math.inf)
            return
        if isinstance(reply, str):
            self._read_here(reply.removeprefix(UNREAD), task)
            return
        del self._staged[task]
        (head, buffers), handshake, where = reply
        if handshake is not None:
            self._handshake.receive(unpack_task(handshake[0], handshake[1], 0)[0])
        outcome = unpack_task(head, buffers, task.lo)[0]
        if outcome.threaded and not isinstance(self._threads, int):
            # BLAS uses threads in each process: fewer tasks at a time, so that threads do not outnumber workers.
            self._max_submitted = max(1, self.workers // max(self._threads.values(), default=1))
        self._job.accept(task, outcome, where)

    def _read_here(self, why: str, task: Task) -> None:
        """Send a task whose process could not read its arguments, and read all others here too."""
        if self._job.files is not None:
            self._job.files.give_up(self._job.queue, why)
        del self._staged[task]
        self._job.queue.give_back([task])

    def _lose(self, task: Task, error: WorkerDiedError) -> None:
        job = self._job
        error.index = job.call.public_index(task.lo)
        behind = f", or {len(task) - 1} behind it" if len(task) > 1 else ""
        error.add_note(job.call.name(task.lo, task.hi) + behind)
        if job.call.settings.ignore:
            job.skip(task, error)
        else:
            job.fail(task.lo, error)

    def _process_died(self, task: Task, cause: BaseException) -> WorkerDiedError:
        lowest = min([task, *self._submitted.values()], key=lambda one: one.lo)
        error = WorkerDiedError(
            f"a process of {type(self._executor).__name__} died; the lowest unfinished work was "
            f"{self._job.call.name(lowest.lo, lowest.hi)} ({cause})"
        )
        error.index = self._job.call.public_index(lowest.lo)
        return error
