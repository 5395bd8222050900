"""The observer of one call: passes events on to its progress display and to its record in reports."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from .._core.call import Call
from .._core.indexing import Task
from .._core.kernel import Outcome, is_nested
from .null_observer import UNOBSERVED, NullObserver

if TYPE_CHECKING:
    from .record import CallRecord

__all__ = ["UNOBSERVED", "NullObserver", "Observer", "OpenReport", "is_observed", "reports"]


class OpenReport(NamedTuple):
    """A report whose ``with`` block is running.

    Attributes
    ----------
    calls : list of CallRecord
        Receives a record of each call.
    nested : bool
        True if the block is within a mapped function.
    """

    calls: list[CallRecord]
    nested: bool


#: Reports that are open in this context.
reports: ContextVar[tuple[OpenReport, ...]] = ContextVar("parwise_reports", default=())


def is_observed(call: Call) -> bool:
    """True if the call shows its progress, or a report is open."""
    return call.settings.progress is not None or bool(reports.get())


class Observer(NullObserver):
    """Passes the events of one call on; a context manager.

    Parameters
    ----------
    call : Call
    """

    active = True

    def __init__(self, call: Call) -> None:
        # Imported here: most calls are not observed, and `import parwise` should be fast.
        from .progress import Progress
        from .record import CallRecord, known_count, name_of

        nested = is_nested()
        wanted = None if nested else call.settings.progress
        self._progress = UNOBSERVED if wanted is None else Progress(wanted, known_count(call), name_of(call.func))
        # A call within a mapped function is part of the call around it, unless
        # the report was opened in that function.
        open_reports = [one for one in reports.get() if one.nested == nested]
        self._record = UNOBSERVED
        if open_reports:
            self._record = record = CallRecord(call)
            for one in open_reports:
                one.calls.append(record)

    def close(self, error: BaseException | None) -> None:
        """Close the progress display and the record, also if the first of them is interrupted."""
        try:
            self._progress.close(error)
        finally:
            self._record.close(error)

    def took(self, task: Task, outcome: Outcome, worker: object = None) -> None:
        """Pass the outcome of a task on to both."""
        self._record.took(task, outcome, worker)
        self._progress.took(task, outcome, worker)

    def skipped(self, task: Task) -> None:
        """Pass on to the progress display."""
        self._progress.skipped(task)

    def show(self) -> None:
        """Pass on to the progress display."""
        self._progress.show()

    def finish(self) -> None:
        """Pass on to the progress display."""
        self._progress.finish()

    def workers_called(self) -> None:
        """Pass on to the record."""
        self._record.workers_called()

    def served(self) -> None:
        """Pass on to the record."""
        self._record.served()

    def waited(self, since: float) -> None:
        """Pass on to the record."""
        self._record.waited(since)

    def staged(self, nbytes: int) -> None:
        """Pass on to the record."""
        self._record.staged(nbytes)

    def explain(self, why: str) -> None:
        """Pass on to the record."""
        self._record.explain(why)
