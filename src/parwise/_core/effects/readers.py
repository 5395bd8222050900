"""Iterators and files in memory that a function holds and reads on in: each worker has a copy, at the same place."""

from __future__ import annotations

import io
import operator
from collections.abc import Iterable
from typing import Any

from .functions import codes_of, function_of
from .generators import Held, held

COPIED = (
    "reads on in {}, of which each worker has a copy, so several workers read the same. Read it before the call, and "
    "map over what it gave"
)
# Those that can be pickled; an open text file becomes a StringIO.
_ITERATORS = frozenset(map(type, (iter([]), iter(()), iter(range(0)), iter(range(2**70)), iter(""), iter(b""))))
_FILES = (io.StringIO, io.BytesIO)


def held_readers(objects: Iterable[tuple[str, Any]]) -> Held:
    """Those among objects of `objects_of`, with how much is left in each."""
    return held(objects, _left)


def unread(func: Any, objects: Iterable[tuple[str, Any]]) -> Held:
    """Those in which something is left, unless the function goes to a place of its own choice.

    Where nothing is left a file is written to, as a log is.
    """
    found = {name: one for name, one in held_readers(objects).items() if one[1] != b"0"}
    function, own = function_of(func)
    if found and function is not None and any("seek" in code.co_names for code in codes_of(function, own)):
        return {}
    return found


def _left(value: Any) -> bytes | None:
    """How much is left in an iterator or a file in memory; None for other objects."""
    if type(value) in _ITERATORS:
        return b"%d" % operator.length_hint(value)
    if type(value) not in _FILES or value.closed:
        return None
    # The function may be reading it in another thread just now, so its place is left alone.
    return b"%d" % (len(value.getvalue()) - value.tell())
