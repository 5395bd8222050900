"""What becomes of the work of a worker that ended."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterable

from ._job import Job
from ._link import Held, Link
from ._split import Task
from .errors import ElementTimeoutError, ParwiseError, WorkerDiedError

# So often a worker may be killed in one call while it has nothing to do.
IDLE_DEATHS = 100
_PACKAGE = os.path.dirname(__file__) + os.sep


class Losses:
    """Decides what to do about each worker that ended in one call.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        # How many workers each element has cost; -1 stands for none.
        self._times: Counter[int] = Counter()

    def settle(self, link: Link, code: int | None, late: int | None) -> bool:
        """Have what was lost computed again, leave a gap, or fail the job.

        Parameters
        ----------
        link : Link
            Of the worker, which has ended.
        code : int or None
            Its exit code, or minus the signal; None if unknown.
        late : int or None
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
        held = list(link.holds.values())
        tasks = [one.task for one in held if not one.proof]
        index = _element(link, held) if late is None else late
        place = -1 if index is None else index
        self._times[place] += 1
        nothing_lost = not held and link.proven and self._times[place] <= IDLE_DEATHS
        in_time = late is not None and not any(one.task.lo <= late < one.task.hi for one in held)
        if nothing_lost or in_time or self._times[place] <= settings.retries:
            self._give_back(tasks)
            return True
        error = self._death(link, code, index, held) if late is None else self._too_late(link, late, held)
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
            self._job.transcript.lose(task.lo)
            self._job.plan.give_back([task])

    def _leave_gap(self, task: Task, index: int, error: ParwiseError) -> None:
        """Give up element `index` if it is in `task`; the rest is to be computed again."""
        job = self._job
        job.transcript.lose(task.lo)
        if not task.lo <= index < task.hi:
            job.plan.give_back([task])
        elif job.call.vectorized:
            job.skip(task, error)
        else:
            job.skip(Task(index, index + 1), error)
            rest = (Task(task.lo, index), Task(index + 1, task.hi))
            job.plan.give_back(part for part in rest if len(part))

    def _name(self, index: int, held: list[Held]) -> str:
        return self._job.call.name(index, next((one.task.hi for one in held if one.task.lo == index), None))

    def _too_late(self, link: Link, index: int, held: list[Held]) -> ElementTimeoutError:
        call = self._job.call
        error = ElementTimeoutError(
            f"the function took more than timeout={call.settings.timeout:g} s {self._name(index, held)}; "
            f"its worker process {link.pid} was killed"
        )
        error.pid, error.index, error.stack = link.pid, call.public_index(index), _stack(link)
        _note(error)
        return error

    def _death(self, link: Link, code: int | None, index: int | None, held: list[Held]) -> WorkerDiedError:
        if code is None:
            how = "in an unknown way"
        elif code < 0:
            how = f"by {_signal_name(-code)}"
        else:
            how = f"with exit code {code}"
        if index is None:
            where = "before it came to an element"
        elif link.at is None:
            where = f"before it called the function, {self._name(index, held)}"
        else:
            where = self._name(index, held)
        error = WorkerDiedError(
            f"worker process {link.pid} ended {how} {where}; the next call starts a new worker. {self._job.call.remedy}"
        )
        error.pid, error.stack = link.pid, _stack(link)
        error.index = None if index is None else self._job.call.public_index(index)
        error.signal = -code if code is not None and code < 0 else None
        error.exitcode = code if code is not None and code >= 0 else None
        _note(error)
        return error


def _element(link: Link, held: list[Held]) -> int | None:
    """The element that a dead worker was at, or that it would have come to."""
    index = link.at
    if index is None and held:
        return held[0].task.lo
    for one in held:  # past its last element the worker was sending results
        if index is not None and one.task.lo < index == one.task.hi:
            return index - 1
    return index


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time ones have none
        return f"signal {number}"


def _stack(link: Link) -> str:
    """The function's part of what a dead worker has written, innermost call first."""
    frames = [line for line in link.slots.stack.splitlines() if line.startswith("  File ")]
    return "\n".join(line for line in frames if f'File "{_PACKAGE}' not in line and 'File "<string>"' not in line)


def _note(error: WorkerDiedError | ElementTimeoutError) -> None:
    """Show the stack below the message."""
    if error.stack:
        error.add_note(f"it was at (innermost call first):\n{error.stack}")
