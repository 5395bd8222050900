"""The calling thread's own share of a call, before workers are up and beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING

from ..._clock import perf_counter
from ..._core.indexing import Task
from ..._core.inputs.items import LOOK_AHEAD
from ..._system.limits import cpu_is_idle
from ..inline_run import InlineRun
from ..job.job import Job
from ..serial import compute_list, next_own
from .background import BUSY_SECONDS, COLD_SECONDS, HELP_AFTER_SECONDS, WARM_SECONDS, BackgroundDispatcher
from .known_paces import PaceOfCall, known_paces
from .sharing import is_shared

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

# Lengths of the caller's own tasks: the second one is long enough to measure the time of an element. With workers
# up, each 2 ms of them leave a CPU idle, so the first one is shorter.
TRIAL_SECONDS = 0.002
EARLY_SECONDS = 0.0004
OWN_SECONDS = 0.004
# A call that was known to be too short for workers may take so long before they are considered.
SHORT_SECONDS = 2 * WARM_SECONDS
# Up to so many times the work for which workers usually pay it is tried whether they do.
MIDDLING = 8
# When a call that may be the caller's alone looks whether workers would pay.
WARM_LOOKS = (EARLY_SECONDS, 0.0016, 0.0064, 0.0256, 0.1024)
# The same without workers: starting them takes imports of 10 ms in the first call of a process.
COLD_LOOKS = (TRIAL_SECONDS, 0.008, 0.032, 0.128)


def run_short(job: Job, pace: PaceOfCall) -> InlineRun | None:
    """Compute a call that is known to be faster without workers, and nothing that only they need; None for others.

    What a call of the function and all around it takes is 0.1 ms less then. If it turns out to be longer, its first
    milliseconds have been computed.
    """
    call, known = job.call, pace.known
    if known is None or job.observer.active or call.feed is not None or not InlineRun.suits(call):
        return None
    seconds = known.work * call.expected
    if seconds > WARM_SECONDS and (known.to_share or not is_middling(seconds)):
        return None
    job.pack_first()
    inline = InlineRun(call, job.kernel, job.reads_only)
    inline.run((max(SHORT_SECONDS, 2 * seconds),), pace=known.seconds)
    return inline


def run_inline(job: Job, background: BackgroundDispatcher, pace: PaceOfCall) -> bool | None:
    """Compute the first milliseconds of a call in this thread, and open the job behind them.

    Returns None if the call has its result; else True if `background` has joined, False if another call has the
    workers.
    """
    if not InlineRun.suits(job.call):
        return background.join(lambda: 0)
    call = job.call
    transfer_seconds = job.transfer_seconds() if job.reads_only else 0.0
    known = pace.known
    seconds = 0.0 if known is None else (known.work - transfer_seconds) * call.expected
    least = WARM_SECONDS
    if known is not None and is_middling(known.work * call.expected) and not known.to_share:
        least *= MIDDLING
    shared = known is not None and background.warm and pays(seconds, least)
    if known is not None and shared and not known.threaded and is_shared(seconds):
        joined = background.join(lambda: 0)
        job.queue.expect_pace(known.work)
        return joined
    job.pack_first()
    # Copies for workers would take longer than what they save, where the function reads little of much.
    inline = InlineRun(call, job.kernel, job.reads_only, transfer_seconds)

    # The helper thread takes 30 us, and its turns some ms each where other programs have all CPUs. Without it, a call
    # whose elements take much longer than last time is shared only when its first batch is done.
    helped = known is None or shared or known.seconds * call.expected > BUSY_SECONDS
    expect = (lambda: background.expect(background.help_after(), inline.claim)) if helped else None
    if call.feed is not None:  # tasks of the queue take less time for each item
        inline.run((EARLY_SECONDS, TRIAL_SECONDS), expect, lambda left: left > TRIAL_SECONDS)
    elif background.warm:
        inline.run(WARM_LOOKS, expect, partial(pays, least=least))
    else:
        inline.run(COLD_LOOKS, expect, pays_cold)
    if inline.end(job):
        pace.keep(inline.seconds / max(1, call.count))
        if background.warm and is_middling(inline.seconds):
            pace.keep_way(shared=False)
        if inline.seconds > WARM_SECONDS and not background.has_started_workers:
            known_paces.serial_seconds += inline.seconds
        if job.observer.active and job.workers > 1:
            found = least_seconds(background, inline.seconds)
            if least > WARM_SECONDS:
                found = "such calls took longer with workers, or this one was to show how long they take without"
            job.explain(f"all of it took {inline.seconds * 1e3:.2g} ms; {found}")
        return None
    return join_behind(inline, job, background)


def join_behind(inline: InlineRun, job: Job, background: BackgroundDispatcher) -> bool:
    """Open the job behind the first elements, and have it accept these; False if another call has the workers."""
    joined = background.join(inline.claim)
    inline.hand_over(job)
    return joined


def pays(left: float, least: float) -> bool:
    """Tell whether workers that are up pay for `left` seconds of work, as they do from `least` seconds on."""
    return left > BUSY_SECONDS or (left > least and cpu_is_idle())


def pays_cold(left: float) -> bool:
    """Tell whether starting workers pays for `left` seconds of work.

    Each call of middling length is too short for that. The time that workers could have shared is added up over calls,
    until they pay for one.
    """
    return left + known_paces.serial_seconds > COLD_SECONDS


def is_middling(seconds: float) -> bool:
    """Tell whether a call with so many seconds of work is so long that workers may pay, and so short that they may not.

    One of 20 ms took 16 ms with a worker, and 24 ms a minute later, as another guest had a part of both CPUs.
    """
    return WARM_SECONDS < seconds <= MIDDLING * WARM_SECONDS


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
            # Without a measured pace, it is that of an earlier call, in which no BLAS threads took part.
            expected = job.queue.mean_pace is None
            if worth and background.has_idle_workers and background.cpus.seems_free(single_threaded=expected):
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
        if self._begun and background.dispatcher.started:  # whether workers pay has been decided
            self._seconds = OWN_SECONDS
            self._poll(False)
            return
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
        dispatcher = self._background.dispatcher
        if self._job.observer.active and not dispatcher.started:
            self._explain()
        known_paces.serial_seconds = 0.0 if dispatcher.started else known_paces.serial_seconds + self._serial_seconds
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
        """Tell whether workers pay for `left` seconds of work."""
        return pays(left, WARM_SECONDS) if self._background.has_idle_workers else pays_cold(left)

    def _after_first(self, worth: bool) -> None:
        """After the first element: wake the helper thread, or measure whether CPUs are free during the next one."""
        dispatcher = self._background.dispatcher
        if dispatcher.started:
            dispatcher.wake()  # the results of the first element are there now, to compare a worker's with
        else:
            self._background.cpus.watch.suspicious = worth
