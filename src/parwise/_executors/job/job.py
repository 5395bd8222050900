"""A call at work: its queue of tasks, its output, and the outcomes that any runner accepts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import cached_property, partial
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._core.call import Call
from ..._core.indexing import Task
from ..._core.inputs.items import ENDLESS, ItemSequence, ItemStream
from ..._core.kernel import Outcome
from ..._core.layout import Layout, offsets_for
from ..._core.messages.notes import error_notes
from ..._core.outputs.choice import output_of
from ..._core.outputs.gaps import Gaps
from ..._core.outputs.output import ListOutput, Output, RawResults
from ..._core.results import Results
from ..._report.null_observer import UNOBSERVED, NullObserver
from ..._system.limits import cpu_count
from ..._system.surroundings import CallerState
from ..._workers.pickling.multiprocessing_objects import Attachments, attached
from ..._workers.pickling.payload import sendable
from ..._workers.pickling.picklers import dumps_items
from ..._workers.pickling.sent_definitions import Definitions
from ..._workers.pickling.snapshot import ItemTransfer, Snapshot
from ..._workers.protocol import checksum
from ..._workers.session import IN_FILE, Files, Offsets
from ..._workers.shared_memory import SLOT_BYTES
from .comparison import Comparison
from .output_replay import OutputReplay
from .task_queue import TaskQueue

if TYPE_CHECKING:
    from .files import FileTasks

# What workers get is copied, at 10 GB/s.
COPY_SECONDS_PER_BYTE = 1e-10


class Job:
    """One call from its first task to its result.

    Parameters
    ----------
    slot_bytes : int
        Bytes that the arguments of one task should fit in.
    only : Task, optional
        The only task to compute, in place of all.
    observe : callable, optional
        Receives each task and its outcome.
    observer : NullObserver, optional
        Receives what happens, for progress and reports.

    Attributes
    ----------
    comparison : Comparison
        What the first task gave here, to compare a worker's results with.
    limit : float
        The lowest index that raised; results from there on are dropped.
    transfer_seconds : callable
        Returns the estimated seconds to send an element to a worker and its result back; 0 if that is not known.
    stepwise : bool
        True if results are taken one after another.
    ordered : bool
        False if they are taken as they come.
    """

    #: What surrounds the first task; None for the state of the thread that packs the function.
    state: CallerState | None = None
    #: Name of the message that sends a task.
    task_message = "task"
    queue: TaskQueue
    output: Output
    output_replay: OutputReplay
    #: Tells which tasks read and write files themselves, if any may.
    files: FileTasks | None = None
    #: Called with the dispatcher of workers that have computed a part, while they still have the function.
    at_end: Callable[[Any], None] | None = None

    def __init__(
        self,
        call: Call,
        slot_bytes: int = SLOT_BYTES,
        only: Task | None = None,
        observe: Callable[[Task, Outcome], None] | None = None,
        observer: NullObserver = UNOBSERVED,
    ) -> None:
        self.call = call
        self.observer = observer
        self._only, self._observe = only, observe
        self.kernel = call.kernel()
        self.slot_bytes = slot_bytes
        self.transfer_seconds = call.transfer_seconds
        if isinstance(call.feed, ItemSequence | ItemStream):  # and not the queue of `Pool.submit`
            self.transfer_seconds = ItemTransfer(call.feed.sample)
        elif self.reads_only:  # workers get copies, which take longer than to read a little
            self.transfer_seconds = partial(mul, COPY_SECONDS_PER_BYTE, sum(one.row_bytes for one in call.inputs))
        if call.stream is not None:
            call.stream.snapshot = Snapshot
        self.comparison = Comparison(call)
        self.limit: float = float("inf")
        self.stepwise, self.ordered = False, True
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._whole: np.ndarray | list[Any] | RawResults | None = None
        # Read now: the queue hands out each block only once.
        self.first_task = Task(*call.bounds[0]) if call.bounds else Task(0, 1)

    def open(self, start: int = 0) -> None:
        """Make the queue and the output, for tasks from element `start` on."""
        self.queue = TaskQueue(self.call, self._capacity, start, self.transfer_seconds)
        if self.files is not None:
            self.files.align(self.queue)
        if self._only is not None:
            self.queue.restrict(self._only)
        self.output = output_of(self.call, self.ordered)
        self._gaps = Gaps(self.call)
        self.output_replay = OutputReplay(self.call)

    @cached_property
    def _capacity(self) -> int:
        return 1 if self.call.vectorized else self.call.elements_that_fit(self.slot_bytes)

    @cached_property
    def own_capacity(self) -> int:
        """Elements that fit a task of this process: all of them where it needs no copies."""
        return self.call.count if self.call.needs_no_copies(self.reads_only) else self._capacity

    @property
    def opened(self) -> Files:
        """Arguments that workers read from files, and files that they write results to."""
        return ([], []) if self.files is None else (self.files.inputs, self.files.outputs)

    def end_with(self, whole: np.ndarray | list[Any] | RawResults) -> None:
        """Take the whole result of a job that was never opened."""
        self._whole = whole

    @cached_property
    def workers(self) -> int:
        """Processes or threads that may compute. To count CPUs takes 0.3 ms, as it reads cgroup files."""
        return self.call.settings.workers or cpu_count()

    @cached_property
    def definitions(self) -> Definitions:
        """Classes and functions that the call sends to workers."""
        return Definitions(self.call.settings.shares_globals, self.call.settings.setup)

    def needed_parts(self, task: Task) -> tuple[Definitions, list[int]]:
        """The parts of definitions that a task needs which has just been staged."""
        return self.definitions, self.definitions.take_needed()

    def state_for(self, task: Task) -> CallerState | None:
        """What surrounds `task`, if that is not the same for all tasks."""
        return self.state

    def explain(self, why: str) -> None:
        """Report why workers compute nothing of the call."""
        self.observer.explain(why)

    @cached_property
    def _shared(self) -> list[Layout] | None:
        # The layout of elements is the same in every task; that of a block depends on its length.
        if self.call.vectorized:
            return None
        return [one.layout(self._capacity) for one in self.call.inputs]

    @property
    def shared_layouts(self) -> list[Layout]:
        """Layouts of the arguments, where they are the same for all tasks; otherwise empty."""
        return self._shared or []

    def layouts(self, task: Task) -> list[Layout]:
        """Layouts of the copies of the arguments of `task`."""
        return self._shared or [one.block_layout(task.lo, task.hi) for one in self.call.inputs]

    def stage(
        self, task: Task, get_memory: Callable[[int], Any]
    ) -> tuple[Offsets, list[Layout] | None, list[Attachments]]:
        """Copy the arguments of `task` to memory that is shared with another process.

        `get_memory` returns page-aligned memory of at least so many bytes. Returns the offsets, the layouts if they
        are not those of every task, and what must be sent beside the memory.
        """
        layouts = self.layouts(task)
        inputs = self.call.inputs
        pickled = self._pickled(task, layouts)
        read = self.files.reads(task) if self.files is not None else ()
        plain = [k for k in range(len(inputs)) if k not in pickled and k not in read]
        used = [layouts[k] if self.call.vectorized else layouts[k].of(len(task)) for k in plain]
        starts, end = offsets_for(used, [inputs[k].address(task.lo) for k in plain])
        memory = memoryview(get_memory(end + sum(map(len, pickled.values()))))
        nbytes = 0
        offsets = [(IN_FILE, 0, 0)] * len(inputs)
        for k, start in zip(plain, starts, strict=True):
            offsets[k] = (start, 0, 0)
            count = None if self.call.vectorized else len(task)
            view = layouts[k].view(memory, start, count)
            inputs[k].copy_to(view, task.lo, task.hi)
            nbytes += view.nbytes
        for k, data in pickled.items():
            offsets[k] = (end, len(data), checksum(data))
            memory[end : end + len(data)] = data
            end += len(data)
            nbytes += len(data)
        self.observer.staged(nbytes)
        self.observer.read_directly(sum(inputs[k].row_bytes for k in read) * len(task))
        return offsets, None if self._shared else layouts, attached(pickled.values())

    def _pickled(self, task: Task, layouts: list[Layout]) -> dict[int, bytes]:
        """Pickled arguments of `task` that are objects, by number of the input."""
        if task == self.first_task and self.comparison.objects:
            objects = {k: one.restore() for k, one in self.comparison.objects.items()}
        else:
            objects = self._objects(task, layouts)
        if not objects:
            return {}
        with sendable(f"one of elements {task.lo} to {task.hi - 1}" if len(task) > 1 else f"element {task.lo}"):
            return {k: dumps_items(items, self.definitions) for k, items in objects.items()}

    def _objects(self, task: Task, layouts: list[Layout]) -> dict[int, np.ndarray]:
        inputs = self.call.inputs
        return {k: one.objects(task.lo, task.hi, layouts[k]) for k, one in enumerate(inputs) if one.as_object}

    def pack_first(self) -> None:
        """Keep the objects of the first task, which a worker computes again, before the function can change them."""
        task = self.first_task
        if self.comparison.wanted and self.call.stream is None and any(one.as_object for one in self.call.inputs):
            self.comparison.keep_objects(self._objects(task, self.layouts(task)))

    def again(self, task: Task) -> list[Any]:
        """The arguments of `task` as in `runs`, as they were before the function could change them."""
        runs: list[Any] = self.runs(task)
        for k, objects in self.comparison.objects.items() if task == self.first_task else ():
            runs[k] = objects.restore()
        return runs

    @cached_property
    def reads_only(self) -> bool:
        """True if it is proved that the function only reads its arguments: here it gets views of the user's arrays."""
        return self.call.only_reads()

    def runs(self, task: Task) -> list[np.ndarray]:
        """The arguments of `task`, for a call in this process: private copies, unless the function only reads them."""
        if self.reads_only:
            return [one.views(task.lo, task.hi) for one in self.call.inputs]
        if all(one.scalars for one in self.call.inputs):
            return [one.private(task.lo, task.hi) for one in self.call.inputs]
        layouts = self.layouts(task)
        return [one.private(task.lo, task.hi, layouts[k]) for k, one in enumerate(self.call.inputs)]

    def compute(self, task: Task) -> Outcome:
        """Compute `task` here, in the calling thread."""

        def memory(count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
            return self.output.memory_for(task.lo, count, dtype, shape)

        return self.kernel.run(self.runs(task), task.lo, task.hi, allocate=memory)

    def compute_and_accept(self, task: Task) -> Task:
        """Compute `task` here and accept its outcome; return the task."""
        if task == self.first_task:
            self.pack_first()
        outcome = self.compute(task)
        if task == self.first_task and outcome.results is not None:
            # The function may reuse the memory of its result.
            self.comparison.keep(outcome.results, outcome.seconds)
        self.accept(task, outcome)
        return task

    @property
    def as_list(self) -> ListOutput | None:
        """The output, if tasks that this process computes in order can be one list comprehension."""
        whole = not (self.stepwise or self._observe or self.kernel.ignore or self.queue.limit < ENDLESS)
        simple = isinstance(self.call.feed, ItemSequence) and len(self.call.inputs) == 1 and self.kernel.bare
        return self.output if whole and simple and isinstance(self.output, ListOutput) else None

    def accept(self, task: Task, outcome: Outcome, who: object = None) -> None:
        """Accept the outcome of a task, which worker `who` has computed, or this thread if None."""
        self.measure(task, outcome, who)
        if self._observe is not None:
            self._observe(task, outcome)
        if outcome.error is not None and outcome.gaps is None:
            self.fail(outcome.index, outcome.error, task)
            if outcome.results is not None:  # items before it
                self.output.add(Task(task.lo, outcome.index), outcome.results)
        else:
            if outcome.error is not None and outcome.gaps is not None:
                self.output.skip(self._gaps.add(task, outcome.gaps, outcome.error, outcome.failures))
            if outcome.results is not None and task.lo < self.limit:
                self.output.add(task, outcome.results, self._gaps.remaining(task, outcome.gaps))
        self._close(task)

    def measure(self, task: Task, outcome: Outcome, who: object = None) -> None:
        """Note how long a task took."""
        self.queue.measure(task, outcome.seconds)
        self.observer.took(task, outcome, who)

    def _close(self, task: Task) -> None:
        self.output_replay.close(task.lo, task.hi)
        if self.call.feed is not None:
            self.call.feed.release(task.lo, task.hi)

    def compare(self, theirs: Results) -> None:
        """Compare a worker's results of the first task with the caller's."""
        if self.comparison.differ(theirs) and self.call.settings.verify:  # nothing else needs to be computed
            self.limit = -1
            self.queue.cut(0)

    def skip(self, task: Task, error: BaseException) -> None:
        """Leave a gap for a task that was lost."""
        self.output.skip(self._gaps.add(task, np.arange(task.lo, task.hi), error))
        self._close(task)
        self.observer.skipped(task)

    def repeat(self) -> None:
        """Replay output of workers that is due, and show progress; in the calling thread."""
        self.output_replay.repeat(lambda: self.limit, self.fail)
        self.show()

    def show(self) -> None:
        """Show progress, in any thread."""
        self.observer.show()

    def fail(self, index: int, error: BaseException, task: Task | None = None, first: bool = False) -> None:
        """Note that element `index` raised, `first` if before what else it raised; that of the lowest index is kept."""
        # Before the lock, as they have texts of the user's own objects.
        notes = error_notes(self.call, index, task.hi, error) if task is not None and index < self.limit else []
        with self._lock:
            if index > self.limit or (index == self.limit and not first):
                return
            for note in notes:
                error.add_note(note)
            self.limit = index
            self._error = error
        self.queue.cut(index)

    def abandon(self) -> None:
        """Write what is held for files, as an exception ends the job, which is told in any case."""
        with contextlib.suppress(Exception):
            self.output.flush()

    def finish(self) -> Any:
        """Return the result, or raise the exception that the plain loop would raise."""
        if self._whole is not None:
            return self._whole
        self.output_replay.repeat(lambda: self.limit, self.fail, everything=True)
        if self._error is not None:
            raise self._error
        if self.call.feed is not None and self.call.feed.error is not None:
            raise self.call.feed.error
        result = self.output.finish(self._gaps.indices)
        self._gaps.warn()
        return result
