"""What the caller's surroundings are, and how a worker takes them on.

A function can read floating-point error handling, print options, the decimal
context, warning filters, environment variables and the working directory; each
can change its result, so each is as in the caller.
"""

from __future__ import annotations

import contextlib
import decimal
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Surroundings:
    """What a process needs before it can import the function's modules."""

    variables: dict[str, str]
    folder: str | None
    path: list[str]
    argv: list[str]

    def adopt(self) -> None:
        """Take them on, in a process that does nothing else."""
        if dict(os.environ) != self.variables:
            os.environ.clear()
            os.environ.update(self.variables)
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(self.folder)
        sys.path[:] = self.path
        sys.argv[:] = self.argv


@dataclass(frozen=True)
class Numerics:
    """What the function's arithmetic, printing and warnings depend on."""

    errstate: dict[str, Any]
    errcall: Any
    bufsize: int
    print_options: dict[str, Any]
    decimal_context: decimal.Context
    filters: list[Any]

    def adopt(self) -> None:
        """Take them on, in a process that does nothing else."""
        self.adopt_in_context()
        # resetwarnings also makes every module forget what it has shown.
        warnings.resetwarnings()
        warnings.filters.extend(self.filters)  # type: ignore[attr-defined]

    def adopt_in_context(self) -> None:
        """Take on what belongs to a context, and not to the whole process."""
        np.seterr(**self.errstate)
        np.seterrcall(self.errcall)
        np.setbufsize(self.bufsize)
        np.set_printoptions(**self.print_options)
        decimal.setcontext(self.decimal_context.copy())


def read_surroundings() -> Surroundings:
    """The surroundings of this process."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # removed under the caller; a worker cannot enter it
        folder = None
    return Surroundings(dict(os.environ), folder, list(sys.path), list(getattr(sys, "argv", [])))


def read_numerics() -> Numerics:
    """The numerical surroundings of the calling thread."""
    return Numerics(
        errstate=dict(np.geterr()),
        errcall=np.geterrcall(),
        bufsize=np.getbufsize(),
        print_options=dict(np.get_printoptions()),
        decimal_context=decimal.getcontext().copy(),
        filters=list(warnings.filters),
    )


@dataclass(frozen=True, slots=True)
class WarningRecord:
    """A warning that was shown in a worker."""

    index: int
    message: Warning | str
    category: type[Warning]
    filename: str
    lineno: int


class WarningLog:
    """Takes what a worker would show, for the caller to show instead.

    Parameters
    ----------
    index : callable
        Gives the element at hand.
    """

    def __init__(self, index: Callable[[], int]) -> None:
        self._index = index
        self._records: list[WarningRecord] = []

    def install(self) -> None:
        """From now on take every warning of this process that passes its filters."""
        warnings.showwarning = self._take

    def _take(
        self, message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        self._records.append(WarningRecord(self._index(), message, category, filename, lineno))

    def drain(self) -> list[WarningRecord]:
        """What has been taken since the last time."""
        records, self._records = self._records, []
        return records


def replay_warnings(records: Iterable[WarningRecord], function: Any) -> None:
    """Show workers' warnings in index order, through this process's filters."""
    modules: dict[str, Mapping[str, Any]] = {}
    for record in sorted(records, key=lambda record: record.index):
        if record.filename not in modules:
            modules[record.filename] = _module_globals(record.filename, function)
        names: Any = modules[record.filename]
        warnings.warn_explicit(
            record.message,
            record.category,
            record.filename,
            record.lineno,
            module=names.get("__name__"),
            registry=names.setdefault("__warningregistry__", {}),
        )


def _module_globals(filename: str, function: Any) -> Mapping[str, Any]:
    """Globals of the module in `filename`, where Python notes what it has shown."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and getattr(module, "__file__", None) == filename:
            return vars(module)
    found: Mapping[str, Any] = getattr(function, "__globals__", {})
    return found
