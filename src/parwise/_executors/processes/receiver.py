"""Receives the answers of workers: outcomes of tasks, what they have printed, and errors before the first task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ..._core.results import owned
from ..._workers.direct.job import DirectJob, with_written
from ..._workers.direct.transfer import Extent
from ..._workers.encoding import unpack_error, unpack_task
from ..._workers.pool.worker_handle import WorkerHandle
from ..._workers.protocol import ChunkReceiver, buffers_in, verified
from ..._workers.worker.output_capture import unpack_events
from ..job.job import Job
from .handshake import Handshake


class Receiver(ABC):
    """Handles the messages of workers, each in the method of its name.

    Attributes
    ----------
    computed : int
        Elements that workers have computed.
    outcomes : int
        Tasks that they have computed.
    threaded : bool
        True if threads of BLAS or OpenMP took part in one.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._handshake = Handshake(job)
        self._direct = DirectJob(job)
        # Number of the call, once its function is packed.
        self._call = 0
        self.computed = self.outcomes = 0
        self.threaded = False

    def _on_ready(self, worker: WorkerHandle, direct: bool) -> None:
        worker.hear("ready", direct)

    def _on_output(self, worker: WorkerHandle, number: int, packed: bytes) -> None:
        assignment = worker.assignments.get(number)
        if assignment is None:  # a thread that the function left behind
            self._job.output_replay.record(0, unpack_events(packed))
        elif not assignment.handshake:
            self._job.output_replay.record(assignment.task.lo, unpack_events(packed))

    def _on_slot_free(self, worker: WorkerHandle, slot: int) -> None:
        worker.free_slot(slot)

    def _on_unread(self, worker: WorkerHandle, number: int, slot: int, why: str) -> None:
        if self._job.files is not None:
            self._job.files.give_up(self._job.queue, why)
        self._handshake.pending |= self._direct.take_back_unread(worker, number, slot).handshake

    def _on_done(
        self, worker: WorkerHandle, number: int, slot: int, header: bytes, extent: Extent, *sizes: Any
    ) -> None:
        self._receive_outcome(worker, number, header, extent, buffers_in(worker.slots.outputs[slot], *sizes))
        worker.free.append(slot)

    def _on_done_in_chunks(self, worker: WorkerHandle, *content: Any) -> None:
        *message, sizes, checks = content
        worker.receiver = ChunkReceiver([np.empty(size, np.uint8) for size in sizes], *message, checks)
        self._receive_chunked_outcome(worker)

    def _on_chunk(self, worker: WorkerHandle, half: int, nbytes: int) -> None:
        assert worker.receiver is not None
        worker.receiver.receive(worker.slots.stream[half][:nbytes])
        worker.channel.send("chunk_ack", half)
        self._receive_chunked_outcome(worker)

    def _receive_chunked_outcome(self, worker: WorkerHandle) -> None:
        """Take the outcome of a task if all chunks of it have come; an empty one has none."""
        receiver = worker.receiver
        if receiver is not None and receiver.complete:
            worker.receiver = None
            number, slot, header, extent, checks = receiver.message
            buffers = [verified(one.data, check) for one, check in zip(receiver.buffers, checks, strict=True)]
            self._receive_outcome(worker, number, header, extent, buffers)
            if slot >= 0:
                worker.free.append(slot)

    def _on_load_failed(self, worker: WorkerHandle, call: int, packed: bytes) -> None:
        if call == self._call:
            error = unpack_error(packed)
            error.add_note("while a worker process was loading the function and its arguments")
            raise error

    def _on_prepare_failed(self, worker: WorkerHandle, note: str, packed: bytes) -> None:
        error = unpack_error(packed)
        error.add_note(note)
        raise error

    def _receive_outcome(self, worker: WorkerHandle, number: int, header: bytes, extent: Extent, buffers: Any) -> None:
        """Accept the outcome of a task, whose arrays are in `buffers` for now, or written where they belong."""
        assignment = worker.assignments.pop(number)
        worker.has_computed = True
        self.outcomes += 1
        if assignment.handshake and worker.channel.has_arrived:  # connections, which are never alike
            worker.channel.close_arrived()
            return
        if not header:  # too long for a message
            header, buffers = bytes(buffers[0]), buffers[1:]
        outcome, output = unpack_task(header, with_written(buffers, assignment, extent), extent[0])
        worker.channel.close_arrived()
        if assignment.receive is not None:
            assignment.receive(None if outcome.results is None or outcome.error else owned(outcome.results))
            return
        if assignment.handshake:
            self._handshake.receive(outcome)
            return
        self._job.output_replay.record(assignment.task.lo, output)
        if outcome.threaded:
            self.threaded = True
            self._reduce_workers()
        self.computed += self._direct.accept(assignment, extent, outcome, worker.pid)

    @abstractmethod
    def _reduce_workers(self) -> None:
        """Use fewer workers, since BLAS uses threads in each."""
