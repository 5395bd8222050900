"""Report of the time that each part of a call took: as text, dict, HTML and plot."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextvars import Token
from types import TracebackType
from typing import Any

from .._core.nesting import is_nested
from .observer import OpenReport, reports
from .record import CallRecord, Timeline

_BLUE, _GREY = "#3b76af", "#dddddd"
# The timeline in HTML: its width, the height of a row, and the margin for names, in pixels.
_WIDTH, _HEIGHT, _MARGIN = 640, 18, 130


class Report:
    """The time that each part of some calls took; made by `parwise.report`.

    It prints as text, and a notebook shows it as HTML.

    Attributes
    ----------
    calls : list
        One record per call, in the order of the calls. Each has a ``to_dict()``.

    Raises
    ------
    RuntimeError
        If a ``with`` block is entered while the report is already open.
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
        """Numbers and text of the report, ready for JSON.

        Returns
        -------
        dict
            ``calls``, a list with one dict per call. Its keys are

            - ``function``, ``executor`` (names), ``elements``, ``workers``
              (numbers): the call as the user made it;
            - ``why_executor``: in a Python without the GIL the reason for the
              executor, where nobody has chosen one; else None;
            - ``seconds``: duration of the call;
            - ``f_seconds``: time in the function, summed over all processes;
            - ``speedup``: ``f_seconds`` by ``seconds``, about how many times as
              fast as the plain loop the call was; None if it took no time;
            - ``startup_seconds``: from the start of workers to the first task
              of the first one; None if no worker had a task;
            - ``waiting_seconds``: time that the caller waited for workers;
            - ``bytes_staged``: bytes of arguments that were copied for workers;
            - ``bytes_direct``: bytes of arguments that workers read themselves;
            - ``files``, a dict: bytes of arrays in files that the caller has
              ``read`` and ``written``, that workers have ``written_elsewhere``,
              and that were ``held`` at most at a time; and ``why`` the caller
              has read, if workers might have;
            - ``caller``, and the list ``per_worker``: dicts with ``name``,
              ``tasks``, ``elements``, ``busy_seconds`` (time in the function)
              and ``busy_share`` (the same as a fraction of ``seconds``);
            - ``why_serial``: the reason why workers computed nothing, or None;
            - ``why_portable``: the reason why workers were portable ones (see
              the page on systems), or None;
            - ``error``: type of the exception that ended the call, or None.

        Examples
        --------
        >>> import parwise
        >>> with parwise.report() as r:
        ...     roots = parwise.parallel_map(abs, [-1, 2], workers=1)
        >>> call = r.to_dict()["calls"][0]
        >>> call["function"], call["elements"], call["caller"]["elements"], call["per_worker"]
        ('abs', 2, 2, [])
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
        """Draw a timeline with one row for the caller and one for each worker.

        Blue bars are time in the function, grey bars the rest of the call. The
        title says how many times as fast as the plain loop it was, unless the
        axes have a title already.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw into; new ones by default.

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
        ax.legend(handles=_legend(), loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)
        if not ax.get_title():
            ax.set_title(_headline(self.calls))
        return ax


def report() -> Report:
    """Report the time that each part of the calls in a ``with`` block takes.

    The report records all calls that the thread of the block makes. A call
    within a mapped function counts as a part of the call around it.

    Returns
    -------
    Report
        A context manager. It prints as text; ``to_dict()`` returns its numbers,
        and ``plot()`` draws a timeline with matplotlib.

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


def _legend() -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(color=_BLUE, label="in the function"), Patch(color=_GREY, label="rest of the call")]


def _headline(calls: list[CallRecord]) -> str:
    """What a timeline shows, and how fast it was."""
    what = f"{calls[0].function}, {calls[0].elements:,} elements" if len(calls) == 1 else f"{len(calls)} calls"
    seconds = sum(one.seconds for one in calls)
    speedup = sum(one.f_seconds for one in calls) / seconds if seconds else 0.0
    return f"{what}\nabout {speedup:.2g} times as fast as the plain loop" if speedup else what


def _text(record: CallRecord) -> str:
    """Text of one call."""
    lines = [_title(record), *(f"  {name:<13}{value}" for name, value in _facts(record))]
    rows = [record.caller, *record.worker_timelines]
    width = max(len(one.name) for one in rows)
    lines += [f"  {one.name:<{width}}  " + "  ".join(f"{text:>10}" for text in _cells(record, one)) for one in rows]
    return "\n".join(lines)


def _title(record: CallRecord) -> str:
    workers = record.workers
    return (
        f"{record.function}: {record.elements:,} element{'s' * (record.elements != 1)} in {duration(record.seconds)} "
        f"(executor {record.executor}, {workers} worker{'s' * (workers != 1)})"
    )


def _facts(record: CallRecord) -> Iterator[tuple[str, str]]:
    """Names and values of the lines about a call as a whole."""
    if record.error is not None:
        yield "ended by", record.error
    if record.why_executor is not None:
        yield "executor", record.why_executor
    if record.why is not None:
        yield ("serial" if not record.worker_timelines else "taken back"), record.why
    if record.worker_timelines and record.speedup:
        yield "speed-up", f"about {record.speedup:.2g} times as fast as the plain loop"
    yield "in f", f"{duration(record.f_seconds)} in all, {duration(record.caller.busy)} of it in the caller"
    if record.startup is not None:
        yield "start-up", f"{duration(record.startup)} until the first worker served"
    if record.portable is not None:
        yield "workers", f"portable ones: {record.portable}"
    if record.worker_timelines:
        yield "waiting", f"{duration(record.waiting)} of the caller's"
    if record.bytes_staged:
        yield "staged", f"{amount(record.bytes_staged)} of arguments"
    files = record.files
    if files.read or files.written or files.written_elsewhere:
        read, written, held = map(amount, (files.read, files.written, files.held))
        yield "files", f"{read} read and {written} written by the caller, {held} held at most"
    if files.written_elsewhere:
        yield "", f"{amount(files.written_elsewhere)} written by the workers themselves"
    if files.why:
        yield "", f"read by the caller: {files.why}"
    if record.bytes_direct:
        yield "direct", f"{amount(record.bytes_direct)} of arguments, read by the workers themselves"


def _cells(record: CallRecord, timeline: Timeline) -> list[str]:
    share = timeline.busy / record.seconds if record.seconds else 0.0
    return [
        f"{timeline.tasks:,} task{'s' * (timeline.tasks != 1)}",
        f"{timeline.elements:,} element{'s' * (timeline.elements != 1)}",
        f"{duration(timeline.busy)} in f",
        f"{share:.0%} busy",
    ]


def _html(record: CallRecord) -> str:
    """HTML of one call: two tables."""
    facts = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in _facts(record))
    timelines = "".join(
        f"<tr><th>{html.escape(one.name)}</th>" + "".join(f"<td>{cell}</td>" for cell in _cells(record, one)) + "</tr>"
        for one in [record.caller, *record.worker_timelines]
    )
    return f"<p><b>{html.escape(_title(record))}</b></p><table>{facts}</table><table>{timelines}</table>"


def _svg(calls: list[CallRecord]) -> str:
    """Timeline as SVG, made without matplotlib."""
    rows = _rows(calls)
    whole = max((end for _, bars in rows for _, end, _ in bars), default=0.0) or 1.0
    scale = (_WIDTH - _MARGIN) / whole
    parts = []
    for row, (name, bars) in enumerate(rows):
        top = row * _HEIGHT
        parts.append(
            f'<text x="0" y="{top + _HEIGHT - 5}" font-size="12" fill="currentColor">{html.escape(name)}</text>'
        )
        parts += [
            f'<rect x="{_MARGIN + begin * scale:.1f}" y="{top + 2}" width="{max(0.5, (end - begin) * scale):.1f}" '
            f'height="{_HEIGHT - 4}" fill="{_BLUE if busy else _GREY}"/>'
            for begin, end, busy in bars
        ]
    return (
        f'<svg width="{_WIDTH}" height="{len(rows) * _HEIGHT}" role="img" '
        f'aria-label="who computed when, within {duration(whole)}">{"".join(parts)}</svg>'
    )


def _rows(calls: list[CallRecord]) -> list[tuple[str, list[tuple[float, float, bool]]]]:
    """Rows of the timeline: a name, and bars of (begin, end, True if in the function), in seconds."""
    start = min((one.begun for one in calls), default=0.0)
    rows: dict[str, list[tuple[float, float, bool]]] = {"caller": []}
    for one in calls:
        rows["caller"].append((one.begun - start, one.begun + one.seconds - start, False))
        for timeline in [one.caller, *one.worker_timelines]:
            rows.setdefault(timeline.name, []).extend((b - start, e - start, True) for b, e in timeline.spans)
    return list(rows.items())


def duration(seconds: float) -> str:
    """Text of a duration in seconds, with the unit that suits it.

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
    """Text of a number of bytes, with the unit that suits it.

    Examples
    --------
    >>> amount(512), amount(2_400), amount(3.2e9)
    ('512 B', '2.4 kB', '3.2 GB')
    """
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= factor:
            return f"{nbytes / factor:.3g} {unit}"
    return f"{nbytes:.0f} B"
