"""Values as short text for a message, whatever they are: in no time, and without an error of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

#: The longest text of a value.
MOST_CHARACTERS = 80
# Entries of a container, and levels of containers within one another, that are shown.
MOST_ENTRIES = 4
MOST_LEVELS = 3

_SECRET_NAME = re.compile(r"passw|passphrase|secret|token|credential|api_?key|private_?key|authorization|cookie", re.I)
_SECRET_IN_URL = re.compile(r"://[^/@\s]*@")
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}
# Types whose own text is short, or is cut first.
_PLAIN = (bool, int, float, complex, type(None))


def shown(value: Any) -> str:
    """Text of a value, at most `MOST_CHARACTERS` long.

    Of a container it shows the first entries, of an array shape and dtype, and of any other object with a length its
    type and that length: to show all of it could take seconds. Values that belong to a name such as "password", and
    the password in an URL, are left out.

    Examples
    --------
    >>> shown(["run031.csv", 7]), shown(np.zeros((6, 6))), shown({"user": "ann", "password": "1234"})
    ("['run031.csv', 7]", 'array of shape (6, 6), float64', "{'user': 'ann', 'password': ...}")
    """
    try:
        text = " ".join(_text(value, MOST_LEVELS).split())
    except Exception:  # whatever the class of the value raises
        text = _of_type(value)
    return cut(_SECRET_IN_URL.sub("://...@", text))


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """`text` with its middle left out if it is long: the ends of paths tell them apart.

    Examples
    --------
    >>> cut("PosixPath('/data/2024/run031.csv')", 25)
    "PosixPath('...un031.csv')"
    """
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[-tail:]}"


def _text(value: Any, levels: int) -> str:
    kind = type(value)
    if kind in (str, bytes, bytearray):
        return _of_string(value)
    if kind is int and value.bit_length() > 256:
        return f"int of {value.bit_length()} bits"
    if kind in _PLAIN or isinstance(value, np.generic):
        return repr(value)
    if kind in _BRACKETS or kind is dict or _is_named_tuple(value):
        return _of_container(value, levels) if levels else "..."
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple):
        name = "array" if kind is np.ndarray else kind.__name__
        return f"{name} of shape {shape}" + (f", {dtype}" if isinstance(dtype, np.dtype) else "")
    if hasattr(kind, "__len__") and not isinstance(value, type):
        return f"{kind.__name__} of length {len(value)}"
    return _of_object(value) if levels else _of_type(value)


def _of_string(value: str | bytes | bytearray) -> str:
    if len(value) <= 2 * MOST_CHARACTERS:
        return repr(value)
    text = repr(value[:MOST_CHARACTERS])
    return f"{text[:-1]}...{repr(value[-MOST_CHARACTERS:]).lstrip('b')[1:]}"


def _of_container(value: Any, levels: int) -> str:
    more = ", ..." if len(value) > MOST_ENTRIES else ""
    if isinstance(value, dict):
        return "{" + ", ".join(_entry(pair, levels) for pair in islice(value.items(), MOST_ENTRIES)) + more + "}"
    if _is_named_tuple(value):
        pairs = islice(zip(value._fields, value, strict=True), MOST_ENTRIES)
        return f"{type(value).__name__}({_fields(pairs, levels)}{more})"
    if not value:
        return repr(value)
    left, right = _BRACKETS[type(value)]
    entries = ", ".join(_text(one, levels - 1) for one in islice(value, MOST_ENTRIES))
    return f"{left}{entries}{more}{',' if right == ')' and len(value) == 1 else ''}{right}"


def _entry(pair: tuple[Any, Any], levels: int) -> str:
    name, value = pair
    return f"{_text(name, levels - 1)}: {_unless_secret(name, value, levels)}"


def _fields(pairs: Iterable[tuple[str, Any]], levels: int) -> str:
    return ", ".join(f"{name}={_unless_secret(name, value, levels)}" for name, value in pairs)


def _unless_secret(name: Any, value: Any, levels: int) -> str:
    return "..." if isinstance(name, str) and _SECRET_NAME.search(name) else _text(value, levels - 1)


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and isinstance(getattr(type(value), "_fields", None), tuple)


def _of_object(value: Any) -> str:
    """Text of an object by its own `repr`; by the first fields if that is the `repr` that dataclasses make."""
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is None or isinstance(value, type) or not hasattr(type(value).__repr__, "__wrapped__"):
        return cut(repr(value), 4 * MOST_CHARACTERS)
    pairs = [(name, getattr(value, name)) for name, one in islice(fields.items(), MOST_ENTRIES) if one.repr]
    more = ", ..." if len(fields) > MOST_ENTRIES else ""
    return f"{type(value).__name__}({_fields(pairs, MOST_LEVELS - 1)}{more})"


def _of_type(value: Any) -> str:
    return f"an object of type {type(value).__name__}"
