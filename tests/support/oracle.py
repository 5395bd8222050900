"""The plain loop, and the comparison of results with its results by type, dtype, shape and bytes."""

from __future__ import annotations

import numpy as np

from .internals import result_axes


def elements(arrays, axis):
    """Yield the arguments of each call that the plain loop makes."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    leads = [np.moveaxis(a, axes, range(len(axes))) for a in arrays]
    for index in np.ndindex(leads[0].shape[: len(axes)]):
        yield tuple(lead[index] for lead in leads)


def loop(func, *arrays, axis=0, args=(), kwargs=None):
    """`numpy.asarray` of the results of the plain loop, mapped axes in place."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    results = [func(*items, *args, **(kwargs or {})) for items in elements(arrays, axis)]
    lengths = tuple(arrays[0].shape[a] for a in axes)
    if results and isinstance(results[0], tuple):
        return tuple(_stack(list(column), axes, lengths) for column in zip(*results, strict=True))
    return _stack(results, axes, lengths)


def _stack(results, axes, lengths):
    whole = np.asarray(results)
    whole = whole.reshape(*lengths, *whole.shape[1:])
    return np.moveaxis(whole, range(len(lengths)), result_axes(axes, whole.ndim))


def blocks(func, array, bounds, axis=0):
    """The plain loop over blocks."""
    cut = (slice(None),) * (axis % array.ndim)
    return np.concatenate([func(array[(*cut, slice(lo, hi))]) for lo, hi in bounds], axis=axis)


def assert_same(got, want):
    """Equal in type, dtype, shape and bytes, as are the items of tuples."""
    if isinstance(want, tuple):
        assert_each(assert_same, got, want)
        return
    assert isinstance(got, np.ndarray)
    assert got.dtype == want.dtype, (got.dtype, want.dtype)
    assert got.shape == want.shape, (got.shape, want.shape)
    if want.dtype.hasobject:
        assert repr(got.tolist()) == repr(want.tolist())
    elif want.dtype.char in "gG":  # the padding of 80-bit floats is left over memory
        width = np.dtype(np.longdouble).itemsize
        mine, theirs = (np.ascontiguousarray(a).reshape(-1).view("u1").reshape(-1, width)[:, :10] for a in (got, want))
        assert mine.tobytes() == theirs.tobytes()
    else:
        assert got.tobytes() == want.tobytes(), (got, want)


def assert_each(assert_one, got, want):
    """Two tuples, or two lists, of one length whose items pass `assert_one` pair by pair."""
    assert isinstance(got, list if isinstance(want, list) else tuple)
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert_one(one, other)


def assert_same_items(got, want):
    """Equal in type; arrays in bits and memory order, scalars in bits, all others in `repr`."""
    assert type(got) is type(want), (got, want)
    if isinstance(want, list | tuple):
        assert_each(assert_same_items, got, want)
    elif isinstance(want, np.ndarray):
        assert_same(got, want)
        assert got.flags.f_contiguous == want.flags.f_contiguous
    elif isinstance(want, np.generic):
        assert_same(np.asarray(got), np.asarray(want))
    else:
        assert repr(got) == repr(want)
