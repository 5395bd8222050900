"""The calling thread's own share of a call, before workers are up: most small calls end there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._clock import perf_counter
from ..._core.call import Call, result_axes
from ..._core.collector import Collector
from ..._core.indexing import Task
from ..._core.inputs.items import LOOK_AHEAD
from ..._core.kernel import Kernel, Outcome
from ..._core.output import RawResults, raw_results
from ..._core.results import Results, Stack
from ..._system.limits import cpu_is_idle
from ..job import Job
from ..serial import compute_list, next_own
from .background import BUSY_SECONDS, COLD_SECONDS, HELP_AFTER_SECONDS, WARM_SECONDS, BackgroundDispatcher
from .known_paces import KnownPace, known_paces
from .sharing import is_shared

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

# Length of a batch: shorter than the helper thread waits.
BATCH_SECONDS = 0.001
# A batch has at most so many times the elements before it. The first call of a process takes 8 us for each batch.
GROWTH = 4
# Bytes that are copied before the time of an element is known: they take 0.1 ms. A call of fewer bytes can end without
# tasks and an output array, which take 0.15 ms.
TRIAL_BYTES = 2**20


class InlineRun:
    """Computes the first elements in the calling thread, before there are tasks, an output array or workers.

    Parameters
    ----------
    reads_only : bool
        True if the function gets views of the user's arrays, see `Job.reads_only`.
    transfer_seconds : float
        Seconds that it takes to send an element to a worker, beyond those that a copy here takes.

    Attributes
    ----------
    raw : list
        Results of the function.
    seconds, first_seconds : float
        Time of all these elements, and of the first one.
    """

    def __init__(self, call: Call, kernel: Kernel, reads_only: bool = False, transfer_seconds: float = 0.0) -> None:
        self._call = call
        self._kernel = kernel
        self._transfer_seconds = transfer_seconds
        self._begun = self.seconds = self.first_seconds = 0.0
        self._error: BaseException | None = None
        self._most = call.count
        for one in () if reads_only else call.inputs:
            self._most = min(self._most, one.run_end or self._most)
            if not one.scalars or one.scalar_run(0, 1) is None:  # they are copied
                self._most = min(self._most, max(1, TRIAL_BYTES // max(1, one.row_bytes)))
        most = self._most
        runs = [one.views(0, most) if reads_only else one.private(0, most) for one in call.inputs]
        self._collector = Collector(kernel, runs)
        self.raw = self._collector.raw
        self.claim = self._collector.claim

    @staticmethod
    def suits(call: Call) -> bool:
        """Tell whether the first elements of a call can be computed in this way."""
        settings = call.settings
        tasks = call.vectorized or settings.ignore or settings.verify or settings.resume is not None
        return not tasks and all(one.loaded for one in call.inputs)

    def run(self, expect: Callable[[], object], looks: Iterable[float], ends: Callable[[float], bool]) -> None:
        """Compute until the last of the `looks`, or until the helper thread has claimed the next element.

        Parameters
        ----------
        expect : callable
            Tells the helper thread, before each batch, when it may claim the elements behind
            the one being computed.
        looks : iterable of float
            Seconds after which it also ends if `ends` of the seconds of work
            that seem to be left is True.
        """
        call = self._call
        expect()
        self._begun = begun = perf_counter()
        self._error = self._collector.collect(1)
        self.first_seconds = perf_counter() - begun
        told = 0.0
        for until in looks:
            while not self._over and (elapsed := perf_counter() - begun) < until:
                if elapsed - told > BATCH_SECONDS / 2:
                    told = elapsed
                    expect()
                self._error = self._collector.collect(self._batch(elapsed, until))
            if self._over or ends((elapsed / len(self.raw) - self._transfer_seconds) * (call.count - len(self.raw))):
                break
        self.claim(len(self.raw))
        self.seconds = perf_counter() - begun

    @property
    def _over(self) -> bool:
        """True if no more elements are to be computed here."""
        return self._error is not None or len(self.raw) == self._most or self._collector.stop is not None

    def _batch(self, elapsed: float, until: float) -> int:
        """Length of the next batch: in case that elements take longer from now on, not much longer than all so far."""
        found = len(self.raw)
        pace = max(elapsed, 1e-9) / found
        return min(self._most - found, GROWTH * found, max(1, int(min(BATCH_SECONDS, until - elapsed) / pace)))

    def end(self, job: Job) -> bool:
        """Give the job its result, if that is complete; otherwise return False."""
        whole = self._whole()
        if whole is None:
            return False
        job.end_with(whole)
        if job.observer.active:
            job.observer.took(Task(0, len(self.raw)), Outcome(None, self.seconds, begun=self._begun))
        return True

    def hand_over(self, job: Job) -> None:
        """Give an open job the outcome of these elements."""
        task, outcome = self._outcome()
        if job.compared and self.raw:
            job.keep_first(self._kernel.pack(self.raw[:1], range(1)), self.first_seconds)
        job.accept(task, outcome)

    def _whole(self) -> np.ndarray | list[Any] | RawResults | None:
        """The result of the call, if it is complete and an array of numbers, a list or raw results."""
        call = self._call
        if self._error is not None or len(self.raw) < call.count or call.out is not None:
            return None
        if call.feed is not None:
            return self.raw
        results = self._results()
        if call.form == "raw":
            return raw_results(call, results.columns[0])
        (column, *more) = results.columns
        if more or results.wrap is not None or not isinstance(column, Stack):
            return None
        array, grid = column.array, call.grid
        if array.dtype.kind not in "?biufc" or not array.dtype.isnative:  # another dtype in a list
            return None
        if call.axis == (0,):
            return array
        array = array.reshape(*grid, *array.shape[1:])
        return np.ascontiguousarray(np.moveaxis(array, range(len(grid)), result_axes(call.axis, array.ndim)))

    def _outcome(self) -> tuple[Task, Outcome]:
        """The elements as one task, and its outcome."""
        found = len(self.raw)
        if self._error is None:
            try:
                return Task(0, found), Outcome(self._results(), self.seconds, begun=self._begun)
            except Exception as error:  # results that cannot be put together
                self._error = error
                found -= 1
        return Task(0, found + 1), Outcome(None, self.seconds, index=found, error=self._error, begun=self._begun)

    def _results(self) -> Results:
        return self._kernel.pack(self.raw, range(len(self.raw)), self._collector.kinds)


# Lengths of the caller's own tasks: the second one is long enough to measure the time of an element. With workers
# up, each 2 ms of them leave a CPU idle, so the first one is shorter.
TRIAL_SECONDS = 0.002
EARLY_SECONDS = 0.0004
OWN_SECONDS = 0.004
# When a call that may be the caller's alone looks whether workers would pay.
WARM_LOOKS = (EARLY_SECONDS, 0.0016, 0.0064, 0.0256)


def run_inline(job: Job, background: BackgroundDispatcher) -> bool | None:
    """Compute the first milliseconds of a call in this thread, and open the job behind them.

    Returns None if the call has its result; else True if `background` has joined, False if another call has the
    workers.
    """
    if not InlineRun.suits(job.call):
        return background.join(lambda: 0)
    call = job.call
    transfer_seconds = job.transfer_seconds() if job.reads_only else 0.0
    known = known_paces.get(call)
    seconds = 0.0 if known is None else (known.seconds - transfer_seconds) * call.expected
    shared = known is not None and background.warm and pays(seconds)
    if known is not None and shared and not known.threaded and is_shared(seconds):
        joined = background.join(lambda: 0)
        job.queue.expect_pace(known.seconds)
        return joined
    job.pack_first()
    # Copies for workers would take longer than what they save, where the function reads little of much.
    inline = InlineRun(call, job.kernel, job.reads_only, transfer_seconds)

    def expect() -> None:
        # The helper thread takes 30 us, and its turns some ms each where other programs have all CPUs. Without it, a
        # call whose elements take much longer than last time is shared only when its first batch is done.
        if known is None or shared or seconds > BUSY_SECONDS:
            background.expect(background.help_after(), inline.claim)

    if call.feed is not None:  # tasks of the queue take less time for each item
        inline.run(expect, (EARLY_SECONDS, TRIAL_SECONDS), lambda left: left > TRIAL_SECONDS)
    elif background.warm:
        inline.run(expect, WARM_LOOKS, pays)
    else:
        inline.run(expect, (TRIAL_SECONDS,), lambda left: False)
    if inline.end(job):
        known_paces.keep(call, KnownPace(inline.seconds / max(1, call.count), False))
        if job.observer.active:
            job.explain(f"all of it took {inline.seconds * 1e3:.2g} ms; {least_seconds(background, inline.seconds)}")
        return None
    joined = background.join(inline.claim)
    inline.hand_over(job)
    return joined


def pays(left: float) -> bool:
    """Tell whether workers that are up pay for `left` seconds of work."""
    return left > BUSY_SECONDS or (left > WARM_SECONDS and cpu_is_idle())


def least_seconds(background: BackgroundDispatcher, seconds: float) -> str:
    """Words for the least work that workers pay for, in a call where they did not for so many seconds of work."""
    if not background.warm:
        return f"starting workers pays from {COLD_SECONDS * 1e3:g} ms of work on"
    if seconds > WARM_SECONDS:
        return f"other programs use all CPUs, and workers then pay from {BUSY_SECONDS * 1e3:g} ms of work on"
    return f"workers pay from {WARM_SECONDS * 1e3:g} ms of work on"


class InlineTasks:
    """Computes tasks in the calling thread until workers take over or no task is left.

    Parameters
    ----------
    background : BackgroundDispatcher
        It must have joined.
    """

    def __init__(self, job: Job, background: BackgroundDispatcher) -> None:
        self._job = job
        self._background = background
        self._seconds = EARLY_SECONDS if background.warm else TRIAL_SECONDS
        # The most seconds of work that could have been shared, and the most that were left.
        self._serial_seconds = self._most = 0.0
        pace = job.queue.pace
        self._begun = pace is not None
        if pace is not None:
            background.pace, self._most = pace, job.queue.seconds_left
            worth = self._worth(job.queue.seconds_left)
            if worth and background.has_idle_workers and background.cpus.seems_free():
                self._poll(True)
            else:
                self._after_first(worth)

    def step(self) -> bool:
        """Compute one task, or many of a list; return False if workers have taken over or no task is left."""
        if self._relieved:
            return False
        # Not the first element, whose result is kept.
        if self._job.queue.next and compute_list(self._job, self._tasks()):
            return True
        compute = next_own(self._job, self._seconds, LOOK_AHEAD)
        if compute is None:
            return False
        with self._watching():
            start = perf_counter()
            task = compute()
        self._end(start, len(task))
        return True

    def _tasks(self) -> Generator[Task]:
        """Tasks of a list, until workers take over or none is left."""
        while not self._relieved and (task := self._job.queue.next_task(self._seconds)) is not None:
            with self._watching():
                start = perf_counter()
                yield task
            self._end(start, len(task))

    @property
    def _relieved(self) -> bool:
        """True if workers have taken over."""
        dispatcher = self._background.dispatcher
        return (dispatcher.serving and not dispatcher.beside) or self._background.error is not None

    def _watching(self) -> contextlib.AbstractContextManager[object]:
        """Have the helper thread take over if the next task is long, and BLAS threads watched if they may be busy."""
        background = self._background
        background.expect(None if self._job.queue.seems_empty else background.help_after_at_least())
        return background.cpus.watch if background.cpus.watch.suspicious else contextlib.nullcontext()

    def _end(self, start: float, count: int) -> None:
        """After a task of `count` elements, which began at `start`, start workers if they pay."""
        job, background = self._job, self._background
        queue, cpus = job.queue, background.cpus
        job.repeat()
        background.pace = (perf_counter() - start) / max(1, count)
        left = queue.seconds_left
        self._most = max(self._most, left)
        worth = self._worth(left)
        if self._begun:
            self._seconds = OWN_SECONDS
            self._serial_seconds = max(self._serial_seconds, left if left > WARM_SECONDS else 0.0)
            self._poll(worth and cpus.known_free())
            if cpus.watch.busy:  # BLAS threads use the CPUs: measure again ever more rarely
                self._seconds = min(2 * self._seconds, HELP_AFTER_SECONDS / 2)
        else:
            self._after_first(worth)
        self._begun = True

    def _poll(self, wanted: bool) -> None:
        """Read the messages of workers, or start them if `wanted`."""
        self._background.poll(wanted)
        dispatcher = self._background.dispatcher
        if dispatcher.started and dispatcher.beside:
            self._seconds = dispatcher.own_seconds

    def leave(self) -> Dispatcher:
        """Leave the other tasks to the workers, if these have been started."""
        pool, dispatcher = self._background.pool, self._background.dispatcher
        if self._job.observer.active and not dispatcher.started:
            self._explain()
        pool.serial_seconds = 0.0 if dispatcher.started else pool.serial_seconds + self._serial_seconds
        self._background.leave()
        dispatcher.caller_computes = False
        return dispatcher

    def _explain(self) -> None:
        """Report why no worker was started."""
        job, background, most = self._job, self._background, self._most
        if background.cpus.watch.busy:
            job.explain("BLAS or OpenMP uses all CPUs already, in each call of the function")
        elif job.workers > 1 and most <= (BUSY_SECONDS if background.warm else COLD_SECONDS):
            least = least_seconds(background, most)
            job.explain(f"{most * 1e3:.2g} ms of work were left after the first elements; {least}")

    def _worth(self, left: float) -> bool:
        """Tell whether workers pay for `left` seconds of work.

        Each call of middling size is too short for a cold start. The time that
        workers could have saved is added up over calls, until it pays for one.
        """
        background = self._background
        return pays(left) if background.has_idle_workers else left + background.pool.serial_seconds > COLD_SECONDS

    def _after_first(self, worth: bool) -> None:
        """After the first element: wake the helper thread, or measure whether CPUs are free during the next one."""
        dispatcher = self._background.dispatcher
        if dispatcher.started:
            dispatcher.wake()  # the results of the first element are there now, to compare a worker's with
        else:
            self._background.cpus.watch.suspicious = worth
