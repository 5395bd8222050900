"""The plain loop, in the calling thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from operator import length_hint
from typing import Any

from .._core.indexing import Task
from .._core.item_calls import run_unread
from .._core.kernel import Outcome, nesting
from .job import Job
from .task_queue import TASK_SECONDS

# Tasks of items whose results are taken one after another: a caller that waits gets its result soon.
ITEM_SECONDS = 0.001


class SerialRunner:
    """Computes the tasks of an open job in the calling thread, in order.

    Parameters
    ----------
    task_seconds : float, optional
        Length of a task of many items.
    """

    workers = 1

    def __init__(self, job: Job, task_seconds: float = TASK_SECONDS) -> None:
        self._job = job
        self.task_seconds = task_seconds
        self.finished = False

    def step(self) -> None:
        """Compute one task, or all of a list."""
        if compute_list(self._job, self._tasks()):
            return
        compute = next_own(self._job, self.task_seconds)
        if compute is None:
            self.finished = True
            return
        compute()
        self._job.show()

    def _tasks(self) -> Iterator[Task]:
        while (task := self._job.queue.next_task(self.task_seconds)) is not None:
            yield task
            self._job.show()

    def poll(self) -> None:
        """Do nothing: no other thread or process computes."""


def next_own(job: Job, seconds: float, look_ahead: int = 0) -> Callable[[], Task] | None:
    """The next task of this thread, as a function that computes and accepts it; None if there is none.

    Items of a stream come one by one as they are computed, unless some have to wait for workers: `look_ahead` is their
    number.
    """
    queue = job.queue
    unread = None if look_ahead and queue.slow else queue.next_unread(seconds)
    if unread is not None:
        return partial(_compute_unread, job, unread, seconds)
    task = queue.next_task(seconds, look_ahead=look_ahead)
    return None if task is None else partial(job.compute_and_accept, task)


def _compute_unread(job: Job, task: Task, seconds: float) -> Task:
    """Compute items of a stream as they come, up to `task.hi`, for about so many seconds; return those computed."""
    stream = job.call.stream
    assert stream is not None
    outcome, read, end = run_unread(job.kernel, *stream.unread, task.lo, len(task), seconds)
    task = Task(task.lo, task.lo + read)
    job.queue.advance(task.hi)
    if end is not None:
        stream.end(task.hi, None if isinstance(end, StopIteration) else end)
    if read:
        job.accept(task, outcome)
    return task


def compute_list(job: Job, tasks: Iterator[Task]) -> bool:
    """Compute tasks of a list in one list comprehension; return False if that cannot be done, or none is left.

    To collect the results of each task, and to put them together, would take as long as 5 % of ``x + 1``.
    """
    output, queue = job.as_list, job.queue
    if output is None or queue.seems_empty or (front := output.take_front(queue.next)) is None:
        return False
    elements: Iterator[Any] | None = None
    task, stop = None, queue.next

    def runs() -> Iterator[tuple[Callable[[Any], Any], Iterator[Any]]]:
        nonlocal elements, task, stop
        yield _same, iter(front)
        for task in tasks:
            if task.lo != stop:  # another thread has handed out tasks
                queue.give_back([task])
                return
            stop, begun = task.hi, time.perf_counter()
            elements = iter(job.call.inputs[0].private(task.lo, task.hi))
            nested.active = True
            yield job.kernel.func, elements
            nested.active, elements = False, None
            job.measure(task, Outcome(None, time.perf_counter() - begun, begun=begun))

    try:
        with nesting() as nested:
            output.adopt([call(one) for call, run in runs() for one in run])
    except BaseException as error:
        if elements is None or task is None:  # not raised by the function
            raise
        job.fail(task.hi - length_hint(elements) - 1, error, task)
    return task is not None


def _same(result: Any) -> Any:
    return result
