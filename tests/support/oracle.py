"""The plain loop, and what it means to have its bits."""

from __future__ import annotations

import numpy as np

from parwise._core.call import result_axes


def elements(arrays, axis):
    """Yield what the plain loop hands to the function."""
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
    """Equal in type, dtype, shape and bytes."""
    if isinstance(want, tuple):
        assert isinstance(got, tuple)
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
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


def same(got, want):
    """Equal in type, and bit by bit."""
    assert type(got) is type(want), (got, want)
    if isinstance(want, list | tuple):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            same(one, other)
    elif isinstance(want, np.ndarray | np.generic):
        assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes())
        if isinstance(want, np.ndarray):
            assert got.flags.f_contiguous == want.flags.f_contiguous
    else:
        assert repr(got) == repr(want)
