"""The observer of one call: passes events on to its progress display and to its record in reports."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core.call import Call
from .._core.nesting import is_nested
from .null_observer import UNOBSERVED, NullObserver

if TYPE_CHECKING:
    from .record import CallRecord


class OpenReport(NamedTuple):
    """A report whose ``with`` block is running."""

    calls: list[CallRecord]
    nested: bool  # True if the block is within a mapped function


#: Reports that are open in this context.
reports: ContextVar[tuple[OpenReport, ...]] = ContextVar("parwise_reports", default=())


def is_observed(call: Call) -> bool:
    """True if the call shows its progress, or a report is open."""
    return call.settings.progress is not None or bool(reports.get())


def _passed_on(event: Callable[..., None]) -> Any:
    """Method of `Observer` that calls the method of this name of both listeners."""

    def pass_on(self: Observer, *arguments: Any) -> None:
        for one in self.listeners:
            getattr(one, event.__name__)(*arguments)

    return pass_on


class Observer(NullObserver):
    """Passes the events of one call on to its record and its progress display; a context manager."""

    active = True

    def __init__(self, call: Call) -> None:
        # Imported here: most calls are not observed, and `import parwise` should be fast.
        from .progress import Progress
        from .record import CallRecord, known_count, name_of

        nested = is_nested()
        wanted = None if nested else call.settings.progress
        progress = UNOBSERVED if wanted is None else Progress(wanted, known_count(call), name_of(call.func))
        # A call within a mapped function is part of the call around it, unless the report was opened in that function.
        open_reports = [one for one in reports.get() if one.nested == nested]
        self.listeners: tuple[NullObserver, NullObserver] = UNOBSERVED, progress
        if open_reports:
            self.listeners = (record := CallRecord(call)), progress
            for one in open_reports:
                one.calls.append(record)

    def close(self, error: BaseException | None) -> None:
        """Close the progress display and the record, also if the first of them is interrupted."""
        record, progress = self.listeners
        try:
            progress.close(error)
        finally:
            record.close(error)

    took = _passed_on(NullObserver.took)
    skipped = _passed_on(NullObserver.skipped)
    show = _passed_on(NullObserver.show)
    finish = _passed_on(NullObserver.finish)
    workers_called = _passed_on(NullObserver.workers_called)
    served = _passed_on(NullObserver.served)
    waited = _passed_on(NullObserver.waited)
    staged = _passed_on(NullObserver.staged)
    read_directly = _passed_on(NullObserver.read_directly)
    used_files = _passed_on(NullObserver.used_files)
    explain = _passed_on(NullObserver.explain)
