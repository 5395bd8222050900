"""Calls with ``starmap=True``: each item is a tuple of arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any


class StarFunction:
    """A function of one item, which calls the user's function with all that the item holds.

    It goes by the user's function in errors, in reports and in checks of its parameters.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        functools.update_wrapper(self, func, updated=())
        self._func = func

    def __reduce__(self) -> tuple[Any, ...]:
        return StarFunction, (self._func,)

    def __call__(self, item: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not (isinstance(item, Iterable) or hasattr(type(item), "__getitem__")):
            raise TypeError(
                f"with starmap=True each item is a tuple of arguments, got {item!r} of type {type(item).__name__}; "
                "leave starmap out, or write (item,)"
            )
        return self._func(*item, *args, **kwargs)


def star_function(func: Any, iterables: tuple[Any, ...], starmap: Any) -> Any:
    """`func`, or with `starmap` a function of items that are tuples."""
    if not isinstance(starmap, bool):
        raise TypeError(f"starmap must be a bool, got {starmap!r} of type {type(starmap).__name__}")
    if not starmap or not callable(func):  # the latter is refused by name
        return func
    if len(iterables) > 1:
        raise TypeError(
            f"starmap=True takes one iterable, of tuples of arguments, got {len(iterables)}; without it each iterable "
            "gives one argument"
        )
    return StarFunction(func)
