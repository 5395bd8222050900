"""Calls that do not fit the mapped function: what it was given, and what to write instead."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..options.options import Options
from .unknown_options import takes


def check_no_options(func: Any, kwargs: Mapping[str, Any], instead: str) -> None:
    """Raise a TypeError if an option is among the arguments of a function that takes none of that name.

    `instead` is the line to write, with a place for ``{option}``.
    """
    for name, value in kwargs.items():
        if name in Options.__annotations__ and not takes_any(func, name):
            option = f"{name}={value!r}" if isinstance(value, int | str | None) else f"{name}=..."
            line = instead.format(option=option)
            raise TypeError(f"{name_of(func)} takes no argument {name!r}; for parwise's option write {line}")


def takes_any(func: Any, name: str) -> bool:
    """True if a function takes an argument of that name, as far as can be seen."""
    try:
        kinds = {one.kind for one in inspect.signature(func).parameters.values()}
    except (TypeError, ValueError):  # made in C
        return True
    return inspect.Parameter.VAR_KEYWORD in kinds or takes(func, name)


def name_of(func: Any) -> str:
    """The name of a function in a sentence."""
    name = getattr(func, "__name__", "")
    return name if name.isidentifier() else "the function"


def misfit(func: Any, given: int, names: Collection[str], items: Sequence[Any] = ()) -> str:
    """Tell why a function cannot take the arguments that it was given; empty if it can, or if nobody knows.

    Parameters
    ----------
    given : int
        Number of positional arguments.
    names : collection of str
        The names of the others.
    items : sequence
        The items that are mapped, which come first among the arguments.
    """
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):  # made in C
        return ""
    if _fits(signature, given, names):
        return ""
    text = f"{name_of(func)} was called with {_counted(given, names)}, but its arguments are {signature}"
    parts = len(items[0]) if len(items) == 1 and isinstance(items[0], tuple | list) else 0
    if parts and _fits(signature, given - 1 + parts, names):
        text += "; to pass the parts of each item as arguments, write parallel_map(f, items, starmap=True)"
    return text


def _fits(signature: inspect.Signature, count: int, names: Collection[str]) -> bool:
    try:
        signature.bind(*[None] * count, **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _counted(given: int, names: Collection[str]) -> str:
    count = f"{given} argument{'s' * (given != 1)}"
    return f"{count} and {', '.join(f'{name}=' for name in names)}" if names else count
