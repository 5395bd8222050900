"""Differences between two results, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.messages.shown import shown
from .._core.results import Results, Stack, item_bytes, same
from ..errors import NotReproducibleError


@dataclass(frozen=True)
class Difference:
    """Difference between two results of the same task; `kind` and `depth` are those of `NotReproducibleError`."""

    kind: str
    text: str  # the observation and the remedy
    index: int  # of the element, or first element of the block
    depth: int | None = None

    def error(self, public_index: Callable[[int], int | tuple[int, ...]]) -> NotReproducibleError:
        """Error for the user; `public_index` turns `index` into an index of the user's array."""
        error = NotReproducibleError(self.text)
        error.kind, error.index, error.depth = self.kind, public_index(self.index), self.depth
        return error


def difference(one: Results, other: Results) -> tuple[str, str]:
    """Kind ("type", "nan" or "value") and text of the difference between two results that are not the same."""
    if len(one.columns) != len(other.columns) or (one.wrap is None) != (other.wrap is None):
        return "type", f"{_count(one)} and {_count(other)}"
    for a, b in zip(one.columns, other.columns, strict=True):
        found = _column_difference(a, b)
        if found is not None:
            return found
    return "value", "in what the objects hold"


def _count(results: Results) -> str:
    return f"{len(results.columns)} result(s) {'in a tuple' if results.wrap else 'alone'}"


def _column_difference(a: Any, b: Any) -> tuple[str, str] | None:
    if isinstance(a, Stack) != isinstance(b, Stack):
        return "type", f"{_type_name(a)} and {_type_name(b)}"
    if not isinstance(a, Stack):
        return None if same(a, b) else ("value", f"{shown(a)} and {shown(b)}")
    if a.kind != b.kind:
        return "type", f"{_type_name(a)} and {_type_name(b)}"
    return array_difference(a.array, b.array)


def _type_name(column: Any) -> str:
    kind = column.kind if isinstance(column, Stack) else type(column[0]) if column else None
    return str(getattr(kind, "__name__", kind))


def array_difference(a: np.ndarray, b: np.ndarray) -> tuple[str, str] | None:
    """Kind and text of the difference between two arrays; None if their bits are the same.

    Examples
    --------
    >>> array_difference(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    ('value', '1 of 2 numbers differ, at 1: 2.0 and 3.0 (0x1.0000000000000p+1 and 0x1.8000000000000p+1)')
    >>> array_difference(np.zeros(2), -np.zeros(2))[0]
    'nan'
    >>> array_difference(np.zeros(2), np.zeros(2))
    """
    if a.dtype != b.dtype:
        return "type", f"dtype {a.dtype} and {b.dtype}"
    if a.shape != b.shape:
        return "type", f"shape {a.shape} and {b.shape}"
    if a.dtype.names is not None:
        found = ((name, array_difference(a[name], b[name])) for name in a.dtype.names)
        return next(((kind[0], f"field {name!r}: {kind[1]}") for name, kind in found if kind), None)
    wrong = differing(a, b)
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
    x, y = a[at], b[at]
    count = f"{np.count_nonzero(wrong)} of {wrong.size} numbers differ, " if wrong.size > 1 else ""
    place = f"at {at if len(at) > 1 else at[0]}: " if at else ""
    if a.dtype.kind in "fc" and _only_nan_or_zero(a[wrong], b[wrong]):
        return "nan", f"{count}{place}only bits of NaN or the sign of zero: {x} and {y} ({_hex(x)} and {_hex(y)})"
    if a.dtype.kind in "fc":
        return "value", f"{count}{place}{x} and {y} ({_hex(x)} and {_hex(y)}{_ulp_text(a[wrong], b[wrong])})"
    if a.dtype.kind in "biuUS":  # a result of one of Python's own types is one of NumPy's here
        x, y = x.item(), y.item()
    return "value", f"{count}{place}{shown(x)} and {shown(y)}"


def differing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """True for each item in which two arrays of one dtype and shape have different bits."""
    if a.dtype.hasobject or not a.dtype.itemsize or not a.size:
        wrong = np.array([not same(x, y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)], bool)
    else:
        wrong = (item_bytes(a) != item_bytes(b)).any(axis=1)
    return wrong.reshape(a.shape)


def _only_nan_or_zero(a: np.ndarray, b: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool((((a == 0) & (b == 0)) | (np.isnan(a) & np.isnan(b))).all())


def _hex(x: Any) -> str:
    """Text that shows all bits of a number."""
    if isinstance(x, np.complexfloating):
        return f"({_hex(x.real)}, {_hex(x.imag)}j)"
    if np.isnan(x):
        return f"nan ({np.asarray(x).astype(x.dtype.newbyteorder('>')).tobytes().hex()})"
    return float(x).hex()


def _ulp_text(a: np.ndarray, b: np.ndarray) -> str:
    """Text with the largest distance between two numbers, in units in the last place; empty if it is large."""
    if a.dtype.kind != "f" or a.dtype.itemsize > 8:
        return ""
    with np.errstate(all="ignore"):
        finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        return ""
    integer = np.dtype(f"i{a.dtype.itemsize}")
    positions = []
    for x in (a, b):
        bits = x.astype(x.dtype.newbyteorder("=")).view(integer).astype(object)
        # As integers, the bits of negative numbers grow away from minus zero.
        positions.append(np.where(bits < 0, -(bits + 2 ** (8 * integer.itemsize - 1)), bits))
    most = max(abs(positions[0] - positions[1]))
    return f"; {most} ulp at most" if most < 2**20 else ""
