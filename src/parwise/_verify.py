"""Whether workers give the bits of the caller."""

from __future__ import annotations

import os
import sys
import warnings

from ._results import Results, Stack, same_results
from .errors import NotReproducibleError, ReproducibilityWarning


def compare(caller: Results, worker: Results, verify: bool | None) -> None:
    """Compare what a worker got for a task with what the caller got.

    Raises
    ------
    NotReproducibleError
        If they differ and `verify` is True; otherwise that is a warning.
    """
    if same_results(caller, worker):
        return
    text = (
        f"the function gave other results for the same element in a worker than in this process "
        f"({_difference(caller, worker)}). Does it use random numbers, the clock, or state that earlier calls "
        "changed? verify=False skips this comparison"
    )
    if verify:
        raise NotReproducibleError(text)
    warnings.warn(text, ReproducibilityWarning, stacklevel=user_level())


def user_level() -> int:
    """How far up the stack the user's code is."""
    package = os.path.dirname(__file__) + os.sep
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame = frame.f_back
        level += 1
    return level


def _difference(a: Results, b: Results) -> str:
    """In a few words, how two results differ."""
    for one, other in zip(a.columns, b.columns, strict=False):
        if isinstance(one, Stack) and isinstance(other, Stack):
            if one.kind != other.kind or one.array.dtype != other.array.dtype:
                return f"dtype {other.array.dtype} there, {one.array.dtype} here"
            if one.array.shape != other.array.shape:
                return f"shape {other.array.shape[1:]} there, {one.array.shape[1:]} here"
    return "the same dtype and shape, other values"
