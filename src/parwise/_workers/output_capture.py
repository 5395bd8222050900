"""Takes what a function says in a worker, for its caller to repeat."""

from __future__ import annotations

import copy
import io
import logging
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias

import cloudpickle

StreamName: TypeAlias = Literal["stdout", "stderr"]


class WarningEvent(NamedTuple):
    """A warning that passed the worker's filters."""

    element: int
    message: Warning | str
    category: type[Warning]
    filename: str
    lineno: int

    def plain(self) -> WarningEvent:
        """Its text, as a warning of Python's own that it is one of."""
        category = next(kind for kind in self.category.__mro__ if kind.__module__ == "builtins")
        return WarningEvent(self.element, str(self.message), category, self.filename, self.lineno)

    def repeat(self, function: Any) -> None:
        """Warn here, as if `function` had been called here."""
        names: Any = _module_globals(self.filename, function)
        warnings.warn_explicit(
            self.message,
            self.category,
            self.filename,
            self.lineno,
            module=names.get("__name__"),
            registry=names.setdefault("__warningregistry__", {}),
        )


@dataclass(slots=True)
class TextEvent:
    """Text that Python code wrote to a standard stream."""

    element: int
    stream: StreamName
    text: str

    def plain(self) -> TextEvent:
        """Itself."""
        return self

    def repeat(self, function: Any) -> None:
        """Write it to this process's stream."""
        stream = getattr(sys, self.stream)
        if stream is not None:
            stream.write(self.text)
            stream.flush()


class LogEvent(NamedTuple):
    """A log record."""

    element: int
    record: logging.LogRecord

    def plain(self) -> LogEvent:
        """Without what was given as ``extra``."""
        usual = vars(logging.makeLogRecord({}))
        kept = {name: value for name, value in vars(self.record).items() if name in usual}
        return LogEvent(self.element, logging.makeLogRecord(kept))

    def repeat(self, function: Any) -> None:
        """Hand it to this process's logger of that name."""
        logger = logging.getLogger(self.record.name)
        if logger.isEnabledFor(self.record.levelno):
            logger.handle(self.record)


OutputEvent: TypeAlias = WarningEvent | TextEvent | LogEvent


def pack_events(events: list[OutputEvent]) -> bytes:
    """Bytes that surely can be unpickled: each item whole, where that is possible, and as plain text."""
    return pickle.dumps([(None if isinstance(one, TextEvent) else _pickled(one), one.plain()) for one in events])


def _pickled(events: OutputEvent) -> bytes | None:
    try:
        packed: bytes = cloudpickle.dumps(events)
        pickle.loads(packed)
    except Exception:
        return None
    return packed


def unpack_events(packed: Any) -> list[OutputEvent]:
    """What was said, as text where it cannot be made here (a class that only the worker has)."""
    return [_unpickled(whole, plain) for whole, plain in pickle.loads(packed)]


def _unpickled(whole: bytes | None, plain: OutputEvent) -> OutputEvent:
    if whole is None:
        return plain
    try:
        events: OutputEvent = pickle.loads(whole)
    except Exception:
        return plain
    return events


def _module_globals(filename: str, function: Any) -> Mapping[str, Any]:
    """Globals of the module in `filename`, where Python notes what it has shown."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and getattr(module, "__file__", None) == filename:
            return vars(module)
    found: Mapping[str, Any] = getattr(function, "__globals__", {})
    return found


# What a long element says is passed on while it runs, but not more often.
PAUSE_SECONDS = 0.2
# So much text is passed on at once.
MUCH_TEXT = 2**13


class OutputCapture:
    """Takes what a worker would show.

    Parameters
    ----------
    index : callable
        Gives the element at hand.
    pass_on : callable
        Called now and then while a function talks, to have `drain` called.
    """

    def __init__(self, index: Callable[[], int], pass_on: Callable[[], None]) -> None:
        self._index = index
        self._pass_on = pass_on
        self._events: list[OutputEvent] = []
        self._size = 0
        self._since = time.monotonic()

    def install(self) -> None:
        """From now on take all warnings, text and log records of this process."""
        warnings.showwarning = self._take_warning
        sys.stdout = CapturedStream("stdout", self._take_text)
        sys.stderr = CapturedStream("stderr", self._take_text)
        logging.root.handlers[:] = [_LogHandler(self._take_record)]

    def _take_warning(
        self, message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        self._record(WarningEvent(self._index(), message, category, filename, lineno), len(str(message)))

    def _take_record(self, record: logging.LogRecord) -> None:
        self._record(LogEvent(self._index(), record), len(record.msg))

    def _take_text(self, stream: StreamName, text: str) -> None:
        index = self._index()
        last = self._events[-1] if self._events else None
        if isinstance(last, TextEvent) and (last.element, last.stream) == (index, stream):
            last.text += text
            self._record(None, len(text))
        else:
            self._record(TextEvent(index, stream, text), len(text))

    def _record(self, events: OutputEvent | None, size: int) -> None:
        if events is not None:
            self._events.append(events)
        self._size += size
        if self._size > MUCH_TEXT or time.monotonic() - self._since > PAUSE_SECONDS:
            self._since = time.monotonic()
            self._pass_on()

    def drain(self) -> list[OutputEvent]:
        """What has been taken since the last time."""
        events, self._events, self._size = self._events, [], 0
        return events


class CapturedStream(io.TextIOBase):
    """Stands in for a standard stream of a worker."""

    def __init__(self, name: StreamName, take: Callable[[StreamName, str], None]) -> None:
        self._stream = name
        self._record = take
        self._fd = {"stdout": 1, "stderr": 2}[name]
        self._owner = os.getpid()
        self.buffer = io.BufferedWriter(_CapturedBytes(self))

    encoding = "utf-8"
    errors = "backslashreplace"

    @property
    def name(self) -> str:
        """As of Python's own streams."""
        return f"<{self._stream}>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The descriptor that programs started by the function write to."""
        return self._fd

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if os.getpid() != self._owner:  # a process that the function forked
            os.write(self._fd, text.encode(self.encoding, self.errors))
        elif text:
            self._record(self._stream, text)
        return len(text)

    def flush(self) -> None:
        if not self.buffer.closed:
            self.buffer.flush()

    def reconfigure(self, **settings: Any) -> None:
        """As of Python's own streams; how the text is shown is the caller's business."""


class _CapturedBytes(io.RawIOBase):
    """What is written to ``sys.stdout.buffer``."""

    def __init__(self, text: CapturedStream) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._text.write(content.decode("utf-8", "backslashreplace"))
        return len(content)


class _LogHandler(logging.Handler):
    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._record = take

    def emit(self, record: logging.LogRecord) -> None:
        # As logging.handlers.QueueHandler does: arguments and tracebacks may not travel.
        record = copy.copy(record)
        try:
            record.msg = record.message = record.getMessage()
        except Exception:
            self.handleError(record)
            return
        record.args = None
        if record.exc_info:
            record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        self._record(record)


class LogLevels(NamedTuple):
    """Which log records a process wants at all."""

    disable: int
    root: int
    loggers: dict[str, tuple[int, bool]]

    def apply(self) -> None:
        """Take them on, in a process that does nothing else."""
        logging.disable(self.disable)
        for logger in logging.root.manager.loggerDict.values():
            if isinstance(logger, logging.Logger):
                logger.setLevel(logging.NOTSET)
                logger.disabled = False
                # A module may have given it handlers as it was imported; the caller's show the record.
                logger.handlers[:] = []
                logger.propagate = True
        logging.root.setLevel(self.root)
        for name, (level, disabled) in self.loggers.items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.disabled = disabled


def read_log_levels() -> LogLevels:
    """The levels of this process."""
    manager = logging.root.manager
    loggers = {
        name: (logger.level, logger.disabled)
        for name, logger in list(manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and (logger.level or logger.disabled)
    }
    return LogLevels(manager.disable, logging.root.level, loggers)
