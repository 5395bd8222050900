"""Process and numeric state of the caller that a function can read, and its copy to a worker.

A function can read floating-point error handling, print options, the decimal
context, warning filters, the processor's rounding mode, the locale, environment
variables and the working directory. Each can change its result, so workers copy
them from the caller.
"""

from __future__ import annotations

import _locale
import contextlib
import decimal
import os
import sys
import warnings
from typing import Any, NamedTuple

import numpy as np

from .floating_point import read_floats, set_floats


class ProcessState(NamedTuple):
    """State that a process needs before it can import the function's modules."""

    variables: dict[str, str]  # of the environment
    folder: str | None  # working directory; None if it was removed
    path: list[str]  # `sys.path`
    argv: list[str]

    def apply(self) -> None:
        """Set the state of this process, which must do nothing else meanwhile."""
        if dict(os.environ) != self.variables:
            os.environ.clear()
            os.environ.update(self.variables)
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(self.folder)
        sys.path[:] = self.path
        sys.argv[:] = self.argv


class NumericState(NamedTuple):
    """State that arithmetic, printing and warnings depend on."""

    errstate: dict[str, Any]
    errcall: Any
    bufsize: int
    print_options: dict[str, Any]
    decimal_context: decimal.Context
    filters: list[Any]  # of warnings
    floats: tuple[int, ...] | None  # control bits of the processor, see `read_floats`
    locale: str
    limits: tuple[int, int]  # recursion limit, and digits up to which integers become text

    def apply(self) -> None:
        """Set the state of this process and thread, which must do nothing else meanwhile."""
        self.apply_in_context()
        set_floats(self.floats)
        with contextlib.suppress(_locale.Error):  # type: ignore[attr-defined]
            if _locale.setlocale(_locale.LC_ALL, None) != self.locale:
                _locale.setlocale(_locale.LC_ALL, self.locale)
        sys.setrecursionlimit(self.limits[0])
        sys.set_int_max_str_digits(self.limits[1])
        # `resetwarnings` also clears the list of warnings that each module has shown.
        warnings.resetwarnings()
        warnings.filters.extend(self.filters)  # type: ignore[attr-defined]

    def apply_in_context(self) -> None:
        """Set the part of the state that belongs to a context, and not to the process."""
        np.seterr(**self.errstate)
        np.seterrcall(self.errcall)
        np.setbufsize(self.bufsize)
        np.set_printoptions(**self.print_options)
        decimal.setcontext(self.decimal_context.copy())


def read_process_state() -> ProcessState:
    """State of this process."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it was removed, so a worker cannot enter it
        folder = None
    return ProcessState(dict(os.environ), folder, list(sys.path), list(getattr(sys, "argv", [])))


def read_numeric_state() -> NumericState:
    """Numeric state of the calling thread and its process."""
    return NumericState(
        errstate=dict(np.geterr()),
        errcall=np.geterrcall(),
        bufsize=np.getbufsize(),
        print_options=dict(np.get_printoptions()),
        decimal_context=decimal.getcontext().copy(),
        filters=list(warnings.filters),
        floats=read_floats(),
        locale=_locale.setlocale(_locale.LC_ALL, None),
        limits=(sys.getrecursionlimit(), sys.get_int_max_str_digits()),
    )
