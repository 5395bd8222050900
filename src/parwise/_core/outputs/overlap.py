"""Whether `out` lies in the same memory, or file, as what the function reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..call import Call


def overlaps(out: Any, call: Call) -> bool:
    """True if writing to `out` could change the arguments of later calls of the function."""
    sources = [getattr(one.source, "source", one.source) for one in call.inputs]
    given = [*sources, *call.args, *call.kwargs.values(), *_closure(call.func)]
    if not isinstance(out, np.ndarray):
        return any(_is_same(out, one) for one in given)
    return any(_may_share(out, other) for other in _arrays_within(given))


def _closure(func: Any) -> Iterator[Any]:
    """The values that a function has captured."""
    for cell in getattr(func, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            yield cell.cell_contents


def _is_same(out: Any, other: Any) -> bool:
    """True if both are the same array in a file: h5py makes a new object each time that one is opened."""
    if type(out) is not type(other):
        return False
    try:
        return out is other or (out == other) is True
    except Exception:
        return False


def _may_share(out: np.ndarray, other: np.ndarray) -> bool:
    """True if both may lie in the same memory, or map the same file."""
    names = [getattr(one, "filename", None) for one in (out, other)]
    return np.may_share_memory(out, other) or (names[0] is not None and names[0] == names[1])


def _arrays_within(values: Iterable[Any]) -> Iterator[np.ndarray]:
    """Arrays among some values, and in lists and tuples among them, which may hold themselves."""
    left, seen = list(values), set[int]()
    while left:
        value = left.pop()
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, list | tuple) and id(value) not in seen:
            seen.add(id(value))
            left.extend(value)
