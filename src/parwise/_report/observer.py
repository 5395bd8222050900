"""What users want to see of a call at work: its progress, and a report."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .._core.call import Call
from .._core.indexing import Task
from .._core.input_items import ENDLESS
from .._core.kernel import Outcome, is_nested

if TYPE_CHECKING:
    from .progress import Progress
    from .record import CallRecord


class _Report(Protocol):
    calls: list[CallRecord]
    nested: bool


#: Reports that are open in this context.
reports: ContextVar[tuple[_Report, ...]] = ContextVar("parwise_reports", default=())


def is_observed(call: Call) -> bool:
    """Whether anybody wants to see anything of it."""
    return call.settings.progress is not None or bool(reports.get())


class Observer:
    """Hears of what happens in one call; a context manager.

    Parameters
    ----------
    call : Call
    """

    def __init__(self, call: Call) -> None:
        # Only here: most calls are not watched, and importing parwise is to be quick.
        from .progress import Progress
        from .record import CallRecord, name_of

        nested = is_nested()
        self._progress: Progress | None = None
        progress = call.settings.progress
        if progress is not None and not nested:
            name = name_of(call.func)
            total = call.count if call.count < ENDLESS else None
            self._progress = Progress(progress, total, "" if name == "<lambda>" else name)
        # Calls within a mapped function are part of the one around them, unless
        # somebody has asked for them there.
        wanted = [one for one in reports.get() if one.nested == nested]
        self._record = CallRecord(call) if wanted else None
        for one in wanted:
            assert self._record is not None
            one.calls.append(self._record)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if self._progress is not None:
                self._progress.close()
        finally:
            if self._record is not None:
                self._record.close(error)

    def took(self, task: Task, outcome: Outcome, who: object = None) -> None:
        """Hear what became of a task; `who` computed it, or None for this thread."""
        if self._record is not None:
            self._record.took(task, outcome, who)
        if outcome.error is None or outcome.gaps is not None:
            self.skipped(task)

    def skipped(self, task: Task) -> None:
        """Hear that elements are done with, though nobody has computed them."""
        if self._progress is not None:
            self._progress.add(len(task))

    def show(self) -> None:
        """Show how far the call has come, if it is time."""
        if self._progress is not None:
            self._progress.show()

    def finish(self) -> None:
        """Show that there is a result."""
        if self._progress is not None:
            self._progress.finish()

    def workers_called(self) -> None:
        """Hear that workers are called for."""
        if self._record is not None:
            self._record.workers_called()

    def served(self) -> None:
        """Hear that a worker has something to do."""
        if self._record is not None:
            self._record.served()

    def waited(self, since: float) -> None:
        """Hear that this thread has waited."""
        if self._record is not None:
            self._record.waited(since)

    def staged(self, nbytes: int) -> None:
        """Hear that arguments were copied for a worker."""
        if self._record is not None:
            self._record.staged += nbytes

    def explain(self, why: str) -> None:
        """Hear why workers have no part in the call."""
        if self._record is not None:
            self._record.why = why
