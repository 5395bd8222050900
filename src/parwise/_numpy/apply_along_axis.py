"""``apply_along_axis``, by NumPy's rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .._core.options import resolve
from .outputs import Outputs, collect, is_plain, loop_suffices, refuse_options


def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """Apply a function to 1-D slices along an axis, on all cores.

    A drop-in for `numpy.apply_along_axis`: the result has the same bytes,
    dtype, shape and memory layout.

    Parameters
    ----------
    func1d : callable
        Gets a slice ``arr[ii, :, kk]``, then `args` and `kwargs`.
    axis : int
        The axis that slices are taken along.
    arr : array_like
        The array.
    *args, **kwargs
        Further arguments of every call, whatever their names: how the call
        runs is for ``with parwise.options(...)`` to say.

    Returns
    -------
    ndarray
        As `arr`, with the axes of `func1d`'s result in place of `axis`. Its
        dtype is that of the first result; the others are cast to it.

    Raises
    ------
    ValueError, AxisError
        Where NumPy raises them, in its words.
    TypeError
        If ``isolate``, ``timeout`` or ``errors="ignore"`` is set, for an array
        that only NumPy's own loop can do.
    Exception
        Whatever `func1d` raised, for the first slice of those that it raised
        for.

    See Also
    --------
    parallel_apply : Also maps several arrays, and takes options by keyword.

    Notes
    -----
    Masked arrays, matrices and other subclasses of `numpy.ndarray` (except
    `numpy.memmap`) and arrays of other libraries are left to NumPy's own loop
    in this process.

    Slices are copies: what `func1d` writes to them is not seen in `arr`.
    Masked results come from workers with a whole mask, if one of False only.

    Examples
    --------
    >>> import numpy as np
    >>> import parwise
    >>> a = np.array([[8, 1, 7], [4, 3, 9], [5, 2, 6]])
    >>> parwise.apply_along_axis(sorted, 1, a)
    array([[1, 7, 8],
           [3, 4, 9],
           [2, 5, 6]])
    >>> with parwise.options(workers=2):
    ...     parwise.apply_along_axis(np.percentile, 0, a, 50)
    array([5., 2., 7.])
    """
    settings = resolve({})
    array = None if loop_suffices(settings) else _plain_array(arr)
    if array is None:
        refuse_options(settings, f"arr of type {type(arr).__name__}")
        return np.apply_along_axis(func1d, axis, arr, *args, **kwargs)
    try:
        along = normalize_axis_index(axis, array.ndim)
    except (TypeError, ValueError):  # AxisError is one
        return np.apply_along_axis(func1d, axis, arr, *args, **kwargs)
    axes = tuple(k for k in range(array.ndim) if k != along)
    shape = tuple(array.shape[k] for k in axes)
    count = math.prod(shape)
    if not count or loop_suffices(settings, count):
        return np.apply_along_axis(func1d, axis, arr, *args, **kwargs)
    source, mapped = (array, axes) if axes else (array[np.newaxis], (0,))
    outputs = Outputs(collect(func1d, [source], mapped, settings, args, kwargs), shape)
    if outputs.empty:
        return outputs.nothing()
    whole = outputs.uniform()
    if whole is None:
        values = iter(outputs.values())
        result = np.apply_along_axis(lambda _: next(values), axis, arr)
    else:
        depth = whole.ndim - len(axes)
        lead = list(range(len(axes)))
        result = whole.transpose(lead[:along] + list(range(len(axes), len(axes) + depth)) + lead[along:])
    behind = result.ndim - len(axes)  # axes of one result, in place of the one that slices lay along
    return outputs.with_gaps(result, tuple(k if k < along else k + behind for k in range(len(axes))))


def _plain_array(arr: Any) -> np.ndarray | None:
    """`arr` as an array, if NumPy's function gives a plain array for it."""
    if not isinstance(arr, np.ndarray) and (hasattr(arr, "__array_function__") or hasattr(arr, "__array_wrap__")):
        return None
    array = np.asanyarray(arr)
    return array if is_plain(array) else None
