"""Any `concurrent.futures.Executor` whose tasks are computed in other processes."""

from __future__ import annotations

import math
import os
import warnings
from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from typing import Any, NamedTuple

import numpy as np

from ..._core.effects.isolated import FirstTask
from ..._core.indexing import Task
from ..._core.options.executors import is_pool
from ..._system.blas import read_threads
from ..._workers.encoding import unpack_error, unpack_task
from ..._workers.pickling.multiprocessing_objects import Attachments, Packed
from ..._workers.pickling.payload import Payload
from ..._workers.remote import BOOTSTRAP, Luggage, Packet, Reply, answer_in_worker, names_for, pack_call
from ..._workers.session import Session, TaskArguments
from ...errors import ReproducibilityWarning, WorkerDiedError, user_level
from ..futures import ExecutorRunner
from ..job.files import FileTasks
from ..job.job import Job
from ..processes.handshake import Handshake
from .faults import Faults, is_lack_of_parwise

# A function of more bytes than this is sent once per process, in place of with each task.
LIGHT_BYTES = 2**16
# Bytes of the arguments of a task of many elements. Dask takes 1.4 ms for a task, and carries 340 MB/s in tasks of
# 1 MB, 1,000 in tasks of 8; it warns of more than 10.
TASK_BYTES = 2**23


class _First(NamedTuple):
    """The first task, which each process computes for the handshake: its arguments, and the parts that it needs."""

    arguments: TaskArguments
    parts: list[int]
    memory: Packet


class RemoteRunner(ExecutorRunner):
    """Computes tasks in processes, on this machine or others; the caller computes the first task too.

    Parameters
    ----------
    size : int or None
        Tasks that the executor computes at a time; None if that is not known.
    """

    def __init__(self, job: Job, executor: Any, size: int | None) -> None:
        if not is_pool(executor):
            job.slot_bytes = TASK_BYTES
        wanted = job.call.settings.workers
        workers = job.workers if size is None else min(size, wanted or size)
        job.files = None if is_pool(executor) else FileTasks(job.call, workers)
        super().__init__(job, executor, workers)
        # Tasks that may be in the executor at most: with fewer workers than it has none can wait there, as it would
        # be computed by another one.
        self._most: float = math.inf if size is None or wanted is None or wanted >= size else wanted
        self._faults = Faults(job, self.name)
        # Tasks that were with a process that died, and are to be computed with no other at the same time.
        self._suspects: deque[Task] = deque()
        self._alone: Task | None = None
        # Processes that have answered, and versions of NumPy that were warned of.
        self._known: set[str] = set()
        self._told: set[str] = set()
        self._first: _First | None = None
        settings = job.call.settings
        verified = settings.verify is not False and not settings.isolate
        self._own = None if settings.isolate else job.queue.next_task()
        if verified and self._own is not None:
            arguments, parts = self._stage(job.first_task)
            self._first = _First(arguments, parts, Packet(arguments.memory, []))
        # This process computes the first task after the function is sent: bits may agree though it is not reproducible.
        call, looks = job.call, verified and not settings.verify
        self._copies = FirstTask().look(call.func, call.args, call.kwargs, prepared=True) if looks else None
        self._threads = settings.blas_threads if isinstance(settings.blas_threads, int) else read_threads()
        payload = Session.pack_for_guest(
            job.kernel, job.shared_layouts, self._threads, settings.setup, job.definitions, job.opened
        )
        if payload.attachments or (self._first is not None and type(self._first.arguments.memory) is Packed):
            # Queues, locks and connections: f acts on other processes, once for each element.
            self._first = None
        self._check(payload.attachments)
        self._session = self._make_packet(payload)
        if self._first is not None:
            self._first = self._first._replace(memory=self._spread(self._first.memory))
        self._parts: dict[int, Packet] = {}
        self._handshake = Handshake(job)
        job.output_replay.doubt_blas()

    @property
    def name(self) -> str:
        """Name of the executor, for messages."""
        return type(self._executor).__name__

    @property
    def finished(self) -> bool:
        """True if no task is left that counts, here or in the executor."""
        suspects = any(one.lo < self._job.limit for one in self._suspects)
        return self._own is None and not suspects and super().finished

    @property
    def max_submitted(self) -> int:
        """Tasks that may be in the executor."""
        return int(min(super().max_submitted, self._most))

    def step(self) -> None:
        """Compute the first task here while the executor computes others, or wait for a finished one."""
        if self._own is None:
            super().step()
        else:
            self.assign_tasks()
            own, self._own = self._own, None
            self._accept_own(self._job.compute_and_accept(own))
        self._handshake.check()

    def _accept_own(self, own: Task) -> None:
        self._faults.done += len(own)
        self._job.show()

    def end(self) -> None:
        """Warn of generators and iterators that the function uses, of which other processes have had copies."""
        whole = self._known and self._job.comparison.disputed is None and self._job.limit == math.inf
        for effect in self._copies.effects() if self._copies is not None and whole else ():
            effect.repeat(self._job.call.func)

    def assign_tasks(self) -> None:
        """Submit tasks until there are enough of them in the executor; suspects one by one."""
        while self._suspects and self._suspects[0].lo >= self._job.limit:
            self._suspects.popleft()
        if not self._suspects:
            super().assign_tasks()
        elif not self._submitted:
            self._alone = self._suspects.popleft()
            self._submit(self._alone)

    def cancel(self) -> None:
        """Cancel tasks that have not begun, and wait for those that may write to `out`: none does after the call."""
        super().cancel()
        if os.getpid() == self._owner and self._job.files is not None and self._job.files.outputs:
            wait([future for future in self._submitted if not future.cancelled()])

    def _submit(self, task: Task) -> None:
        self._send(task, LIGHT_BYTES)

    def _send(self, task: Task, limit: float) -> None:
        """Submit a task, and with it what the process may not have yet and has at most `limit` bytes."""
        arguments, needed = self._stage(task)  # anew each time, rather than keep what is under way
        session, first, parts = self._session, None, dict.fromkeys(needed)
        travels = self._travels(session, limit)
        if self._first is not None:
            travels &= self._travels(self._first.memory, limit)
            first = self._first.arguments._replace(memory=self._first.memory.data)
            parts |= dict.fromkeys(self._first.parts)
        packets = {part: self._part(part) for part in parts}
        sent = {
            part: packet if self._travels(packet, limit) else packet._replace(data=None)
            for part, packet in packets.items()
        }
        luggage = Luggage(session, first, sent) if travels else Luggage(None, None, sent)
        call = pack_call(self._job.definitions.token, luggage, arguments)
        try:
            future = self._start(task, call)
        except BrokenExecutor as error:
            raise self._faults.process_died(self._lowest(task), error) from error
        except RuntimeError as error:  # it was shut down
            raise self._faults.refused(self._lowest(task), error) from error
        self._submitted[future] = task

    def _start(self, task: Task, call: tuple[Any, ...]) -> Future[Any]:
        """Have the executor answer a call."""
        if is_pool(self._executor):
            return self._executor.submit(answer_in_worker, call)
        return self._executor.submit(eval, BOOTSTRAP, names_for(call))

    def _travels(self, packet: Packet, limit: float) -> bool:
        """True if a packet is sent with each task."""
        return len(packet.data) <= limit

    def _make_packet(self, payload: Payload, late: bool = False) -> Packet:
        data = payload.to_bytes()
        return self._spread(
            Packet(data if type(data) is Packed else np.frombuffer(data, np.uint8), payload.table, late)
        )

    def _spread(self, packet: Packet) -> Packet:
        """Have the engine keep what all processes need, if it can."""
        return packet

    def _part(self, part: int) -> Packet:
        found, definitions = self._parts.get(part), self._job.definitions
        if found is None:
            found = self._parts[part] = self._make_packet(definitions.parts[part], definitions.late[part])
        return found

    def _stage(self, task: Task) -> tuple[TaskArguments, list[int]]:
        memory = np.empty(0, np.uint8)

        def grow(nbytes: int) -> Any:
            nonlocal memory
            memory = np.zeros(nbytes, np.uint8)
            return memory.data

        offsets, layouts, several = self._job.stage(task, grow)
        attachments = Attachments()
        for one in several:
            self._check(one)
            attachments.include(one)
        data: Any = Packed.with_attachments(memory.tobytes(), attachments) if attachments else memory
        _, parts = self._job.needed_parts(task)
        return TaskArguments(task.lo, task.hi, offsets, layouts, data), parts

    def _check(self, attachments: Attachments) -> None:
        """Raise a TypeError for connections and locks, unless the executor has parwise's own workers."""
        if attachments and not is_pool(self._executor):
            raise TypeError(
                "connections, sockets, locks and queues of multiprocessing cannot be sent to the processes "
                f"of {self.name}; leave executor out, or pass a parwise.Pool; or use those of a "
                "multiprocessing.Manager()"
            )

    def _lowest(self, task: Task) -> Task:
        return min([task, *self._submitted.values(), *self._suspects], key=lambda one: one.lo)

    def _collect(self, future: Future[Any], task: Task) -> None:
        if task.lo >= self._job.limit:
            return
        try:
            reply = Reply(*future.result())
        except (Exception, CancelledError) as error:
            self._on_fault(task, error)
            return
        if reply.kind == "missing":
            # A process that does not know this call is sent the function, once.
            self._send(task, math.inf)
        elif reply.kind == "unread":
            self._read_here(reply.reason, task)
        elif reply.kind == "unfit":
            raise self._faults.unfit(reply)
        elif reply.kind == "failed":
            problem = unpack_error(reply.error)
            problem.add_note(f"in process {reply.process} of {self.name}, which was loading the function")
            raise problem
        else:
            self._accept(task, reply)

    def _read_here(self, why: str, task: Task) -> None:
        """Send a task whose process could not read its arguments, and read all others here too."""
        if self._job.files is not None:
            self._job.files.give_up(self._job.queue, why)
        self._job.queue.give_back([task])

    def _accept(self, task: Task, reply: Reply) -> None:
        self._compare_numpy(reply)
        if reply.handshake is not None:
            self._handshake.receive(unpack_task(*reply.handshake, 0)[0])
        outcome, output = unpack_task(*reply.outcome, task.lo)
        self._job.output_replay.record(task.lo, output)
        # While a process loads OpenBLAS its threads spin: that the first task of a process used them says nothing.
        if outcome.threaded and reply.process in self._known:
            self._reduce_tasks()
        self._known.add(reply.process)
        self._faults.done += len(task)
        self._job.accept(task, outcome, reply.process)
        self._job.repeat()

    def _reduce_tasks(self) -> None:
        """Have fewer tasks in the executor, since BLAS uses threads in each: they should not outnumber workers."""
        if not isinstance(self._threads, int):
            self._most = min(self._most, max(1, self.workers // max(self._threads.values(), default=1)))

    def _compare_numpy(self, reply: Reply) -> None:
        theirs = reply.versions["NumPy"]
        if theirs != np.__version__ and theirs not in self._told:
            self._told.add(theirs)
            warnings.warn(
                f"process {reply.process} of {self.name} has NumPy {theirs}, and this one {np.__version__}: "
                "results may have different bits; install the same version in both",
                ReproducibilityWarning,
                stacklevel=user_level(),
            )

    def _on_fault(self, task: Task, error: BaseException) -> None:
        """Handle what the executor raised in place of a reply."""
        if isinstance(error, BrokenExecutor):
            raise self._faults.process_died(self._lowest(task), error) from error
        if isinstance(error, CancelledError):
            raise self._faults.cancelled(self._lowest(task), error)
        if is_lack_of_parwise(error):
            raise self._faults.lacking(error)
        if is_pool(self._executor) and not isinstance(error, WorkerDiedError):
            raise error  # of the pool's initializer
        self._lose(task, error if isinstance(error, WorkerDiedError) else self._faults.task_failed(task, error))

    def _lose(self, task: Task, error: Exception) -> None:
        """End the call for a task that was lost; or leave a gap, where that task alone ends its process."""
        job = self._job
        if isinstance(error, WorkerDiedError):
            error.index = job.call.public_index(task.lo)
            behind = f", or {len(task) - 1} behind it" if len(task) > 1 else ""
            error.add_note(job.call.name(task.lo, task.hi) + behind)
        if not job.call.settings.ignore:
            job.fail(task.lo, error)
        elif task == self._alone:
            job.skip(task, error)
        elif job.call.vectorized:
            self._suspects.append(task)
        else:  # another one at the same process may have been the reason, or one of them
            self._suspects.extend(Task(k, k + 1) for k in range(task.lo, task.hi))
