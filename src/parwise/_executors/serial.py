"""The plain loop, in the calling thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from functools import partial
from itertools import islice
from operator import length_hint
from typing import Any

import numpy as np

from .._clock import perf_counter
from .._core.call import Call
from .._core.indexing import Task
from .._core.inputs.items import STREAM_ERRORS
from .._core.kernel import Kernel, Outcome, outcome_of_list
from .._core.nesting import Nesting, nesting
from .._core.results import Stack
from .inline_run import InlineRun
from .job.job import Job
from .job.task_length import TASK_SECONDS
from .runner import drive

# So long a call goes on without tasks.
INLINE_SECONDS = 0.002
# Tasks of items whose results are taken one after another: a caller that waits gets its result soon.
ITEM_SECONDS = 0.001
# Items of each task that are timed one by one, which takes 0.1 us.
TIMED_ITEMS = 16


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

    def _tasks(self) -> Generator[Task]:
        while (task := self._job.queue.next_task(self.task_seconds)) is not None:
            yield task
            self._job.show()

    def poll(self) -> None:
        """Do nothing: no other thread or process computes."""

    def end(self) -> None:
        """Do nothing, likewise."""


def run_serially(job: Job) -> None:
    """Compute all in this thread: the first milliseconds without tasks, which take a small call 60 us; a block also."""
    call = job.call
    if call.count and call.feed is None and InlineRun.suits(call):
        inline = InlineRun(call, job.kernel, job.reads_only)
        inline.run((INLINE_SECONDS,))
        if inline.end(job):
            return
        job.open(inline.claim())
        inline.hand_over(job)
    elif call.vectorized and call.tasks == 1 and not call.settings.verify:
        if _compute_block(job):
            return
    else:
        job.open()
    drive(SerialRunner(job))


def _compute_block(job: Job) -> bool:
    """Compute the only block of a call; return True if the job has its result, False if its output has to make that.

    Without a queue and an output, which take 30 us, a block of Dask's costs little more than a call of the function.
    """
    task = job.first_task
    outcome = job.compute(task)
    whole = _whole_block(job.call, outcome)
    if whole is not None:
        job.end_with(whole)
        job.observer.took(task, outcome)
        return True
    job.open()
    job.queue.next_task()
    job.accept(task, outcome)
    return False


def _whole_block(call: Call, outcome: Outcome) -> np.ndarray | None:
    """The result of a call with one block, if that is one array of numbers which keeps the length; else None."""
    results = outcome.results
    if results is None or results.wrap is not None or call.out is not None or call.form != "arrays":
        return None
    (column,) = results.columns
    assert isinstance(column, Stack)
    array = column.array
    if array.dtype.kind not in "?biufc" or not array.dtype.isnative:
        return None
    if not all(-array.ndim <= axis < array.ndim for axis in call.axis):
        return None
    # A copy, since the function may use the memory of its result again.
    whole = tuple(array.shape[axis] for axis in call.axis) == call.grid
    return np.array(array, order="C") if whole else None


def next_own(job: Job, seconds: float, look_ahead: int = 0) -> Callable[[], Task] | None:
    """The next task of this thread, as a function that computes and accepts it; None if there is none.

    Items of a stream come one by one as they are computed, unless some have to wait for workers: `look_ahead` is their
    number.
    """
    queue = job.queue
    unread = None if look_ahead and queue.slow else queue.next_unread(seconds)
    if unread is not None:
        return partial(_compute_unread, job, unread, seconds)
    task = queue.next_task(seconds, look_ahead=look_ahead, capacity=job.own_capacity)
    return None if task is None else partial(job.compute_and_accept, task)


def _compute_unread(job: Job, task: Task, seconds: float) -> Task:
    """Compute items of a stream as they come, up to `task.hi`, for about so many seconds; return those computed."""
    stream = job.call.stream
    assert stream is not None
    outcome, read, end = _run_unread(job.kernel, *stream.unread, task.lo, len(task), seconds, stream.hold)
    task = Task(task.lo, task.lo + read)
    job.queue.advance(task.hi)
    if end is not None:
        stream.end(task.hi, None if isinstance(end, StopIteration) else end)
    if read:
        job.accept(task, outcome)
    return task


def compute_list(job: Job, tasks: Generator[Task]) -> bool:
    """Compute tasks of a list in one list comprehension; return False if that cannot be done, or none is left.

    To collect the results of each task, and to put them together, would take as long as 5 % of ``x + 1``.
    """
    output, queue = job.as_list, job.queue
    if output is None or queue.seems_empty or (front := output.take_front(queue.next)) is None:
        return False
    elements: Iterator[Any] | None = None
    task, stop, begun = None, queue.next, 0.0

    def runs() -> Iterator[tuple[Callable[[Any], Any], Iterator[Any]]]:
        nonlocal elements, task, stop, begun
        yield _same, iter(front)
        for task in tasks:
            if task.lo != stop:  # another thread has handed out tasks
                queue.give_back([task])
                return
            stop, begun = task.hi, perf_counter()
            elements = iter(job.call.inputs[0].private(task.lo, task.hi))
            nested.active = True
            yield job.kernel.func, elements
            nested.active, elements = False, None
            job.measure(task, Outcome(None, perf_counter() - begun, begun=begun))

    try:
        # Closed at once, since a traceback would keep what it has entered.
        with contextlib.closing(tasks), nesting() as nested:
            output.adopt([call(one) for call, run in runs() for one in run])
    except BaseException as error:
        if elements is None or task is None:  # not raised by the function
            raise
        index = task.hi - length_hint(elements) - 1
        computed = Task(task.lo, index + 1)
        job.measure(computed, Outcome(None, perf_counter() - begun, index=index, error=error, begun=begun))
        job.fail(index, error, task)
    return task is not None


def _same(result: Any) -> Any:
    return result


def _run_unread(
    kernel: Kernel,
    items: Iterator[Any],
    tuples: bool,
    lo: int,
    most: int,
    seconds: float,
    hold: Callable[[int, Any], None],
) -> tuple[Outcome, int, BaseException | None]:
    """Call the function for items of a stream, in turn with reading them, for about so many seconds.

    Parameters
    ----------
    items : iterator
        The items, from that of element `lo` on.
    tuples : bool
        True if an item is a tuple of arguments.
    most : int
        Number of items after which it ends in any case.
    hold : callable
        Gets index and item where the function raises first.

    Returns
    -------
    outcome : Outcome
        Its time is that of the function, estimated from the first `TIMED_ITEMS`.
    read : int
        Number of items that were read.
    end : BaseException or None
        The exception by which the stream ended, StopIteration at its end.
    """
    raw: list[Any] = []
    error: BaseException | None = None
    end: BaseException | None = None
    failures: list[Exception] = []
    ignored: list[tuple[Any, ...]] = []
    func = kernel.attempt(failures, ignored.append) if kernel.ignore else kernel.func
    call, batch = _call_of_item(kernel, func, tuples, lo, most), 1
    # Seconds that the first items took to come, and together with their calls.
    reading, sampled = [0.0], 0.0
    start = perf_counter()
    with nesting() as nested:
        try:
            while True:
                # Not as the condition: Python 3.13 lets an interrupt between two rounds past this block then.
                if error is not None or end is not None or len(raw) >= most:
                    break
                wanted = min(len(raw) + batch, most)
                timed = len(raw) < TIMED_ITEMS
                source = islice(_timed(items, reading) if timed else items, wanted - len(raw))
                error = _call_each(call, source, raw, nested, lambda item: hold(lo + len(raw), item))
                if error is None and len(raw) < wanted:
                    end = StopIteration()
                elapsed = perf_counter() - start
                sampled = elapsed if timed else sampled
                if elapsed >= seconds:
                    break
                # An item of a slow stream may take as long as all before it.
                batch = 2 * batch if timed else max(2 * batch, most // 8)
                batch = min(batch, int(1 + (seconds - elapsed) / elapsed * len(raw)))
        except STREAM_ERRORS as caught:
            end = caught
    if kernel.ignore and error is None:
        outcome = kernel.outcome_with_gaps(raw, lo, failures)
        if ignored:
            found = ignored[0][: len(ignored[0]) - len(kernel.args)]
            hold(outcome.index, found if tuples else found[0])
    else:
        outcome = outcome_of_list(raw, lo, error)
        if failures:  # an interrupt, which is not ignored, behind gaps
            outcome.results = None
    computing = 1 - reading[0] / sampled if sampled else 1.0
    outcome.seconds, outcome.begun = computing * (perf_counter() - start), start
    return outcome, len(raw) + (error is not None), end


def _timed(items: Iterator[Any], spent: list[float]) -> Iterator[Any]:
    """Yield items, and add up the seconds that they take to come."""
    clock = perf_counter
    while True:
        begun = clock()
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            spent[0] += clock() - begun
        yield item


def _call_each(
    func: Callable[[Any], Any], items: Iterator[Any], raw: list[Any], nested: Nesting, hold: Callable[[Any], None]
) -> BaseException | None:
    """Append the results of `func` to `raw`, up to the first exception of it, and return that.

    `hold` gets the item of that. An exception of the iterator is raised.
    """
    for item in items:
        nested.active = True
        try:
            raw.append(func(item))
        except BaseException as error:
            hold(item)
            return error
        nested.active = False  # an iterator may use workers itself
    return None


def _call_of_item(kernel: Kernel, func: Callable[..., Any], tuples: bool, lo: int, most: int) -> Callable[[Any], Any]:
    """`func` of one item, with the other arguments of the call."""
    args, kwargs, streams = kernel.args, kernel.kwargs, kernel.streams
    if streams is not None:
        generators = iter(streams.run(lo, lo + most))
        if tuples:
            return lambda item: func(*item, *args, rng=next(generators), **kwargs)
        return lambda item: func(item, *args, rng=next(generators), **kwargs)
    if tuples:
        return lambda item: func(*item, *args, **kwargs)
    return func if kernel.bare else lambda item: func(item, *args, **kwargs)
