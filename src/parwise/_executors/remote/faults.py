"""Faults of another library's executor, as errors of parwise that say where, how far, and what to do."""

from __future__ import annotations

from typing import Any

from ..._core.indexing import Task
from ..._core.inputs.items import ENDLESS
from ..._workers.remote import VERSIONS, Reply
from ...errors import ExecutorError, WorkerDiedError
from ..job.job import Job


class Faults:
    """Makes the errors of one job.

    Parameters
    ----------
    name : str
        The executor, for messages.

    Attributes
    ----------
    done : int
        Elements that have been computed.
    """

    def __init__(self, job: Job, name: str) -> None:
        self._job = job
        self._name = name
        self.done = 0

    @property
    def progress(self) -> str:
        """How far the call is, in words."""
        call = self._job.call
        kind = "items" if call.feed is not None else "elements"
        return f"{self.done} of {call.count} {kind} done" if call.count < ENDLESS else f"{self.done} {kind} done"

    def executor_error(self, message: str, lowest: Task | None, cause: BaseException | None = None) -> ExecutorError:
        """The error of an executor that cannot go on; `lowest` is the lowest unfinished task."""
        error = ExecutorError(f"{message}; {self.progress}")
        error.done = self.done
        error.__cause__ = cause
        if lowest is not None:
            error.index = self._job.call.public_index(lowest.lo)
            error.add_note(f"the lowest unfinished work was {self._where(lowest)}")
        return error

    def died(self, message: str, task: Task, cause: BaseException) -> WorkerDiedError:
        """The error of a process that died with a task."""
        error = WorkerDiedError(message)
        error.index = self._job.call.public_index(task.lo)
        error.__cause__ = cause
        return error

    def process_died(self, lowest: Task, cause: BaseException) -> WorkerDiedError:
        """The error of an executor that a dead process has broken."""
        where = self._job.call.name(lowest.lo, lowest.hi)
        message = f"a process of {self._name} died; the lowest unfinished work was {where} ({cause})"
        return self.died(message, lowest, cause)

    def task_failed(self, task: Task, cause: BaseException) -> ExecutorError:
        """The error of a task that the executor could not compute, for a reason of its own."""
        text = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
        return self.executor_error(f"{self._name} failed {self._where(task)} ({text})", task, cause)

    def refused(self, lowest: Task | None, cause: BaseException) -> ExecutorError:
        """The error of an executor that takes no more tasks."""
        message = f"{self._name} takes no more tasks ({cause}); keep it open until the call has returned"
        return self.executor_error(message, lowest, cause)

    def cancelled(self, lowest: Task | None, cause: BaseException) -> ExecutorError:
        """The error of an executor that has cancelled tasks."""
        message = (
            f"{self._name} has cancelled tasks of the call, as it does when it is shut down; keep it open until the "
            "call has returned"
        )
        return self.executor_error(message, lowest, cause)

    def unfit(self, reply: Reply) -> ExecutorError:
        """The error of a process that runs other versions than this one."""
        theirs, here = ([f"{name} {found[name]}" for name in VERSIONS] for found in (reply.versions, VERSIONS))
        return self.executor_error(
            f"process {reply.process} of {self._name} runs {' and '.join(theirs)}, and this one {' and '.join(here)}; "
            "functions are sent as bytecode: give all processes the same environment",
            None,
        )

    def lacking(self, cause: BaseException, where: str = "") -> ExecutorError:
        """The error of processes that cannot import parwise."""
        return self.executor_error(
            f"{where or f'a process of {self._name}'} cannot import parwise {VERSIONS['parwise']} ({cause}); install "
            f"it there, in the environment of the workers: pip install parwise=={VERSIONS['parwise']}",
            None,
            cause,
        )

    def _where(self, task: Task) -> str:
        behind = f", or {len(task) - 1} behind it" if len(task) > 1 and not self._job.call.vectorized else ""
        return self._job.call.name(task.lo, task.hi) + behind


def is_lack_of_parwise(error: BaseException) -> bool:
    """True for what `BOOTSTRAP` raises in a process without parwise, or with another version of it."""
    module: Any = getattr(error, "name", None)
    if isinstance(error, ImportError):
        return str(module).partition(".")[0] == __name__.partition(".")[0]
    return isinstance(error, AttributeError) and module == "answer"
