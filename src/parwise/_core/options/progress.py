"""The check of the option `progress`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

#: A function of the elements done, and of all elements (None if their number is not known).
ProgressFunction: TypeAlias = Callable[[int, int | None], object]


def checked_progress(value: Any) -> Literal[True] | str | ProgressFunction | None:
    """Check the option `progress`; return None for no progress, True for a bar, its label, or a function."""
    if value is None or value is False:
        return None
    import importlib.util  # not needed for most calls
    import inspect

    if value is True or isinstance(value, str):
        if sys.modules.get("tqdm") is None and importlib.util.find_spec("tqdm") is None:
            raise ImportError(f"progress={value!r} needs tqdm: pip install tqdm; or pass a function of (done, total)")
        return value
    if isinstance(value, type) or not callable(value):
        what = f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"
        raise TypeError(f"progress must be True, a label, or a function of (done, total), got {what}")
    try:
        inspect.signature(value).bind(0, None)
    except TypeError:
        raise TypeError(
            f"progress must be a function of two arguments (done, total), got {inspect.signature(value)}"
        ) from None
    except ValueError:  # some functions made in C have no signature
        pass
    function: ProgressFunction = value
    return function
