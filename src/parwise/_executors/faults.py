"""Deadlines, memory and deaths of workers: what they held is computed again, left as a gap, or fails the job."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable, Iterator

from .._clock import monotonic
from .._core.indexing import Task
from .._system.limits import LOOK_SECONDS, memory_limit, own_bytes
from .._workers.handle import Assignment, WorkerHandle
from ..errors import PACKAGE, ElementTimeoutError, ParwiseError, WorkerDiedError
from .job import Job

# The least wait between two checks of deadlines.
LEAST_WAIT_SECONDS = 0.005
# A worker is replaced if its own memory grows by so many bytes in one call, or by this part of its share of the
# memory, whichever is less.
GROWTH_BYTES = 2**30
GROWTH_SHARE = 4


class Watchdog:
    """Finds workers that exceed a deadline or their memory.

    Parameters
    ----------
    timeout : float or None
        Seconds that one element may take.
    workers : int
        Workers that share the memory.
    """

    def __init__(self, timeout: float | None, workers: int) -> None:
        self._timeout = timeout
        self._growth = min(GROWTH_BYTES, memory_limit() // (GROWTH_SHARE * workers))
        self._looked = monotonic()

    def wait_seconds(self, timeout: float | None, workers: Iterable[WorkerHandle]) -> float | None:
        """Seconds to wait for messages: `timeout`, or until the next deadline; None for no limit."""
        if self._timeout is None:
            return timeout
        now = monotonic()
        begun = [worker.since if worker.at is not None else now for worker in workers if worker.assignments]
        left = max(LEAST_WAIT_SECONDS, min(begun, default=now) + self._timeout - now)
        return left if timeout is None else min(timeout, left)

    def overdue(self, workers: Iterable[WorkerHandle]) -> Iterator[tuple[WorkerHandle, int]]:
        """Workers whose element has exceeded the deadline, and that element."""
        if self._timeout is None:
            return
        for worker in list(workers):
            index = worker.at
            if index is None or not any(one.task.lo <= index < one.task.hi for one in worker.assignments.values()):
                continue
            overdue = monotonic() - worker.since > self._timeout
            # It may have finished that element meanwhile.
            if overdue and worker.at == index and worker.pidfd >= 0:
                yield worker, index

    def oversized(self, workers: Iterable[WorkerHandle]) -> Iterator[WorkerHandle]:
        """Workers whose memory has grown too much, and that hold no task now."""
        now = monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            for worker in workers:
                self._measure(worker)
        yield from [
            worker for worker in workers if worker.retiring and not worker.assignments and worker.sender is None
        ]

    def _measure(self, worker: WorkerHandle) -> None:
        nbytes = own_bytes(worker.pid) if worker.pid else 0
        if nbytes:
            worker.least_bytes = min(nbytes, worker.least_bytes or nbytes)
            worker.retiring = nbytes - worker.least_bytes > self._growth


# Workers that may be killed in one call while they hold no task; one more is an error.
IDLE_DEATHS = 100


class FaultPolicy:
    """Decides what happens to the tasks of each worker that ended in one call."""

    def __init__(self, job: Job) -> None:
        self._job = job
        # Workers that ended at each element; -1 stands for those that ended at none.
        self._deaths: Counter[int] = Counter()

    def handle_exit(self, worker: WorkerHandle, code: int | None, overdue: int | None) -> bool:
        """Return lost tasks to the queue, leave a gap, or fail the job.

        Parameters
        ----------
        code : int or None
            Exit code of the worker, or minus the number of a signal; None if unknown.
        overdue : int or None
            The element that exceeded the deadline, if the worker was killed for that.

        Returns
        -------
        bool
            True if the tasks of the worker are computed again, its handshake included.

        Raises
        ------
        WorkerDiedError
            If the worker ended before its first element.
        """
        job, settings = self._job, self._job.call.settings
        assignments = list(worker.assignments.values())
        tasks = [one.task for one in assignments if not one.handshake]
        index = _element(worker, assignments) if overdue is None else overdue
        if overdue is None and any(one.handshake and one.task.lo == index for one in assignments):
            self._give_back(tasks)  # the caller has the result of the element that it was at
            return False
        # The function of an earlier call, which went on without this worker, may have killed it as it was loaded.
        of_earlier_call = worker.loading_earlier and worker.at is None
        place = -1 if index is None or of_earlier_call else index
        self._deaths[place] += 1
        idle = of_earlier_call or (not assignments and worker.has_computed)
        nothing_lost = idle and self._deaths[place] <= IDLE_DEATHS
        in_time = overdue is not None and not any(one.task.lo <= overdue < one.task.hi for one in assignments)
        if nothing_lost or in_time or self._deaths[place] <= settings.retries:
            self._give_back(tasks)
            return True
        error = (
            self._death(worker, code, index, assignments)
            if overdue is None
            else self._too_late(worker, overdue, assignments)
        )
        if index is None:
            raise error
        if settings.ignore:
            for task in tasks:
                self._leave_gap(task, index, error)
        else:
            job.fail(index, error)
            # Only elements before it still matter: of several exceptions the one of the lowest index is raised.
            self._give_back(task for task in tasks if task.hi <= index)
        return False

    def _give_back(self, tasks: Iterable[Task]) -> None:
        """Return tasks to the queue."""
        for task in list(tasks):
            self._job.output_replay.lose(task.lo)
            self._job.queue.give_back([task])

    def _leave_gap(self, task: Task, index: int, error: ParwiseError) -> None:
        """Leave a gap at element `index` if it is in `task`, and return the rest to the queue."""
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

    def _name(self, index: int, assignments: list[Assignment]) -> str:
        return self._job.call.name(index, next((one.task.hi for one in assignments if one.task.lo == index), None))

    def _too_late(self, worker: WorkerHandle, index: int, assignments: list[Assignment]) -> ElementTimeoutError:
        call = self._job.call
        error = ElementTimeoutError(
            f"the function took more than timeout={call.settings.timeout:g} s {self._name(index, assignments)}; "
            f"its worker process {worker.pid} was killed"
        )
        error.pid, error.index, error.stack = worker.pid, call.public_index(index), _stack(worker)
        _note(error)
        return error

    def _death(
        self, worker: WorkerHandle, code: int | None, index: int | None, assignments: list[Assignment]
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
            where = f"before it called the function, {self._name(index, assignments)}"
        else:
            where = self._name(index, assignments)
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


def _element(worker: WorkerHandle, assignments: list[Assignment]) -> int | None:
    """The element that a dead worker was computing, or would have computed next."""
    index = worker.at
    if index is None and assignments:
        return assignments[0].task.lo
    for one in assignments:  # past its last element the worker was sending results
        if index is not None and one.task.lo < index == one.task.hi:
            return index - 1
    return index


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time ones have none
        return f"signal {number}"


def _stack(worker: WorkerHandle) -> str:
    """The function's frames in the stack that a dead worker has written, innermost call first."""
    frames = [line for line in worker.slots.stack.splitlines() if line.startswith("  File ")]
    return "\n".join(line for line in frames if f'File "{PACKAGE}' not in line and 'File "<string>"' not in line)


def _note(error: WorkerDiedError | ElementTimeoutError) -> None:
    """Add the stack to the message."""
    if error.stack:
        error.add_note(f"it was at (innermost call first):\n{error.stack}")
