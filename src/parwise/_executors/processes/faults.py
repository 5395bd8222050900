"""Deaths of workers: what they held is computed again, left as a gap, or fails the job."""

from __future__ import annotations

import signal
import warnings
from collections import Counter
from collections.abc import Iterable

from ..._core.indexing import Task
from ..._core.messages.notes import name_with_item
from ..._workers.pool.silence import Silence
from ..._workers.pool.worker_handle import Assignment, WorkerHandle
from ...errors import PACKAGE, ElementTimeoutError, ParwiseError, WorkerDiedError, user_level
from ..job.job import Job

# Workers that may be killed in one call while they hold no task; one more is an error.
IDLE_DEATHS = 100
# Silent workers whose elements had not begun that are replaced in one call, at least; one more is an error.
SILENT_DEATHS = 2


class FaultPolicy:
    """Decides what happens to the tasks of each worker that ended in one call."""

    def __init__(self, job: Job) -> None:
        self._job = job
        # Workers that ended at each element; -1 stands for those that ended at none.
        self._deaths: Counter[int] = Counter()
        self._silences = self._idle_deaths = 0

    def handle_exit(self, worker: WorkerHandle, code: int | None, killed_for: int | Silence | None) -> bool:
        """Return lost tasks to the queue, leave a gap, or fail the job.

        Parameters
        ----------
        code : int or None
            Exit code of the worker, or minus the number of a signal; None if unknown.
        killed_for : int or Silence or None
            Why it was killed here: the element that exceeded the deadline, or its silence.

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
        overdue = killed_for if isinstance(killed_for, int) else None
        assignments = list(worker.assignments.values())
        tasks = [one.task for one in assignments if not one.handshake]
        index = _element(worker, assignments) if overdue is None else overdue
        if any(one.handshake and one.task.lo == index for one in assignments):
            self._give_back(tasks)  # the call has the result of the element that it was at
            return False
        # It was killed before this call, or by the function of an earlier one, which went on without it.
        of_earlier_call = worker.is_of_an_earlier_call
        place = -1 if index is None or of_earlier_call else index
        idle = of_earlier_call or (not assignments and (worker.has_computed or worker.slots.cursor.loaded))
        self._idle_deaths += idle
        in_time = overdue is not None and not any(one.task.lo <= overdue < one.task.hi for one in assignments)
        nothing_lost = (
            in_time
            or (idle and self._idle_deaths <= IDLE_DEATHS)
            or self._had_not_begun(worker, assignments, killed_for)
        )
        self._deaths[place] += not nothing_lost  # what costs nothing spends no retry
        if nothing_lost or self._deaths[place] <= settings.retries:
            self._give_back(tasks)
            return True
        error = (
            self._death(worker, code, _how(worker, code, killed_for), index, assignments)
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

    def handle_silence(self, worker: WorkerHandle) -> bool:
        """Return True if a silent worker is to be killed; tell the user of the wait if the call has no timeout."""
        settings = self._job.call.settings
        if settings.timeout is None and not worker.silence.told:
            worker.silence.told = True
            warnings.warn(
                f"worker process {worker.pid} has {worker.silence.words}, and the call waits for it; Ctrl-C "
                "ends the call, and with timeout=seconds such workers are replaced",
                RuntimeWarning,
                stacklevel=user_level(),
            )
        return settings.timeout is not None

    def _had_not_begun(
        self, worker: WorkerHandle, assignments: list[Assignment], killed_for: int | Silence | None
    ) -> bool:
        """True if a worker has begun none of its tasks, and its fork server or its silence was the reason."""
        if any(worker.since >= one.since for one in assignments):
            return False
        never_forked = not worker.pid and not assignments
        if isinstance(killed_for, Silence):
            self._silences += 1
            return self._silences <= max(SILENT_DEATHS, self._job.call.settings.retries)
        return worker.orphaned or never_forked

    def _give_back(self, tasks: Iterable[Task]) -> None:
        """Return tasks to the queue."""
        for task in list(tasks):
            self._job.output_replay.lose(task.lo)
            self._job.queue.lose([task])

    def _leave_gap(self, task: Task, index: int, error: ParwiseError) -> None:
        """Leave a gap at element `index` if it is in `task`, and return the rest to the queue."""
        job = self._job
        job.output_replay.lose(task.lo)
        if not task.lo <= index < task.hi:
            job.queue.lose([task])
        elif job.call.vectorized:
            job.skip(task, error)
        else:
            job.skip(Task(index, index + 1), error)
            rest = (Task(task.lo, index), Task(index + 1, task.hi))
            job.queue.lose(part for part in rest if len(part))

    def _name(self, index: int, assignments: list[Assignment]) -> str:
        stop = next((one.task.hi for one in assignments if one.task.lo == index), None)
        return name_with_item(self._job.call, index, stop)

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
        self, worker: WorkerHandle, code: int | None, how: str, index: int | None, assignments: list[Assignment]
    ) -> WorkerDiedError:
        if index is None:
            where = "before it came to an element"
        elif worker.at is None:
            where = f"before it called the function, or as it sent results, {self._name(index, assignments)}"
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
    if not assignments:
        return index
    # Tasks are computed in the order sent. Another one may well end where this one begins: one that was given back.
    current = assignments[0].task
    if index is None:
        return current.lo
    # Past its last element the worker was sending results.
    return index - 1 if current.lo < index == current.hi else index


def _how(worker: WorkerHandle, code: int | None, killed_for: int | Silence | None) -> str:
    """How a worker has ended, in words."""
    if isinstance(killed_for, Silence):
        return f"by parwise, since it had {killed_for.words},"
    if code is None:
        return "with the process that starts workers" if worker.orphaned else "in an unknown way"
    return f"by {_signal_name(-code)}" if code < 0 else f"with exit code {code}"


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
