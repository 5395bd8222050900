"""The function `apply_along_axis`, a drop-in for `numpy.apply_along_axis`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .._core.messages.misfits import check_no_options
from .._core.options.options import resolve
from . import originals
from .outputs import Outputs, collect, is_plain, loop_suffices, use_own_loop


def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """Apply a function to 1-D slices along an axis, on all CPU cores.

    A drop-in for `numpy.apply_along_axis`: the result has the same bytes,
    dtype, shape and memory layout.

    Parameters
    ----------
    func1d : callable
        Function of one slice ``arr[ii, :, kk]``, then `args` and `kwargs`.
    axis : int
        The axis along which slices are taken.
    arr : array_like
        The array.
    *args, **kwargs
        Further arguments of every call, whatever their names. To set options,
        use ``with parwise.options(...)``.

    Returns
    -------
    ndarray
        An array of the shape of `arr`, with the axes of one result of `func1d`
        in place of `axis`. The first result has its dtype; all others are cast
        to it.

    Raises
    ------
    ValueError, AxisError
        Where NumPy raises them, with NumPy's message.
    TypeError
        If ``isolate``, ``timeout`` or ``errors="ignore"`` is set and `arr` is
        an array that only NumPy's own loop can map over.
    Exception
        Any exception that `func1d` raised; that of the first slice, if there
        were several.

    See Also
    --------
    parallel_apply : Also maps over several arrays, and takes options as keywords.

    Notes
    -----
    NumPy's own loop runs in this process for masked arrays, matrices and other
    subclasses of `numpy.ndarray` (except `numpy.memmap`), and for arrays of
    other libraries.

    If `func1d` writes to a slice, `arr` does not change: slices are copies,
    unless it is proved that `func1d` only reads.
    Masked results of workers have a full mask, even if no value is masked.

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
    check_no_options(func1d, kwargs, "with parwise.options({option}): ...")
    settings = resolve({})
    array = None if loop_suffices(settings) else _as_plain_array(arr)
    if array is None:
        use_own_loop(settings, f"arr of type {type(arr).__name__}")
        return originals.apply_along_axis(func1d, axis, arr, *args, **kwargs)
    try:
        along = normalize_axis_index(axis, array.ndim)
    except (TypeError, ValueError):  # AxisError is one
        return originals.apply_along_axis(func1d, axis, arr, *args, **kwargs)
    axes = tuple(k for k in range(array.ndim) if k != along)
    shape = tuple(array.shape[k] for k in axes)
    count = math.prod(shape)
    if not count or loop_suffices(settings, count):
        return originals.apply_along_axis(func1d, axis, arr, *args, **kwargs)
    source, mapped = (array, axes) if axes else (array[np.newaxis], (0,))
    outputs = Outputs(collect(func1d, [source], mapped, settings, args, kwargs), shape)
    if outputs.empty:
        return outputs.all_gaps()
    stack = outputs.uniform()
    if stack is None:
        values = iter(outputs.values())
        result = originals.apply_along_axis(lambda _: next(values), axis, arr)
    else:
        depth = stack.ndim - len(axes)
        loop_axes = list(range(len(axes)))
        core_axes = list(range(len(axes), len(axes) + depth))
        result = stack.transpose(loop_axes[:along] + core_axes + loop_axes[along:])
    shift = result.ndim - len(axes)  # axes of one result, which stand in place of `axis`
    return outputs.with_gaps(result, tuple(k if k < along else k + shift for k in range(len(axes))))


def _as_plain_array(arr: Any) -> np.ndarray | None:
    """`arr` as an array; None if `numpy.apply_along_axis` would return another type for it."""
    if not isinstance(arr, np.ndarray) and (hasattr(arr, "__array_function__") or hasattr(arr, "__array_wrap__")):
        return None
    array = np.asanyarray(arr)
    return array if is_plain(array) else None
