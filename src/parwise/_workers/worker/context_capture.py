"""Captures what a function prints, warns and logs in a process that has other work too.

Only the function's own context is captured: other threads of the process keep their streams, warnings and handlers.
Filters of warnings belong to the process, and other threads keep these, too: one filter more lets all warnings of tasks
pass, and what becomes of each is decided here, by the filters of the task's caller.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

from .output_capture import CapturedStream, LogHandler, OutputCapture, OutputEvent, StreamName

_STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")


class _Captured:
    """What captures the output of one task."""

    def __init__(self, lo: int) -> None:
        # All output of a task has its first index: a task is replayed as a whole, in the order of its output.
        self.capture = OutputCapture(lambda: lo, lambda: None)
        self.streams = {name: CapturedStream(name, self.capture.add_text) for name in _STREAMS}
        self.handler = LogHandler(self.capture.add_record)
        #: The caller's filters of warnings; None until they are known: then all warnings are taken.
        self.filters: list[Any] | None = None
        self._shown: set[tuple[Any, ...]] = set()

    def add_warning(self, message: Any, category: Any, filename: str, lineno: int) -> None:
        """Do with a warning what the caller's filters say."""
        action = "always" if self.filters is None else _action(self.filters, message, category, filename, lineno)
        if action == "error":
            raise message
        # Of repeated ones the caller would show the first.
        key = str(message), category, filename, lineno
        if action == "ignore" or (action in ("default", "module", "once") and key in self._shown):
            return
        self._shown.add(key)
        self.capture.add_warning(message, category, filename, lineno)


def _action(filters: list[Any], message: Any, category: Any, filename: str, lineno: int) -> str:
    """What filters say of a warning, as `warnings.warn_explicit` reads them."""
    text = str(message)
    for action, of_text, kind, of_module, line in filters:
        fits = issubclass(category, kind) and line in (0, lineno) and _matches(of_text, text)
        if fits and (of_module is None or _matches(of_module, _module_name(filename))):
            return str(action)
    return "default"


def _matches(pattern: Any, text: str) -> bool:
    """Python's own first filters have strings for patterns."""
    return pattern is None or (pattern == text if isinstance(pattern, str) else bool(pattern.match(text)))


def _module_name(filename: str) -> str:
    """Name of the module that warns: that of the function in `filename` which is being called."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename != filename:
        frame = frame.f_back  # type: ignore[assignment]
    return filename.removesuffix(".py") if frame is None else str(frame.f_globals.get("__name__"))


_current: contextvars.ContextVar[_Captured | None] = contextvars.ContextVar("parwise_captured", default=None)


class _InTask:
    """Stands for the pattern of a filter: it matches all warnings of tasks, and no other ones.

    `match` runs no Python code: ``next(iter(get, ...), text)`` calls ``_current.get(None)``. While Python code runs,
    another thread may replace `warnings.filters`, and CPython would go on to read the freed list.
    """

    def __init__(self) -> None:
        self.match = partial(next, iter(partial(_current.get, None), object()))

    def __reduce__(self) -> str:
        """Another process has one of its own, if a caller in this process sends its filters there."""
        return "_in_task"


_in_task = _InTask()
_FILTER: Any = ("always", _in_task, Warning, None, 0)


class _NeverIssued(Warning):
    """A category for a filter without an effect."""


def _let_warnings_pass() -> None:
    """Make sure that warnings of tasks pass the filters of this process."""
    filters: Any = warnings.filters
    if _FILTER not in filters:
        filters.insert(0, _FILTER)
        # Any new filter makes Python forget which warnings it has shown; a task's would not be seen.
        warnings.simplefilter("ignore", _NeverIssued)
        with contextlib.suppress(ValueError):
            filters.remove(("ignore", None, _NeverIssued, None, 0))


class _RoutedStream:
    """A standard stream: that of the task in its context, and the process's own elsewhere."""

    def __init__(self, name: StreamName, own: Any) -> None:
        self._name, self._own = name, own

    def __getattr__(self, attribute: str) -> Any:
        captured = _current.get()
        return getattr(self._own if captured is None else captured.streams[self._name], attribute)


class _RoutedHandler(logging.Handler):
    """Takes the records of tasks; other records go where they go without it."""

    def emit(self, record: logging.LogRecord) -> None:
        captured = _current.get()
        if captured is not None:
            captured.handler.handle(record)
            return
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and not self._others(record.name):
            last.handle(record)

    def _others(self, name: str) -> bool:
        """True if a logger or one above it has another handler: Python then has no last resort."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(one is not self for one in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


def _is_outside(record: logging.LogRecord) -> bool:
    """Filter of the process's own handlers: they do without the records of tasks, which the caller repeats."""
    return _current.get() is None


class _Hooks:
    """The hooks of this process, which are there while a task runs."""

    def __init__(self) -> None:
        self._running = 0
        self._lock = threading.Lock()
        self._handler = _RoutedHandler()
        self._handlers: list[logging.Handler] = []
        self._show: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._install()
            # For each task: who leaves `warnings.catch_warnings` puts back the filters that were there before.
            _let_warnings_pass()

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                self._remove()

    def _install(self) -> None:
        for name in _STREAMS:
            own = getattr(sys, name)
            if own is not None and type(own) is not _RoutedStream:
                setattr(sys, name, _RoutedStream(name, own))
        if warnings.showwarning != self._show_warning:
            self._show, warnings.showwarning = warnings.showwarning, self._show_warning
        self._handlers = [one for one in logging.root.handlers if one is not self._handler]
        for handler in self._handlers:
            handler.addFilter(_is_outside)
        logging.root.addHandler(self._handler)

    def _remove(self) -> None:
        """Take the hooks away, unless something else has come over them meanwhile."""
        for name in _STREAMS:
            if type(found := getattr(sys, name)) is _RoutedStream:
                setattr(sys, name, found._own)
        if warnings.showwarning == self._show_warning:
            warnings.showwarning = self._show
        with contextlib.suppress(ValueError):
            warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]
        logging.root.removeHandler(self._handler)
        for handler in self._handlers:
            handler.removeFilter(_is_outside)

    def _show_warning(
        self, message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        captured = _current.get()
        if captured is None or file is not None:
            self._show(message, category, filename, lineno, file, line)
        else:
            captured.add_warning(message, category, filename, lineno)


_hooks = _Hooks()


@contextlib.contextmanager
def captured_output(lo: int) -> Iterator[list[OutputEvent]]:
    """Capture the output of this context, for the task that begins at `lo`; the list is filled at the end."""
    captured, events = _Captured(lo), list[OutputEvent]()
    token = _current.set(captured)
    try:
        with _hooks:
            yield events
    finally:
        _current.reset(token)
        for stream in captured.streams.values():  # bytes that the function has written to `sys.stdout.buffer`
            stream.flush()
        events += captured.capture.drain()


def filter_warnings(filters: list[Any]) -> None:
    """From now on, do with warnings of the task in this context what these filters say."""
    captured = _current.get()
    if captured is not None:
        captured.filters = filters
