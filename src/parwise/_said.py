"""What a function says while it runs: warnings, text, log records, in a form that travels."""

from __future__ import annotations

import logging
import pickle
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias

import cloudpickle

StreamName: TypeAlias = Literal["stdout", "stderr"]


class Warned(NamedTuple):
    """A warning that passed the worker's filters."""

    element: int
    message: Warning | str
    category: type[Warning]
    filename: str
    lineno: int

    def plain(self) -> Warned:
        """Its text, as a warning of Python's own that it is one of."""
        category = next(kind for kind in self.category.__mro__ if kind.__module__ == "builtins")
        return Warned(self.element, str(self.message), category, self.filename, self.lineno)

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
class Written:
    """Text that Python code wrote to a standard stream."""

    element: int
    stream: StreamName
    text: str

    def plain(self) -> Written:
        """Itself."""
        return self

    def repeat(self, function: Any) -> None:
        """Write it to this process's stream."""
        stream = getattr(sys, self.stream)
        if stream is not None:
            stream.write(self.text)
            stream.flush()


class Logged(NamedTuple):
    """A log record."""

    element: int
    record: logging.LogRecord

    def plain(self) -> Logged:
        """Without what was given as ``extra``."""
        usual = vars(logging.makeLogRecord({}))
        kept = {name: value for name, value in vars(self.record).items() if name in usual}
        return Logged(self.element, logging.makeLogRecord(kept))

    def repeat(self, function: Any) -> None:
        """Hand it to this process's logger of that name."""
        logger = logging.getLogger(self.record.name)
        if logger.isEnabledFor(self.record.levelno):
            logger.handle(self.record)


Said: TypeAlias = Warned | Written | Logged


def pack_said(said: list[Said]) -> bytes:
    """Bytes that surely can be unpickled: each item whole, where that is possible, and as plain text."""
    return pickle.dumps([(None if isinstance(one, Written) else _pickled(one), one.plain()) for one in said])


def _pickled(said: Said) -> bytes | None:
    try:
        packed: bytes = cloudpickle.dumps(said)
        pickle.loads(packed)
    except Exception:
        return None
    return packed


def unpack_said(packed: Any) -> list[Said]:
    """What was said, as text where it cannot be made here (a class that only the worker has)."""
    return [_unpickled(whole, plain) for whole, plain in pickle.loads(packed)]


def _unpickled(whole: bytes | None, plain: Said) -> Said:
    if whole is None:
        return plain
    try:
        said: Said = pickle.loads(whole)
    except Exception:
        return plain
    return said


def _module_globals(filename: str, function: Any) -> Mapping[str, Any]:
    """Globals of the module in `filename`, where Python notes what it has shown."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and getattr(module, "__file__", None) == filename:
            return vars(module)
    found: Mapping[str, Any] = getattr(function, "__globals__", {})
    return found
