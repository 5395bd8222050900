"""Captures what a function prints, warns and logs in a process that has other work too.

Only the function's own context is captured: other threads of the process keep their streams, warnings and handlers.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
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


_current: contextvars.ContextVar[_Captured | None] = contextvars.ContextVar("parwise_captured", default=None)


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
            captured.capture.add_warning(message, category, filename, lineno)


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
        events += captured.capture.drain()
