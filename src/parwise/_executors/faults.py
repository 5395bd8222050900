"""What becomes of the work of a worker that ended."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from .._core.indexing import Task
from .._system.limits import LOOK_SECONDS, memory_limit, own_bytes
from .._workers.handle import Assignment, WorkerHandle
from ..errors import PACKAGE, ElementTimeoutError, ParwiseError, WorkerDiedError
from .job import Job

# Seconds between two looks at elements that may take too long.
LEAST_HELP_SECONDS = 0.005
# A worker whose own memory grows by so much in a call is renewed, or by this
# part of what each worker may have, if that is less.
GROWTH_BYTES = 2**30
GROWTH_SHARE = 4


class Watchdog:
    """Tells which workers should go.

    Parameters
    ----------
    timeout : float or None
        Seconds that one element may take.
    workers : int
        How many share the memory.
    """

    def __init__(self, timeout: float | None, workers: int) -> None:
        self._timeout = timeout
        self._growth = min(GROWTH_BYTES, memory_limit() // (GROWTH_SHARE * workers))
        self._looked = time.monotonic()

    def patience(self, timeout: float | None, workers: Iterable[WorkerHandle]) -> float | None:
        """Seconds to wait for news, if `timeout` sets no end: until an element may be late."""
        if self._timeout is None:
            return timeout
        now = time.monotonic()
        begun = [worker.since if worker.at is not None else now for worker in workers if worker.assignments]
        left = max(LEAST_HELP_SECONDS, min(begun, default=now) + self._timeout - now)
        return left if timeout is None else min(timeout, left)

    def overdue(self, workers: Iterable[WorkerHandle]) -> Iterator[tuple[WorkerHandle, int]]:
        """Workers whose element takes too long, and that element."""
        if self._timeout is None:
            return
        for worker in list(workers):
            index = worker.at
            if index is None or not any(one.task.lo <= index < one.task.hi for one in worker.assignments.values()):
                continue
            overdue = time.monotonic() - worker.since > self._timeout
            # Unless it has gone on meanwhile.
            if overdue and worker.at == index and worker.pidfd >= 0:
                yield worker, index

    def oversized(self, workers: Iterable[WorkerHandle]) -> Iterator[WorkerHandle]:
        """Workers that are to be given nothing more, since they have grown, and hold nothing now."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            for worker in workers:
                self._look(worker)
        yield from [
            worker for worker in workers if worker.retiring and not worker.assignments and worker.sender is None
        ]

    def _look(self, worker: WorkerHandle) -> None:
        has = own_bytes(worker.pid) if worker.pid else 0
        if has:
            worker.least_bytes = min(has, worker.least_bytes or has)
            worker.retiring = has - worker.least_bytes > self._growth


# So often a worker may be killed in one call while it has nothing to do.
IDLE_DEATHS = 100


class FaultPolicy:
    """Decides what to do about each worker that ended in one call.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        # How many workers each element has cost; -1 stands for none.
        self._times: Counter[int] = Counter()

    def handle_exit(self, worker: WorkerHandle, code: int | None, overdue: int | None) -> bool:
        """Have what was lost computed again, leave a gap, or fail the job.

        Parameters
        ----------
        worker : WorkerHandle
            Of the worker, which has ended.
        code : int or None
            Its exit code, or minus the signal; None if unknown.
        overdue : int or None
            The element that took too long, if it was killed for that.

        Returns
        -------
        bool
            Whether what it was at is to be computed again.

        Raises
        ------
        WorkerDiedError
            If it had come to no element.
        """
        job, settings = self._job, self._job.call.settings
        assignment = list(worker.assignments.values())
        tasks = [one.task for one in assignment if not one.handshake]
        index = _element(worker, assignment) if overdue is None else overdue
        place = -1 if index is None else index
        self._times[place] += 1
        nothing_lost = not assignment and worker.proven and self._times[place] <= IDLE_DEATHS
        in_time = overdue is not None and not any(one.task.lo <= overdue < one.task.hi for one in assignment)
        if nothing_lost or in_time or self._times[place] <= settings.retries:
            self._give_back(tasks)
            return True
        error = (
            self._death(worker, code, index, assignment)
            if overdue is None
            else self._too_late(worker, overdue, assignment)
        )
        if index is None:
            raise error
        if settings.ignore:
            for task in tasks:
                self._leave_gap(task, index, error)
        else:
            job.fail(index, error)
            # Only what comes before can still matter: an exception there counts first.
            self._give_back(task for task in tasks if task.hi <= index)
        return False

    def _give_back(self, tasks: Iterable[Task]) -> None:
        """Have tasks computed again."""
        for task in list(tasks):
            self._job.output_replay.lose(task.lo)
            self._job.queue.give_back([task])

    def _leave_gap(self, task: Task, index: int, error: ParwiseError) -> None:
        """Give up element `index` if it is in `task`; the rest is to be computed again."""
        job = self._job
        job.output_replay.lose(task.lo)
        if not task.lo <= index < task.hi:
            job.queue.give_back([task])
        elif job.call.vectorized:
            job.skip(task, error)
        else:
            job.skip(Task(index, index + 1), error)
            rest = (Task(task.lo, index), Task(index + 1, task.hi))
            job.queue.give_back(part for part in rest if len(part))

    def _name(self, index: int, assignment: list[Assignment]) -> str:
        return self._job.call.name(index, next((one.task.hi for one in assignment if one.task.lo == index), None))

    def _too_late(self, worker: WorkerHandle, index: int, assignment: list[Assignment]) -> ElementTimeoutError:
        call = self._job.call
        error = ElementTimeoutError(
            f"the function took more than timeout={call.settings.timeout:g} s {self._name(index, assignment)}; "
            f"its worker process {worker.pid} was killed"
        )
        error.pid, error.index, error.stack = worker.pid, call.public_index(index), _stack(worker)
        _note(error)
        return error

    def _death(
        self, worker: WorkerHandle, code: int | None, index: int | None, assignment: list[Assignment]
    ) -> WorkerDiedError:
        if code is None:
            how = "in an unknown way"
        elif code < 0:
            how = f"by {_signal_name(-code)}"
        else:
            how = f"with exit code {code}"
        if index is None:
            where = "before it came to an element"
        elif worker.at is None:
            where = f"before it called the function, {self._name(index, assignment)}"
        else:
            where = self._name(index, assignment)
        error = WorkerDiedError(
            f"worker process {worker.pid} ended {how} {where}; the next call starts a new worker. "
            f"{self._job.call.naming.remedy}"
        )
        error.pid, error.stack = worker.pid, _stack(worker)
        error.index = None if index is None else self._job.call.public_index(index)
        error.signal = -code if code is not None and code < 0 else None
        error.exitcode = code if code is not None and code >= 0 else None
        _note(error)
        return error


def _element(worker: WorkerHandle, assignment: list[Assignment]) -> int | None:
    """The element that a dead worker was at, or that it would have come to."""
    index = worker.at
    if index is None and assignment:
        return assignment[0].task.lo
    for one in assignment:  # past its last element the worker was sending results
        if index is not None and one.task.lo < index == one.task.hi:
            return index - 1
    return index


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time ones have none
        return f"signal {number}"


def _stack(worker: WorkerHandle) -> str:
    """The function's part of what a dead worker has written, innermost call first."""
    frames = [line for line in worker.slots.stack.splitlines() if line.startswith("  File ")]
    return "\n".join(line for line in frames if f'File "{PACKAGE}' not in line and 'File "<string>"' not in line)


def _note(error: WorkerDiedError | ElementTimeoutError) -> None:
    """Show the stack below the message."""
    if error.stack:
        error.add_note(f"it was at (innermost call first):\n{error.stack}")
