"""The function that a worker of a pool calls before it ends in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# With its arguments.
_finalizer: tuple[Callable[..., Any], tuple[Any, ...]] | None = None


def begin(
    initializer: Callable[..., Any] | None,
    initargs: tuple[Any, ...],
    finalizer: Callable[..., Any],
    finalargs: tuple[Any, ...],
) -> None:
    """Call the initializer, if there is one, and keep the finalizer; an initializer of pools that have both."""
    global _finalizer
    if initializer is not None:
        initializer(*initargs)
    _finalizer = finalizer, finalargs


def finalize() -> None:
    """Call the finalizer, unless the initializer has failed."""
    global _finalizer
    if _finalizer is not None:
        (finalizer, finalargs), _finalizer = _finalizer, None
        finalizer(*finalargs)
