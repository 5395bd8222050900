"""What workers may read and write themselves in the arrays of one job."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..._core.call import Call
from ..._core.indexing import Task
from ..._core.inputs.place import Place
from ..._core.kernel import Outcome
from ..._core.layout import Layout
from ..._core.outputs.output import Output
from ..._core.results import Results, Stack
from ..encoding import MANY_COLUMNS
from ..pool.worker_handle import Assignment, StagedTask, WorkerHandle
from .transfer import Extent

# A system call pays from so many bytes of a task on: it takes 3 us, and 10 more to prepare, where the caller's copy to
# a slot takes 12 us.
DIRECT_BYTES = 2**14
# Each piece takes 0.35 us: pieces of 1 kB are read at 2.5 GB/s, those of 4 kB at 6.5, and long ones at 20.
PIECE_BYTES = 2**12
# Bytes of the longest task that is read and written part by part.
TASK_BYTES = 2**26


class Transferred(Protocol):
    """What is to know of a job whose arrays are transferred."""

    call: Call
    observer: Any
    output: Output
    queue: Any
    first_task: Task

    def layouts(self, task: Task) -> list[Layout]:
        """Layouts of the copies of the arguments of `task`."""

    def accept(self, task: Task, outcome: Outcome, who: object = None) -> None:
        """Accept the outcome of a task, which worker `who` has computed."""

    @property
    def shared_layouts(self) -> list[Layout]:
        """Layouts of the arguments, where they are the same for all tasks; otherwise empty."""


class DirectJob:
    """Decides which tasks of a job read their arguments themselves, and where they may write their results."""

    def __init__(self, job: Transferred) -> None:
        self._job = job
        self._readable = True
        # Known once there are results.
        self._columns: list[tuple[np.ndarray | None, Any]] = []

    @cached_property
    def places(self) -> list[Place]:
        """Where the arguments lie, if workers may read them there; otherwise empty."""
        call = self._job.call
        places = [getattr(one, "place", None) for one in call.inputs]
        found = [place for place in places if place is not None]
        if len(found) < len(places):
            return []
        layouts = self._job.layouts(self._job.first_task)
        longest = max(zip(layouts, found, strict=True), key=lambda one: one[0].below + one[0].above)
        enough = longest[0].below + longest[0].above >= DIRECT_BYTES
        return found if enough and longest[1].piece_bytes(longest[0]) >= PIECE_BYTES else []

    def stage(self, worker: WorkerHandle, task: Task) -> StagedTask | None:
        """A task whose arguments the worker reads itself; None if they must be copied for it."""
        job = self._job
        if not (worker.direct and self._readable and worker.free and self.places):
            return None
        nbytes = self._row_bytes * len(task)
        if nbytes < DIRECT_BYTES:
            return None
        job.observer.read_directly(nbytes)
        layouts = None if job.shared_layouts else job.layouts(task)
        return StagedTask(task, worker.free.popleft(), None, None, layouts, [])

    def take_back_unread(self, worker: WorkerHandle, number: int, slot: int) -> Assignment:
        """Take back a task whose arguments a worker could not read, and copy all from now on."""
        self._readable = False
        assignment = worker.assignments.pop(number)
        worker.free.append(slot)
        self._job.queue.lose([] if assignment.handshake else [assignment.task])
        return assignment

    def capacity(self, worker: WorkerHandle) -> int | None:
        """Elements of the longest task of a worker that reads all arguments and writes all results itself, else None.

        It does so part by part, each as long as a task that is copied.
        """
        if not (worker.direct and self._readable and self._targets):
            return None
        return self._capacity

    @cached_property
    def _capacity(self) -> int | None:
        written = all(rows is not None and rows[:1].nbytes for rows, _ in self._targets)
        if not (self.places and written and self._row_bytes) or self._job.call.vectorized:
            return None
        return max(1, TASK_BYTES // self._row_bytes)

    @cached_property
    def _result_bytes(self) -> int:
        return sum(0 if rows is None else rows[:1].nbytes for rows, _ in self._targets)

    @property
    def _targets(self) -> list[tuple[np.ndarray | None, Any]]:
        """Memory for the results of all elements, of each column, and their kind."""
        if not self._columns:
            targets = self._job.output.targets
            self._columns = targets if len(targets) <= MANY_COLUMNS else []  # more are sent as one pickle
        return self._columns

    @cached_property
    def _row_bytes(self) -> int:
        return sum(one.row_bytes for one in self._job.call.inputs)

    def offer(self, worker: WorkerHandle, staged: StagedTask) -> Sequence[Any]:
        """The memory that a worker may write the results of a task to, and their kind, for each column."""
        columns, task = self._targets, staged.task
        if not (worker.direct and columns) or staged.slot < 0:
            return ()
        # Each part of a longer task is written, however small: what is sent ends the task.
        parts = any(len(task) > layout.shape[0] for layout in self._job.shared_layouts)
        if not parts and self._result_bytes * len(task) < DIRECT_BYTES * len(columns):
            return ()
        return [(rows if rows is None else rows[task.lo : task.hi], kind) for rows, kind in columns]

    def accept(self, assignment: Assignment, extent: Extent, outcome: Outcome, who: object) -> int:
        """Accept the outcome of a task that a worker has computed up to some element; return the number computed."""
        job, task = self._job, assignment.task
        begin, end, seconds, _ = extent
        if end < task.hi:
            job.queue.give_back([Task(end, task.hi)])
        if begin > task.lo:
            written = [Stack(kind, rows[: begin - task.lo]) for rows, kind in assignment.rows]
            before = Outcome(Results([*written], job.output.wrap), seconds, outcome.threaded)
            job.accept(Task(task.lo, begin), before, who)
        job.accept(Task(begin, end), outcome, who)
        return end - task.lo


def with_written(buffers: list[Any], assignment: Assignment, extent: Extent) -> list[Any]:
    """`buffers` of an outcome, with the memory that columns of it have been written to."""
    begin, end, _, written = extent
    for column in written:
        rows, _ = assignment.rows[column]
        buffers[column] = rows[begin - assignment.task.lo : end - assignment.task.lo].reshape(-1).view(np.uint8)
    return buffers
