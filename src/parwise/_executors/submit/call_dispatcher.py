"""Gives submitted calls to workers, and takes back those that a long one holds up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..._clock import monotonic, sleep
from ..._core.indexing import Task
from ..._workers.direct.transfer import Extent
from ..._workers.pool.silence import Silence
from ..._workers.pool.worker_handle import Assignment, WorkerHandle
from ..._workers.pool.worker_pool import WorkerPool
from ..._workers.worker.calls import CallLog, unpack_answer
from ..processes.dispatcher import Dispatcher
from .submit_job import SubmitJob

# A call that takes longer holds up others of its worker: they are taken back, and results before it are fetched.
HELD_SECONDS = 0.005


class CallDispatcher(Dispatcher):
    """Dispatches batches of submitted calls.

    The task of an assignment shrinks, to the calls that have no result yet and have not been taken back.
    """

    def __init__(self, job: SubmitJob, pool: WorkerPool) -> None:
        super().__init__(job, pool)
        self._calls = job
        # Workers at a long call; they get no other calls.
        self._late: set[WorkerHandle] = set()

    def step(self, timeout: float | None) -> bool:
        """Wait for messages as `Dispatcher` does, and look after workers that hold several calls."""
        # Not where all workers are at long calls.
        pause = len(self._late) < len(self._workers) and self._calls.items.pause(len(self._workers))
        if pause and not super().step(0):
            sleep(pause)
        holding = any(sum(len(one.task) for one in worker.assignments.values()) > 1 for worker in self._workers)
        if pause or holding:
            timeout = 0 if pause else min(HELD_SECONDS, timeout or HELD_SECONDS)
        found = super().step(timeout)
        if pause or holding:
            self._relieve()
        return found

    def _relieve(self) -> None:
        """Take back calls from workers that are at a long one."""
        now = monotonic()
        for worker in self._workers:
            since = max((one.since for one in worker.assignments.values()), default=now)
            if now - max(since, worker.since) > HELD_SECONDS:
                self._late.add(worker)
                self._fetch(worker)
                self._take_back(worker)
        self.assign_tasks()

    def _fetch(self, worker: WorkerHandle) -> None:
        """Accept results that a worker has not sent yet."""
        for number, one in worker.assignments.items():
            if one.slot >= 0 and len(one.task):
                log = CallLog(worker.slots.outputs[one.slot], worker.channel.cookie, number)
                self._accept(one, log.read())

    def _take_back(self, worker: WorkerHandle) -> None:
        """Take back the calls of a worker that it has not begun, but for the next one."""
        assignments = list(worker.assignments.values())
        for one in reversed(assignments):
            hi, claim = one.task.hi, worker.slots.tasks[one.slot]
            least = one.task.lo + (one is assignments[0])
            while hi > least and claim.take():
                hi -= 1
            taken, one.task = Task(hi, one.task.hi), Task(one.task.lo, hi)
            self._calls.items.give_back([taken])

    def _assign(self, worker: WorkerHandle) -> None:
        if worker not in self._late:
            super()._assign(worker)

    def _next_task(self, worker: WorkerHandle) -> Task | None:
        return self._calls.items.next_task(len(self._workers))

    def _receive_outcome(
        self, worker: WorkerHandle, number: int, header: bytes, extent: Extent, buffers: list[Any]
    ) -> None:
        one = worker.assignments.pop(number)
        self._late.discard(worker)
        worker.has_computed, worker.answered = True, number
        if not header:  # too long for a message
            header, *buffers = (bytes(buffers[0]), *buffers[1:])
        seconds, threaded, results, output = unpack_answer(header, buffers)
        if results:
            self._calls.items.measure(len(results), seconds)
        self._calls.output_replay.record(one.task.lo, output)
        self._accept(one, results)
        worker.channel.close_arrived()
        self._calls.items.give_back([one.task])  # the rest of a batch that took too long
        if threaded:
            self._reduce_workers()

    def _accept(self, one: Assignment, results: Iterable[Any]) -> None:
        """Accept results of calls from the first one on, some of which may have been accepted before."""
        self._calls.repeat()  # before a thread that waits for a result goes on
        lo, hi = one.task.lo, one.task.hi
        for index, packed in enumerate(results, one.first):
            if index >= lo:
                self._calls.answer(index, packed)
                one.task = Task(index + 1, hi)
        self._calls.output_replay.close(lo, one.task.lo)

    def _on_exit(self, worker: WorkerHandle, killed_for: int | Silence | None = None) -> None:
        self._fetch(worker)
        self._late.discard(worker)
        super()._on_exit(worker, killed_for)
