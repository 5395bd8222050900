"""Compares `parwise.vectorize` with `numpy.vectorize`: the same result or the same error."""

from __future__ import annotations

import warnings

import numpy as np

import parwise

from .oracle import assert_each, assert_same

WAYS = {
    "default": {},
    "one": {"workers": 1},
    "serial": {"executor": "serial"},
    "threads": {"executor": "threads", "workers": 3},
    "processes": {"workers": 2},
    "isolated": {"workers": 2, "isolate": True},
}
MATRICES = np.arange(48.0).reshape(2, 4, 2, 3)


def outcome(call):
    """Return the result of a call, or the error that it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    except Exception as error:
        return error


def memory_layout(array):
    """Flags, and the strides of axes longer than 1: those of other axes mean nothing, and depend on how NumPy iterates.

    Of arrays of shapes (1, 2, 1) and (2, 2).T, `numpy.nditer` and a ufunc allocate results with different ones.
    """
    strides = [stride for stride, n in zip(array.strides, array.shape, strict=True) if n > 1]
    return strides, array.flags.c_contiguous, array.flags.f_contiguous


def assert_as_numpy(ours, theirs):
    """The same type, bytes, dtype, shape and memory layout; or the same error."""
    if isinstance(theirs, tuple):
        assert_each(assert_as_numpy, ours, theirs)
    elif isinstance(theirs, Exception):
        assert (type(ours), str(ours)) == (type(theirs), str(theirs))
    elif not isinstance(theirs, np.ndarray):
        assert (type(ours), ours) == (type(theirs), theirs)
    else:
        assert type(ours) is type(theirs), (ours, theirs)
        assert_same(np.asarray(ours), np.asarray(theirs))
        assert memory_layout(ours) == memory_layout(theirs), (ours.shape, ours.strides, theirs.strides)
        if theirs.dtype.hasobject:
            assert [type(x) for x in ours.flat] == [type(x) for x in theirs.flat]


def check(func, *args, kwargs=None, **options):
    kwargs = kwargs or {}
    ours = outcome(lambda: parwise.vectorize(func, **options)(*args, **kwargs))
    assert_as_numpy(ours, outcome(lambda: np.vectorize(func, **options)(*args, **kwargs)))


def seen(a):
    """Describe an array as a function sees it, but for the size of strides, in which a copy may differ."""
    kinds = [(s > 0) - (s < 0) for s in a.strides]
    return repr((type(a), a.dtype, a.shape, kinds, a.flags.writeable, a.flags.c_contiguous, a.flags.f_contiguous))


class Sub(np.ndarray):
    pass
