"""Hypothesis strategies for arrays as hostile as users' arrays are."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

DTYPES = ["f8", "f4", ">f8", ">f4", "i4", ">i2", "u1", "?", "c8", ">c16", "f2", "g", "M8[s]", "U2", "S3"]
LAYOUTS = ["C", "F", "transposed", "stepped", "negative", "broadcast", "unaligned", "field", "window", "readonly"]


def _values(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind == "c":
        values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    elif kind in "fg":
        values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)
    else:
        values = rng.integers(0, 100, shape)
    return values.astype(dtype)


def make_array(shape, dtype, layout, seed=0):
    """Return an array of the given shape, dtype and memory layout."""
    if layout == "F":
        return np.asfortranarray(_values(shape, dtype, seed))
    if layout == "transposed":
        return _values(shape[::-1], dtype, seed).T
    if layout == "stepped":
        return _values([2 * n for n in shape], dtype, seed)[tuple(slice(None, None, 2) for _ in shape)]
    if layout == "negative":
        return _values(shape, dtype, seed)[tuple(slice(None, None, -1) for _ in shape)]
    if layout == "broadcast":
        return np.broadcast_to(_values([1, *shape[1:]], dtype, seed), shape)
    if layout == "unaligned":
        values = _values(shape, dtype, seed)
        memory = np.zeros(values.nbytes + 1, "u1")[1:]
        array = memory[: values.nbytes].view(dtype).reshape(shape)
        array[...] = values
        return array
    if layout == "field":
        record = np.zeros(shape, dtype=[("pad", "u1"), ("x", dtype), ("more", "u1", (3,))])
        record["x"] = _values(shape, dtype, seed)
        return record["x"]
    if layout == "window" and shape[-1]:
        base = _values([*shape[:-1], shape[-1] + 2], dtype, seed)
        return np.lib.stride_tricks.sliding_window_view(base, 3, axis=-1)
    array = _values(shape, dtype, seed)
    array.flags.writeable = layout != "readonly"
    return array


@st.composite
def arrays(draw, dtypes=tuple(DTYPES), min_dims=1, max_dims=3, max_side=9):
    """Arrays of any layout."""
    shape = draw(st.lists(st.integers(0, max_side), min_size=min_dims, max_size=max_dims))
    layout = draw(st.sampled_from(LAYOUTS))
    return make_array(shape, draw(st.sampled_from(dtypes)), layout, draw(st.integers(0, 2**16)))


@st.composite
def axes(draw, ndim):
    """An axis argument for an array of `ndim` dimensions."""
    if draw(st.booleans()):
        return draw(st.integers(-ndim, ndim - 1))
    chosen = draw(st.lists(st.integers(0, ndim - 1), min_size=1, max_size=ndim, unique=True))
    negative = draw(st.booleans())
    return tuple(axis - ndim if negative else axis for axis in chosen)
