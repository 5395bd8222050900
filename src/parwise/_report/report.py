"""A report of where the time of calls went: as text, numbers, HTML and a picture."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextvars import Token
from types import TracebackType
from typing import Any

from .._core.kernel import is_nested
from .observer import OpenReport, reports
from .record import CallRecord, Timeline

_BLUE, _GREY = "#3b76af", "#dddddd"
# Geometry of the timeline in HTML, in pixels.
_WIDTH, _ROW, _LABEL = 640, 18, 130


class Report:
    """Where the time of some calls went; made by `parwise.report`.

    It prints as text, and a notebook shows it as HTML.

    Attributes
    ----------
    calls : list
        One entry per call, in order; each has a ``to_dict()``.
    """

    def __init__(self) -> None:
        self.calls: list[CallRecord] = []
        self._token: Token[Any] | None = None

    def __enter__(self) -> Report:
        if self._token is not None:
            raise RuntimeError("this report is open already; make another one with parwise.report()")
        self._token = reports.set((*reports.get(), OpenReport(self.calls, is_nested())))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        token, self._token = self._token, None
        assert token is not None
        reports.reset(token)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain numbers and text, ready for JSON.

        Returns
        -------
        dict
            ``calls``, a list with a dict for each call: ``function``,
            ``elements``, ``executor`` and ``workers`` as asked for; ``seconds``
            in all; ``f_seconds``, the sum of all time in the function;
            ``startup_seconds`` from calling for workers to the first one's
            first task (None if there was none); ``waiting_seconds`` of the
            caller; ``bytes_staged``, arguments copied for workers; ``caller``
            and a list ``per_worker`` of dicts with ``name``, ``tasks``,
            ``elements``, ``busy_seconds`` in the function and ``busy_share``,
            that as a part of the call; ``why_serial``, why workers had no part
            in it; and ``error``, the exception's type, if it ended with one.
        """
        return {"calls": [one.to_dict() for one in self.calls]}

    def __str__(self) -> str:
        return "\n\n".join(map(_text, self.calls)) or "no call so far"

    def __repr__(self) -> str:
        return f"<parwise report of {len(self.calls)} call(s)>"

    def _repr_html_(self) -> str:
        if not self.calls:
            return "<p>no call so far</p>"
        return "".join(_html(one) for one in self.calls) + _svg(self.calls)

    def plot(self, ax: Any = None) -> Any:
        """Draw who computed when, one row for the caller and one for each worker.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new one by default.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise ImportError("the timeline needs matplotlib: pip install matplotlib") from error
            ax = pyplot.subplots(layout="constrained")[1]
        rows = _rows(self.calls)
        for row, (_, bars) in enumerate(rows):
            for begin, end, busy in bars:
                ax.broken_barh([(begin, end - begin)], (row - 0.4, 0.8), color=_BLUE if busy else _GREY)
        ax.set_yticks(range(len(rows)), [name for name, _ in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)  # the caller on top
        ax.set_xlabel("seconds")
        return ax


def report() -> Report:
    """Tell where the time of calls went.

    All calls in the ``with`` block are noted that its thread makes. Calls
    within a mapped function are part of the one around them.

    Returns
    -------
    Report
        A context manager. It can be printed, has a ``to_dict()``, and a
        ``plot()`` that draws a timeline with matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> import parwise
    >>> with parwise.report() as r:
    ...     total = parwise.parallel_apply(np.sum, np.ones((3, 4)), workers=1)
    >>> r.to_dict()["calls"][0]["why_serial"]
    'workers=1'
    >>> print(r)  # doctest: +ELLIPSIS
    sum: 3 elements in ... (executor processes, 1 worker)
    ...
    """
    return Report()


def _text(record: CallRecord) -> str:
    """One call, as lines of text."""
    lines = [_title(record), *(f"  {name:<13}{value}" for name, value in _facts(record))]
    lanes = [record.caller, *record.lanes]
    width = max(len(one.name) for one in lanes)
    lines += [f"  {one.name:<{width}}  " + "  ".join(f"{text:>10}" for text in _cells(record, one)) for one in lanes]
    return "\n".join(lines)


def _title(record: CallRecord) -> str:
    workers = record.workers
    return (
        f"{record.function}: {record.elements:,} element{'s' * (record.elements != 1)} in {duration(record.seconds)} "
        f"(executor {record.executor}, {workers} worker{'s' * (workers != 1)})"
    )


def _facts(record: CallRecord) -> Iterator[tuple[str, str]]:
    """What there is to say of a call as a whole."""
    if record.error is not None:
        yield "ended by", record.error
    if record.why is not None:
        yield ("serial" if not record.lanes else "taken back"), record.why
    everything = sum(one.busy for one in [record.caller, *record.lanes])
    yield "in f", f"{duration(everything)} in all, {duration(record.caller.busy)} of it in the caller"
    if record.startup is not None:
        yield "start-up", f"{duration(record.startup)} until the first worker served"
    if record.lanes:
        yield "waiting", f"{duration(record.waiting)} of the caller's"
    if record.bytes_staged:
        yield "staged", f"{amount(record.bytes_staged)} of arguments"


def _cells(record: CallRecord, lane: Timeline) -> list[str]:
    share = lane.busy / record.seconds if record.seconds else 0.0
    return [
        f"{lane.tasks:,} task{'s' * (lane.tasks != 1)}",
        f"{lane.elements:,} element{'s' * (lane.elements != 1)}",
        f"{duration(lane.busy)} in f",
        f"{share:.0%} busy",
    ]


def _html(record: CallRecord) -> str:
    """One call, as two tables."""
    facts = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in _facts(record))
    lanes = "".join(
        f"<tr><th>{html.escape(one.name)}</th>" + "".join(f"<td>{cell}</td>" for cell in _cells(record, one)) + "</tr>"
        for one in [record.caller, *record.lanes]
    )
    return f"<p><b>{html.escape(_title(record))}</b></p><table>{facts}</table><table>{lanes}</table>"


def _svg(calls: list[CallRecord]) -> str:
    """The timeline, without matplotlib."""
    rows = _rows(calls)
    whole = max((end for _, bars in rows for _, end, _ in bars), default=0.0) or 1.0
    scale = (_WIDTH - _LABEL) / whole
    parts = []
    for row, (name, bars) in enumerate(rows):
        top = row * _ROW
        parts.append(f'<text x="0" y="{top + _ROW - 5}" font-size="12" fill="currentColor">{html.escape(name)}</text>')
        parts += [
            f'<rect x="{_LABEL + begin * scale:.1f}" y="{top + 2}" width="{max(0.5, (end - begin) * scale):.1f}" '
            f'height="{_ROW - 4}" fill="{_BLUE if busy else _GREY}"/>'
            for begin, end, busy in bars
        ]
    return (
        f'<svg width="{_WIDTH}" height="{len(rows) * _ROW}" role="img" '
        f'aria-label="who computed when, within {duration(whole)}">{"".join(parts)}</svg>'
    )


def _rows(calls: list[CallRecord]) -> list[tuple[str, list[tuple[float, float, bool]]]]:
    """Of the caller and each worker what it did from when to when: at a call, or in the function."""
    start = min((one.begun for one in calls), default=0.0)
    rows: dict[str, list[tuple[float, float, bool]]] = {"caller": []}
    for one in calls:
        rows["caller"].append((one.begun - start, one.begun + one.seconds - start, False))
        for lane in [one.caller, *one.lanes]:
            rows.setdefault(lane.name, []).extend((b - start, e - start, True) for b, e in lane.spans)
    return list(rows.items())


def duration(seconds: float) -> str:
    """Seconds as people read them.

    Examples
    --------
    >>> duration(12.345), duration(0.0123), duration(4.56e-05)
    ('12.3 s', '12.3 ms', '45.6 us')
    """
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1 or not seconds:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} us"


def amount(nbytes: float) -> str:
    """Bytes as people read them.

    Examples
    --------
    >>> amount(512), amount(2_400), amount(3.2e9)
    ('512 B', '2.4 kB', '3.2 GB')
    """
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= factor:
            return f"{nbytes / factor:.3g} {unit}"
    return f"{nbytes:.0f} B"
