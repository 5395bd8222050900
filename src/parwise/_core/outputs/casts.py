"""Casts that "same_kind" allows and NumPy makes without a word, though values are not what they were."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Loss(NamedTuple):
    """What a cast would do to a value, in words; and the dtype that holds all values."""

    words: str
    dtype: str


def loss_by_cast(data: np.ndarray, dtype: np.dtype[Any]) -> Loss | None:
    """The loss, if text would be cut, or integers and dates lie beyond the range of `dtype`; None if there is none.

    Rounding is none: whoever asks for float32, or days, wants it. Of floats beyond the range NumPy warns itself.

    Examples
    --------
    >>> import numpy as np
    >>> loss_by_cast(np.array(["a", "abcd"]), np.dtype("U3"))
    Loss(words='text of 4 characters, which would be cut', dtype='<U4')
    >>> loss_by_cast(np.array([300]), np.dtype("i1")).words
    '300, which lies beyond its range'
    """
    kind, own = dtype.kind, data.dtype.kind
    if kind in "US" and dtype.itemsize and not np.can_cast(data.dtype, dtype):
        text = data.astype(kind)
        lengths = np.strings.str_len(text[text != data.astype(dtype)])
        if lengths.size:
            longest = int(lengths.max())
            return Loss(f"text of {longest} characters, which would be cut", np.dtype(f"{kind}{longest}").str)
        return None
    if kind in "iu" and own in "iu":
        lost = (data < np.iinfo(dtype).min) | (data > np.iinfo(dtype).max)
    elif kind in "mM" and own == kind and data.dtype != dtype and np.can_cast(data.dtype, dtype):  # to a finer unit
        lost = (data.astype(dtype).astype(data.dtype) != data) & ~np.isnat(data)
    else:
        return None
    return Loss(f"{data[lost][0]}, which lies beyond its range", str(data.dtype)) if lost.any() else None


def read_back(rows: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Results of `dtype` that were written to an array of another one; they become the same there again.

    Examples
    --------
    >>> import numpy as np
    >>> read_back(np.array([2**63, 1], "f8"), np.dtype("i8")).tolist()
    [9223372036854775807, 1]
    """
    if rows.dtype.kind == "c" and dtype.kind in "?biuf":
        rows = rows.real  # NumPy would warn of the imaginary parts, though there were none
    if rows.dtype.kind != "f" or dtype.kind not in "iu":
        return rows.astype(dtype, copy=False)
    # Rounded, the largest lie beyond their range, and so does the infinity that a float16 has for them.
    limits = np.iinfo(dtype)
    most, least = rows >= np.float64(limits.max), rows <= np.float64(limits.min)
    found = np.where(most | least, 0, rows).astype(dtype)
    found[most], found[least] = limits.max, limits.min
    return found


def may_cut(dtype: np.dtype[Any], out: Any) -> bool:
    """True if text in results of `dtype` may be longer than the array `out` has place for."""
    is_text = isinstance(out.dtype, np.dtype) and out.dtype.kind in "US"
    return is_text and not np.can_cast(dtype, out.dtype)


def check_uncut(whole: np.ndarray, out: Any) -> None:
    """Raise a ValueError if the array `out` has no place for all text in the results."""
    if may_cut(whole.dtype, out) and (loss := loss_by_cast(whole, out.dtype)):
        raise ValueError(
            f"out has dtype {out.dtype}, but func returned {loss.words}; pass an out of dtype {loss.dtype}, or cut it "
            "in func"
        )
