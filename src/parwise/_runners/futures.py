"""Any `concurrent.futures.Executor`, and Dask through the one that its client gives."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from typing import Any

from .._blas import read_threads
from .._environment import read_numerics, read_surroundings
from .._job import Job
from .._kernel import Outcome
from .._options import is_dask_client
from .._parcel import unpack
from .._payload import dump
from .._remote import MISSING, Parcel, compute
from .._results import Results
from .._split import Task
from ..errors import WorkerDiedError
from . import threads

# Handing a task to another machine takes milliseconds.
TASK_SECONDS = 0.1
# A function of more bytes than this is sent once per process, not per task.
LIGHT_BYTES = 2**16


def run(job: Job) -> None:
    """Compute all tasks in the executor that the user gave."""
    executor = job.call.settings.executor
    if isinstance(executor, ThreadPoolExecutor):
        threads.run_in(job, executor.submit, executor._max_workers)
    elif is_dask_client(executor):
        # The same element twice must be two computations: pure=False.
        with executor.get_executor(pure=False) as submitter:
            _Dispatch(job, submitter, sum(executor.nthreads().values())).run()
    else:
        _Dispatch(job, executor, getattr(executor, "_max_workers", job.call.settings.workers)).run()


class _Dispatch:
    """Tasks of one call on their way to and from an executor.

    Parameters
    ----------
    job : Job
    executor : Executor
    workers : int
        Tasks that it computes at a time.
    """

    def __init__(self, job: Job, executor: Executor, workers: int) -> None:
        job.open()
        self._job = job
        self._executor = executor
        self._workers = max(1, workers)
        self._most = 2 * self._workers
        self._flying: dict[Future[Any], Task] = {}
        self._staged: dict[Task, Parcel] = {}
        settings = job.call.settings
        proved = settings.verify is not False and not settings.isolate
        first = self._stage(job.first_task) if proved and not job.plan.empty else None
        self._threads = settings.blas_threads if isinstance(settings.blas_threads, int) else read_threads()
        body = (job.kernel, job.shared_layouts, read_numerics(), self._threads, first)
        payload = dump(read_surroundings().path, body)
        self._token = uuid.uuid4().hex
        self._index = payload.index
        self._payload = payload.to_bytes()
        self._proofs: list[Results] = []

    def run(self) -> None:
        """Submit, compute the first task here, and collect."""
        try:
            own = None if self._job.call.settings.isolate else self._job.plan.take()
            self._fill()
            if own is not None:
                self._job.compute_and_accept(own)
                self._job.show()
            while self._flying:
                self._check_proofs()
                since = time.perf_counter()
                done, _ = wait(self._flying, return_when=FIRST_COMPLETED)
                if self._job.watch is not None:
                    self._job.watch.waited(since)
                for future in done:
                    self._collect(future)
                self._fill()
                self._job.show()
            self._check_proofs()
        finally:
            for future in self._flying:
                future.cancel()

    def _fill(self) -> None:
        """Keep two tasks per worker under way."""
        while len(self._flying) < self._most:
            task = self._job.plan.take(TASK_SECONDS, self._workers)
            if task is None:
                return
            self._staged[task] = self._stage(task)
            self._submit(task, attach=len(self._payload) <= LIGHT_BYTES)

    def _submit(self, task: Task, attach: bool) -> None:
        payload = self._payload if attach else None
        try:
            future = self._executor.submit(compute, self._token, payload, self._index, self._staged[task])
        except BrokenExecutor as error:
            raise self._broken(task, error) from error
        self._flying[future] = task

    def _stage(self, task: Task) -> Parcel:
        memory = bytearray()

        def grow(nbytes: int) -> bytearray:
            memory.extend(bytes(nbytes))
            return memory

        offsets, layouts = self._job.stage(task, grow)
        return Parcel(task.lo, task.hi, offsets, layouts, bytes(memory))

    def _collect(self, future: Future[Any]) -> None:
        task = self._flying.pop(future)
        try:
            reply = future.result()
        except BrokenExecutor as error:
            raise self._broken(task, error) from error
        if reply == MISSING:
            # A process that has not seen this call: once each it gets all.
            self._submit(task, attach=True)
            return
        del self._staged[task]
        (head, buffers), proof, where = reply
        if proof is not None:
            self._take_proof(unpack(*proof)[0])
        outcome = unpack(head, buffers)[0]
        if outcome.threaded and not isinstance(self._threads, int):
            # BLAS uses threads in each: no more of them than there are workers.
            self._most = max(1, self._workers // max(self._threads.values(), default=1))
        self._job.accept(task, outcome, where)

    def _take_proof(self, outcome: Outcome) -> None:
        if outcome.error is not None and outcome.gaps is None:
            self._job.fail(outcome.index, outcome.error, self._job.first_task)
        elif outcome.results is not None:
            self._proofs.append(outcome.results)

    def _check_proofs(self) -> None:
        """Compare what each process gave for the first task with our own."""
        job = self._job
        if job.first is None:
            return
        proofs, self._proofs = self._proofs, []
        for proof in proofs:
            job.compare(proof)

    def _broken(self, task: Task, cause: BaseException) -> WorkerDiedError:
        lowest = min([task, *self._flying.values()], key=lambda one: one.lo)
        error = WorkerDiedError(
            f"a process of {type(self._executor).__name__} died; the lowest unfinished work was "
            f"{self._job.call.name(lowest.lo, lowest.hi)} ({cause})"
        )
        error.index = self._job.call.public_index(lowest.lo)
        return error
