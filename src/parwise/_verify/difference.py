"""Whether two results have the same bits, and if not, how they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.results import Results, Stack, item_bytes, same
from ..errors import NotReproducibleError


@dataclass(frozen=True)
class Difference:
    """Why two results of the same work differ.

    Attributes
    ----------
    kind : str
        As of `NotReproducibleError`.
    text : str
        What was seen, and what to do.
    index : int
        The element, or first element of the block.
    depth : int, optional
        The halo that would do.
    """

    kind: str
    text: str
    index: int
    depth: int | None = None

    def error(self, public_index: Callable[[int], int | tuple[int, ...]]) -> NotReproducibleError:
        """It as an error; `public_index` makes an index as the user counts."""
        error = NotReproducibleError(self.text)
        error.kind, error.index, error.depth = self.kind, public_index(self.index), self.depth
        return error


def difference(one: Results, other: Results) -> tuple[str, str]:
    """How two results that are not the same differ.

    Returns
    -------
    kind : {"type", "nan", "value"}
    text : str
        In a few words, `one` first.
    """
    if len(one.columns) != len(other.columns) or (one.wrap is None) != (other.wrap is None):
        return "type", f"{_count(one)}, and {_count(other)}"
    for a, b in zip(one.columns, other.columns, strict=True):
        found = _column_difference(a, b)
        if found is not None:
            return found
    return "value", "in what the objects hold"


def _count(results: Results) -> str:
    return f"{len(results.columns)} result(s) {'in a tuple' if results.wrap else 'alone'}"


def _column_difference(a: Any, b: Any) -> tuple[str, str] | None:
    if isinstance(a, Stack) != isinstance(b, Stack):
        return "type", f"{_kind(a)}, and {_kind(b)}"
    if not isinstance(a, Stack):
        return None if same(a, b) else ("value", f"{_short(a)}, and {_short(b)}")
    if a.kind != b.kind:
        return "type", f"{_kind(a)}, and {_kind(b)}"
    return array_difference(a.array, b.array)


def _kind(column: Any) -> str:
    kind = column.kind if isinstance(column, Stack) else type(column[0]) if column else None
    return str(getattr(kind, "__name__", kind))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def array_difference(a: np.ndarray, b: np.ndarray) -> tuple[str, str] | None:
    """Kind and text of the difference of two arrays; None if their bits are the same."""
    if a.dtype != b.dtype:
        return "type", f"dtype {a.dtype}, and {b.dtype}"
    if a.shape != b.shape:
        return "type", f"shape {a.shape}, and {b.shape}"
    if a.dtype.names is not None:
        found = ((name, array_difference(a[name], b[name])) for name in a.dtype.names)
        return next(((kind[0], f"field {name!r}: {kind[1]}") for name, kind in found if kind), None)
    wrong = differing(a, b)
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
    x, y = a[at], b[at]
    many = f"{np.count_nonzero(wrong)} of {wrong.size} numbers differ, " if wrong.size > 1 else ""
    place = f"at {at if len(at) > 1 else at[0]}: " if at else ""
    if a.dtype.kind in "fc" and _only_nan_or_zero(a[wrong], b[wrong]):
        return "nan", f"{many}{place}only bits of NaN or the sign of zero: {_hex(x)}, and {_hex(y)}"
    if a.dtype.kind in "fc":
        return "value", f"{many}{place}{_hex(x)}, and {_hex(y)}{_apart(a[wrong], b[wrong])}"
    return "value", f"{many}{place}{_short(x)}, and {_short(y)}"


def differing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays of one dtype and shape have other bits."""
    if a.dtype.hasobject or not a.dtype.itemsize or not a.size:
        wrong = np.array([not same(x, y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)], bool)
    else:
        wrong = (item_bytes(a) != item_bytes(b)).any(axis=1)
    return wrong.reshape(a.shape)


def _only_nan_or_zero(a: np.ndarray, b: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool((((a == 0) & (b == 0)) | (np.isnan(a) & np.isnan(b))).all())


def _hex(x: Any) -> str:
    """A number with all its bits."""
    if isinstance(x, np.complexfloating):
        return f"({_hex(x.real)}, {_hex(x.imag)}j)"
    if np.isnan(x):
        return f"nan ({np.asarray(x).astype(x.dtype.newbyteorder('>')).tobytes().hex()})"
    return float(x).hex()


def _apart(a: np.ndarray, b: np.ndarray) -> str:
    """How many representable numbers lie between the two that are farthest apart."""
    if a.dtype.kind != "f" or a.dtype.itemsize > 8:
        return ""
    with np.errstate(all="ignore"):
        finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        return ""
    whole = np.dtype(f"i{a.dtype.itemsize}")
    steps = []
    for x in (a, b):
        bits = x.astype(x.dtype.newbyteorder("=")).view(whole).astype(object)
        # Negative numbers count downwards from minus zero.
        steps.append(np.where(bits < 0, -(bits + 2 ** (8 * whole.itemsize - 1)), bits))
    most = max(abs(steps[0] - steps[1]))
    return f" ({most} ulp at most)" if most < 2**20 else ""
