"""Captures what a function prints, warns and logs in a process that has other work too.

Only the function's own context is captured: other threads of the process keep their streams, warnings and handlers.
Filters of warnings belong to the process, and other threads keep these, too: one filter more lets all warnings of tasks
pass, and what becomes of each is decided in `warning_scopes`, by the filters of the task's caller.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..._system.interpreter import DeferredInterrupt
from .output_capture import CapturedStream, LogHandler, OutputCapture, OutputEvent, StreamName
from .warning_scopes import TaskWarnings, WarningHooks

_STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")


class _Captured:
    """What captures the output of one task; `send` is called while there is much of it, as by `OutputCapture`."""

    def __init__(self, lo: int, send: Callable[[], None] = lambda: None) -> None:
        # All output of a task has its first index: a task is replayed as a whole, in the order of its output.
        self.capture = OutputCapture(lambda: lo, send)
        self.streams = {name: CapturedStream(name, self.capture.add_text) for name in _STREAMS}
        self.handler = LogHandler(self.capture.add_record)
        self.warnings = TaskWarnings(self.capture.add_warning)


_current: contextvars.ContextVar[_Captured | None] = contextvars.ContextVar("parwise_captured", default=None)


class _RoutedStream:
    """A standard stream: that of the task in its context, and the process's own elsewhere.

    There is one of each name, for good: `print` of another thread may be using it without a reference of its own, in
    the moment in which it is replaced, and Python 3.11 crashed then (gh-130163).

    Attributes
    ----------
    own : stream
        The process's own.
    """

    own: Any = None

    def __init__(self, name: StreamName) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        captured = _current.get()
        return getattr(self.own if captured is None else captured.streams[self._name], attribute)


class _Hooks:
    """The hooks of this process, which are there while a task runs."""

    def __init__(self) -> None:
        self._running: set[_Captured] = set()
        self._lock = threading.Lock()
        self._routed = {name: _RoutedStream(name) for name in _STREAMS}
        self._warnings = WarningHooks()
        self._call_handlers: Callable[[logging.Logger, logging.LogRecord], None] = logging.Logger.callHandlers

    def enter(self, captured: _Captured, own: bool) -> None:
        """Have the hooks there for a task: of this process's `own` call, or of another process's."""
        with DeferredInterrupt(), self._lock:
            first = not self._running
            self._running.add(captured)
            if first:
                self._install()
            # For each task: who leaves `warnings.catch_warnings` puts back the filters that were there before.
            self._warnings.let_pass(forget=not own)

    def leave(self, captured: _Captured) -> None:
        """Take the hooks away if no other task runs; may be called again."""
        with DeferredInterrupt(), self._lock:
            self._running.discard(captured)
            if not self._running:
                self._remove()

    def _install(self) -> None:
        for name, routed in self._routed.items():
            own = getattr(sys, name)
            if own is not None and own is not routed:
                routed.own = own
                setattr(sys, name, routed)
        self._warnings.install()
        # Not a handler: the caller repeats a record for those of each logger on its way to the root.
        self._call_handlers = logging.Logger.callHandlers
        logging.Logger.callHandlers = _routed(self._call_handlers)  # type: ignore[method-assign]

    def _remove(self) -> None:
        """Take the hooks away, unless something else has come over them meanwhile."""
        for name, routed in self._routed.items():
            if getattr(sys, name) is routed:
                setattr(sys, name, routed.own)
        self._warnings.remove()
        if getattr(logging.Logger.callHandlers, "__wrapped__", None) is self._call_handlers:
            logging.Logger.callHandlers = self._call_handlers  # type: ignore[method-assign]


def _routed(call_handlers: Callable[[logging.Logger, logging.LogRecord], None]) -> Any:
    """`logging.Logger.callHandlers`, for the records of tasks too, which the process's own handlers do without."""

    @functools.wraps(call_handlers)
    def routed(logger: logging.Logger, record: logging.LogRecord) -> None:
        captured = _current.get()
        if captured is None:
            call_handlers(logger, record)
        else:
            captured.handler.handle(record)

    return routed


_hooks = _Hooks()


@contextlib.contextmanager
def captured_output(lo: int) -> Iterator[list[OutputEvent]]:
    """Capture the output of this context, for the task that begins at `lo`; the list is filled at the end."""
    events: list[OutputEvent] = []
    with _capturing(_Captured(lo), events.extend, own=False):
        yield events


@contextlib.contextmanager
def captured_in_thread(lo: int, filters: list[Any], send: Callable[[list[OutputEvent]], object]) -> Iterator[None]:
    """Capture the output of a task in a thread of the caller's process, under the caller's filters of warnings.

    `send` gets the output, at the end and while there is much of it: outside of the context that is captured.
    """
    outside = contextvars.copy_context()

    def drain() -> None:
        outside.run(send, captured.capture.drain())

    captured = _Captured(lo, drain)
    with _capturing(captured, send, own=True):
        captured.warnings.follow(filters)
        yield


@contextlib.contextmanager
def _capturing(captured: _Captured, send: Callable[[list[OutputEvent]], object], own: bool) -> Iterator[None]:
    before = _current.get()
    try:
        try:
            _current.set(captured)
            _hooks.enter(captured, own)
            with captured.warnings.context():
                yield
        finally:
            _release(captured, before)
    finally:
        _release(captured, before)  # again, if an interrupt came during it
        for stream in captured.streams.values():  # bytes that the function has written to `sys.stdout.buffer`
            stream.flush()
        send(captured.capture.drain())


def _release(captured: _Captured, before: _Captured | None) -> None:
    _hooks.leave(captured)
    _current.set(before)


def filter_warnings(filters: list[Any]) -> None:
    """From now on, do with warnings of the task in this context what these filters say."""
    captured = _current.get()
    if captured is not None:
        captured.warnings.follow(filters)
