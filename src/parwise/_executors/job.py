"""A call at work: what its runners share, whoever computes a task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from .._core.call import Call
from .._core.indexing import Task
from .._core.kernel import Kernel, Outcome
from .._core.layout import ALIGNMENT, PAGE, Layout, offsets_for
from .._core.output import Gaps, Output, RawResults, output_of
from .._core.results import Results, owned, same_results
from .._report.observer import Observer
from .._system.limits import cpu_count
from .._workers.serialization import dumps
from .._workers.shared_memory import SLOT_BYTES
from .output_replay import OutputReplay
from .task_queue import TaskQueue

#: Where inputs lie in a task's memory: offset, and size if they are pickled.
Offsets = list[tuple[int, int]]


class Job:
    """One call from its first task to its result.

    Parameters
    ----------
    call : Call
    slot_bytes : int
        Memory that the arguments of one task should fit in.
    only : Task, optional
        All that is to be computed, if not everything.
    observe : callable, optional
        Gets each task and what became of it.
    observer : Observer, optional
        For what users want to see of the call.

    Attributes
    ----------
    first : Results or None
        What the caller got for the first task, to compare workers with.
    first_seconds : float
        How long that took.
    compared : bool
        Whether that is needed.
    proved : bool
        Whether that has been done.
    disputed : Results or None
        What a worker got for it, if that was something else.
    limit : float
        The lowest index that raised; nothing from there on matters.
    """

    queue: TaskQueue
    output: Output
    output_replay: OutputReplay

    def __init__(
        self,
        call: Call,
        slot_bytes: int = SLOT_BYTES,
        only: Task | None = None,
        observe: Callable[[Task, Outcome], None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.call = call
        self.observer = observer
        self._only = only
        self._observe = observe
        settings = call.settings
        self.kernel = Kernel(
            call.func,
            call.args,
            call.kwargs,
            call.vectorized,
            settings.ignore,
            settings.timeout is not None,
            call.halo,
            call.streams,
            call.bounds[0][1] if call.bounds else 1,
            call.form,
        )
        self._slot_bytes = slot_bytes
        self.first: Results | None = None
        self.first_seconds = 0.0
        self.compared = settings.verify is not False and settings.executor not in ("threads", "serial")
        self.compared &= settings.workers != 1
        self.disputed: Results | None = None
        self.proved = False
        self.limit: float = float("inf")
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._whole: np.ndarray | list[Any] | RawResults | None = None
        # Read now: a block of the plan is handed out only once.
        self.first_task = Task(*call.bounds[0]) if call.bounds else Task(0, 1)

    def open(self, start: int = 0) -> None:
        """Get ready to hand out tasks, from element `start` on."""
        call = self.call
        self._capacity = 1 if call.vectorized else _capacity(call, self._slot_bytes)
        self.queue = TaskQueue(call, self._capacity, start)
        if self._only is not None:
            self.queue.restrict(self._only)
        self.output = output_of(call)
        self._gaps = Gaps(call)
        self.output_replay = OutputReplay(call.func)

    def end_with(self, whole: np.ndarray | list[Any] | RawResults) -> None:
        """Take the whole result, of a call that was never opened."""
        self._whole = whole

    @cached_property
    def workers(self) -> int:
        """Processes or threads that may compute; to count CPUs reads cgroup files, for 0.3 ms."""
        return self.call.settings.workers or cpu_count()

    def explain(self, why: str) -> None:
        """Tell why workers have no part in the call."""
        if self.observer is not None:
            self.observer.explain(why)

    @cached_property
    def _shared(self) -> list[Layout] | None:
        # Elements lie alike in every task; how a block does depends on its length.
        if self.call.vectorized:
            return None
        return [one.layout(self._capacity) for one in self.call.inputs]

    @property
    def shared_layouts(self) -> list[Layout]:
        """Layouts that hold for all tasks."""
        return self._shared or []

    def layouts(self, task: Task) -> list[Layout]:
        """How the copies of the arguments of `task` lie in memory."""
        return self._shared or [one.block_layout(task.lo, task.hi) for one in self.call.inputs]

    def stage(self, task: Task, get_memory: Callable[[int], Any]) -> tuple[Offsets, list[Layout] | None]:
        """Copy the arguments of `task` to memory that another process sees.

        Parameters
        ----------
        task : Task
        get_memory : callable
            Gives memory of at least so many bytes, page-aligned.

        Returns
        -------
        offsets : list of (int, int)
        layouts : list of Layout or None
            None if they are those of every task.
        """
        layouts = self.layouts(task)
        inputs = self.call.inputs
        pickled = {k: dumps(one.objects(task.lo, task.hi, layouts[k])) for k, one in enumerate(inputs) if one.as_object}
        plain = [k for k in range(len(inputs)) if k not in pickled]
        starts, end = offsets_for([layouts[k] for k in plain], [inputs[k].address(task.lo) for k in plain])
        memory = memoryview(get_memory(end + sum(map(len, pickled.values()))))
        nbytes = 0
        offsets = [(0, 0)] * len(inputs)
        for k, start in zip(plain, starts, strict=True):
            offsets[k] = (start, 0)
            count = None if self.call.vectorized else len(task)
            view = layouts[k].view(memory, start, count)
            inputs[k].copy_to(view, task.lo, task.hi)
            nbytes += view.nbytes
        for k, data in pickled.items():
            offsets[k] = (end, len(data))
            memory[end : end + len(data)] = data
            end += len(data)
            nbytes += len(data)
        if self.observer is not None:
            self.observer.staged(nbytes)
        return offsets, None if self._shared else layouts

    def runs(self, task: Task) -> list[np.ndarray]:
        """Private copies of the arguments of `task`, for a call in this process."""
        if all(one.scalars for one in self.call.inputs):
            return [one.private(task.lo, task.hi) for one in self.call.inputs]
        layouts = self.layouts(task)
        return [one.private(task.lo, task.hi, layouts[k]) for k, one in enumerate(self.call.inputs)]

    def compute(self, task: Task) -> Outcome:
        """Compute `task` here, in the calling thread."""

        def memory(count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
            return self.output.memory_for(task.lo, count, dtype, shape)

        return self.kernel.run(self.runs(task), task.lo, task.hi, allocate=memory)

    def compute_and_accept(self, task: Task) -> None:
        """Compute `task` here and take its results."""
        outcome = self.compute(task)
        if task == self.first_task and outcome.results is not None:
            # The function may use the memory of its result again.
            self.first, self.first_seconds = (owned(outcome.results) if self.compared else None), outcome.seconds
        self.accept(task, outcome)

    def accept(self, task: Task, outcome: Outcome, who: object = None) -> None:
        """Take what became of a task, which `who` has computed if not this thread."""
        self.queue.measure(task, outcome.seconds)
        if self.observer is not None:
            self.observer.took(task, outcome, who)
        if self._observe is not None:
            self._observe(task, outcome)
        if outcome.error is not None and outcome.gaps is None:
            self.fail(outcome.index, outcome.error, task)
            if outcome.results is not None:  # items before it
                self.output.add(Task(task.lo, outcome.index), outcome.results)
        else:
            if outcome.error is not None and outcome.gaps is not None:
                self._leave_gaps(task, outcome.gaps, outcome.error)
            if outcome.results is not None and task.lo < self.limit:
                self.output.add(task, outcome.results, self._gaps.remaining(task, outcome.gaps))
        self._close(task)

    def _close(self, task: Task) -> None:
        self.output_replay.close(task.lo, task.hi)
        if self.call.feed is not None:
            self.call.feed.drop(task.lo, task.hi)

    def compare(self, theirs: Results) -> None:
        """Compare what a worker got for the first task with what the caller got."""
        self.proved = True
        if self.first is None or same_results(self.first, theirs):
            return
        self.disputed = theirs
        if self.call.settings.verify:  # the rest need not be computed
            self.limit = -1
            self.queue.cut(0)

    def skip(self, task: Task, error: BaseException) -> None:
        """Leave a gap for a task that was lost."""
        self._leave_gaps(task, np.arange(task.lo, task.hi), error)
        self._close(task)
        if self.observer is not None:
            self.observer.skipped(task)

    def _leave_gaps(self, task: Task, gaps: np.ndarray, error: BaseException) -> None:
        self._gaps.add(task, gaps, error)
        self.output.skip(gaps)

    def repeat(self) -> None:
        """Show what workers said, as far as it is its turn, and what is done; in the caller's own thread."""
        self.output_replay.repeat(self.limit)
        self.show()

    def show(self) -> None:
        """Show how far the call has come, in any thread."""
        if self.observer is not None:
            self.observer.show()

    def fail(self, index: int, error: BaseException, task: Task | None = None) -> None:
        """Note that element `index` raised; of several the lowest counts."""
        with self._lock:
            if index >= self.limit:
                return
            self.limit = index
            self._error = error
            if task is not None:
                error.add_note(self.call.name(index, task.hi))
        self.queue.cut(index)

    def finish(self) -> Any:
        """The result; or raise what the plain loop would have raised."""
        if self._whole is not None:
            return self._whole
        self.output_replay.repeat(self.limit, everything=True)
        if self._error is not None:
            raise self._error
        if self.call.feed is not None and self.call.feed.error is not None:
            raise self.call.feed.error
        result = self.output.finish(self._gaps.indices)
        self._gaps.warn()
        return result


def _capacity(call: Call, slot_bytes: int) -> int:
    """Elements whose arguments fit a slot, at least one."""
    room = slot_bytes - PAGE * len(call.inputs)  # each keeps its offset within a page
    capacity = max(1, min(call.count, room // sum(max(8, one.row_bytes) for one in call.inputs)))
    if all(one.scalars for one in call.inputs):
        # Never more than this apart; to ask for the layout would cost a small call 10 us.
        apart = sum(ALIGNMENT + one.row_bytes for one in call.inputs)
        return max(1, min(capacity, room // apart))
    while capacity > 1:
        layouts = [one.layout(capacity) for one in call.inputs]
        taken = sum(layout.below + layout.above for layout in layouts)
        if taken <= room:
            break
        capacity = max(1, min(capacity - 1, capacity * room // taken))
    return capacity
