"""Captures warnings, stdout, stderr and log records in a worker, for the caller to replay."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from ..._clock import monotonic
from ..._core.effects.effect import Effect
from ..._core.effects.functions import function_of
from ..pickling.picklers import dumps
from .process import flush
from .warning_scopes import module_name

StreamName: TypeAlias = Literal["stdout", "stderr"]


class WarningEvent(NamedTuple):
    """A warning that passed the worker's filters: the arguments of `warnings.showwarning`, and the module."""

    element: int
    message: Warning | str
    category: type[Warning]
    filename: str
    lineno: int
    module: str

    def plain(self) -> WarningEvent:
        """The same text, as a warning of the nearest built-in category."""
        category = next(kind for kind in self.category.__mro__ if kind.__module__ == "builtins")
        return self._replace(message=str(self.message), category=category)

    def repeat(self, function: Any) -> None:
        """Issue the warning in this process, as if `function` had been called here."""
        names: Any = _module_globals(self.filename, self.module, function)
        warnings.warn_explicit(
            self.message,
            self.category,
            self.filename,
            self.lineno,
            module=self.module,  # without one Python shows nothing
            registry=names.setdefault("__warningregistry__", {}),
        )


@dataclass(slots=True)
class TextEvent:
    """Text that Python code wrote to stdout or stderr."""

    element: int
    stream: StreamName
    text: str

    def plain(self) -> TextEvent:
        """The event itself: plain text can always be unpickled."""
        return self

    def repeat(self, function: Any) -> None:
        """Write the text to the same stream of this process."""
        stream = getattr(sys, self.stream)
        if stream is not None:
            stream.write(self.text)
            # `print` does not flush: a stream may lack the method, or refuse.
            with contextlib.suppress(Exception):
                stream.flush()


class LogEvent(NamedTuple):
    """A log record."""

    element: int
    record: logging.LogRecord

    def plain(self) -> LogEvent:
        """The same record without attributes from ``extra``."""
        usual = vars(logging.makeLogRecord({}))
        kept = {name: value for name, value in vars(self.record).items() if name in usual}
        return LogEvent(self.element, logging.makeLogRecord(kept))

    def repeat(self, function: Any) -> None:
        """Pass the record to the logger of the same name in this process."""
        logger = logging.getLogger(self.record.name)
        if logger.isEnabledFor(self.record.levelno):
            logger.handle(self.record)


OutputEvent: TypeAlias = WarningEvent | TextEvent | LogEvent | Effect


def pack_events(events: list[OutputEvent]) -> bytes:
    """Encode events as bytes that can surely be unpickled: each one whole, if that is possible, and plain."""
    return pickle.dumps([(None if isinstance(one, TextEvent) else _pickled(one), one.plain()) for one in events])


def split_events(events: list[OutputEvent]) -> Iterator[OutputEvent]:
    """Yield events, long texts in pieces that fit a message."""
    for one in events:
        if isinstance(one, TextEvent):
            for at in range(0, len(one.text), MUCH_TEXT // 2):
                yield TextEvent(one.element, one.stream, one.text[at : at + MUCH_TEXT // 2])
        else:
            yield one


def _pickled(event: OutputEvent) -> bytes | None:
    try:
        packed = dumps(event)
        pickle.loads(packed)
    except BaseException:
        return None
    return packed


def unpack_events(packed: Any) -> list[OutputEvent]:
    """Decode events; plain where the whole cannot be rebuilt here (a class that only the worker has)."""
    return [_unpickled(whole, plain) for whole, plain in pickle.loads(packed)]


def _unpickled(whole: bytes | None, plain: OutputEvent) -> OutputEvent:
    if whole is None:
        return plain
    try:
        event: OutputEvent = pickle.loads(whole)
    except BaseException:
        return plain
    return event


# What stands for the globals of code that is in no module, by the name that it gives itself.
_elsewhere: dict[str, dict[str, Any]] = {}


def _module_globals(filename: str, name: str, function: Any) -> Mapping[str, Any]:
    """Globals of the module in `filename`, where Python records the warnings that it has shown."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and getattr(module, "__file__", None) == filename:
            return vars(module)
    # The code of a notebook, of `python -c` and of `exec` is in no file of a module.
    found: Mapping[str, Any] = getattr(function_of(function)[0], "__globals__", {})
    if found.get("__name__", "<string>") == name:
        return found
    named = sys.modules.get(name)
    return vars(named) if isinstance(named, ModuleType) else _elsewhere.setdefault(name, {})


# Output of a long element is sent while it runs, after at least this time,
PAUSE_SECONDS = 0.2
# or as soon as it has more characters than this, of whole lines half of them.
MUCH_TEXT = 2**13


class OutputCapture:
    """Captures the output of a worker.

    Parameters
    ----------
    index : callable
        Returns the index of the element that is being computed.
    send : callable
        Called while a function produces output, between two lines after
        `PAUSE_SECONDS`, or more than half of `MUCH_TEXT` characters, and within
        one that takes longer than these; it calls `drain`.

    Attributes
    ----------
    installed : OutputCapture or None
        That of this process.
    """

    installed: ClassVar[OutputCapture | None] = None

    def __init__(self, index: Callable[[], int], send: Callable[[], None]) -> None:
        self._index = index
        self._send = send
        self._events: list[OutputEvent] = []
        self._size = 0
        self._since = monotonic()
        # When the line began that is being written.
        self._line: float | None = None
        # The function may print in threads of its own, which a Python without the GIL runs at the same time. A signal
        # handler may print within `send`.
        self._lock = threading.RLock()

    def install(self) -> None:
        """Capture all warnings, text and log records of this process from now on."""
        OutputCapture.installed = self
        warnings.showwarning = self.add_warning
        sys.stdout = CapturedStream("stdout", self.add_text)
        sys.stderr = CapturedStream("stderr", self.add_text)
        logging.root.handlers[:] = [LogHandler(self.add_record)]

    def add_warning(
        self, message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        """Take a warning, as `warnings.showwarning` does."""
        event = WarningEvent(self._index(), message, category, filename, lineno, module_name(filename))
        self._add(event, len(str(message)))

    def add_record(self, record: logging.LogRecord) -> None:
        """Take a log record."""
        self._add(LogEvent(self._index(), record), len(record.msg))

    def add_text(self, stream: StreamName, text: str) -> None:
        """Take text that was written to a standard stream."""
        index = self._index()
        whole = "\n" in text or "\r" in text  # as a terminal shows it
        with self._lock:
            last = self._events[-1] if self._events else None
            if isinstance(last, TextEvent) and (last.element, last.stream) == (index, stream):
                last.text += text
                self._add(None, len(text), whole)
            else:
                self._add(TextEvent(index, stream, text), len(text), whole)

    def _add(self, event: OutputEvent | None, size: int, whole: bool = True) -> None:
        """Take an event, if it is a new one; `whole` is False if its text goes on in the same line."""
        with self._lock:
            if event is not None:
                self._events.append(event)
            self._size += size
            now = monotonic()
            line_begun = self._line or now
            self._line = None if whole else line_begun
            # A line that is being written, in several writes by one `print`, waits longer for its end: the program that
            # takes the results may print between its parts.
            since, most = (self._since, MUCH_TEXT // 2) if whole else (max(self._since, line_begun), MUCH_TEXT)
            if now - since > PAUSE_SECONDS or self._size > most:
                self._since = now
                self._send()

    @contextlib.contextmanager
    def apart(self, lo: int) -> Iterator[list[OutputEvent]]:
        """Keep output for the task that begins at `lo`, and send none of it; the list is filled at the end."""
        events, before = list[OutputEvent](), (self._events, self._size, self._index, self._send)
        self._events, self._size, self._index, self._send = [], 0, lambda: lo, lambda: None
        try:
            yield events
        finally:
            flush()  # bytes in buffers belong to this task
            events += self._events
            self._events, self._size, self._index, self._send = before

    @property
    def pending(self) -> bool:
        """True if there were events since the last `drain`."""
        return bool(self._events)

    def drain(self) -> list[OutputEvent]:
        """Return the events since the last `drain`, and forget them."""
        with self._lock:
            events, self._events, self._size = self._events, [], 0
        return events


class CapturedStream(io.TextIOBase):
    """Replaces a standard stream of a worker; `add` is called with its name and each text."""

    def __init__(self, name: StreamName, add: Callable[[StreamName, str], None]) -> None:
        self._stream = name
        self._add = add
        self._fd = {"stdout": 1, "stderr": 2}[name]
        self._owner = os.getpid()
        self.buffer = io.BufferedWriter(_CapturedBytes(self))

    encoding = "utf-8"
    errors = "backslashreplace"

    @property
    def name(self) -> str:
        """Name as of Python's own streams."""
        return f"<{self._stream}>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """File descriptor that programs started by the function write to."""
        return self._fd

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if os.getpid() != self._owner:  # a process that the function forked
            os.write(self._fd, text.encode(self.encoding, self.errors))
        elif text:
            self._add(self._stream, text)
        return len(text)

    def flush(self) -> None:
        if not self.buffer.closed:
            self.buffer.flush()

    def reconfigure(self, **settings: Any) -> None:
        """Accept the settings of Python's own streams; they have no effect, since the caller shows the text."""


class _CapturedBytes(io.RawIOBase):
    """Receives bytes written to ``sys.stdout.buffer``."""

    def __init__(self, text: CapturedStream) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._text.write(content.decode("utf-8", "backslashreplace"))
        return len(content)


class LogHandler(logging.Handler):
    """Passes on copies of log records that can be pickled."""

    def __init__(self, add: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._add = add

    def emit(self, record: logging.LogRecord) -> None:
        # As in logging.handlers.QueueHandler: arguments and tracebacks may fail to be pickled.
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
        self._add(record)
