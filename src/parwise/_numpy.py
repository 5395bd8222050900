"""`apply_along_axis` and `vectorize` as NumPy has them, on all cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Unpack

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ._binding import Binding
from ._options import Options, Settings, resolve
from ._outputs import Outputs, collect, is_plain, is_serial, refuse_options
from ._vectorized import map_arrays, map_scalars

# More arguments than these NumPy's iterator may refuse to look at.
MOST_ARGUMENTS = 30


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
    array = None if is_serial(settings) else _plain_array(arr)
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
    if not count or is_serial(settings, count):
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


class vectorize(np.vectorize):  # noqa: N801 - NumPy's name
    """A function of scalars made one of arrays, which works on all cores.

    A drop-in for `numpy.vectorize`: results have the same bytes, dtype, shape
    and memory layout, and `pyfunc` gets what it gets there (Python numbers,
    since NumPy maps over arrays of objects; NumPy's own ones for the first
    call, which finds out `otypes`; with a `signature`, arrays).

    Parameters
    ----------
    pyfunc : callable, optional
        The function. Without it this is a decorator.
    otypes : str or list of dtype, optional
        Of each output. By default those of the results for the first element,
        for which `pyfunc` is called once more.
    doc : str, optional
        The docstring; by default that of `pyfunc`.
    excluded : set of str and int, optional
        Names and positions of arguments that are not mapped over.
    cache : bool, optional
        Use that first call's result instead of calling again.
    signature : str, optional
        As ``(m,n),(n)->(m)``, for functions of arrays.
    **options
        How calls run; see `parwise.Options`.

    Raises
    ------
    TypeError, ValueError
        As NumPy does, and for wrong options. Calls raise a TypeError if
        ``isolate``, ``timeout`` or ``errors="ignore"`` is set and an argument
        is an array that only NumPy's own loop can do.

    See Also
    --------
    parallel_apply : Maps over axes of arrays; its functions get slices.

    Notes
    -----
    Where an argument is a masked array, a matrix or another subclass of
    `numpy.ndarray` (except `numpy.memmap`), and where there is one element
    only, the call is left to NumPy's own loop in this process.

    Results that are Python objects come from workers as copies: two elements
    for which `pyfunc` returns the same list have two lists.

    Where NumPy goes on with None after a result with another number of
    outputs, this raises a ValueError.

    With ``errors="ignore"`` the dtype is that of the first result there is.

    Examples
    --------
    >>> import parwise
    >>> @parwise.vectorize
    ... def gcd(a, b):
    ...     while b:
    ...         a, b = b, a % b
    ...     return a
    >>> gcd([12, 18, 24], [[9], [10]])
    array([[3, 9, 3],
           [2, 2, 2]])
    >>> @parwise.vectorize(otypes=[float], excluded={"p"}, workers=2)
    ... def polynomial(x, p):
    ...     y = 0
    ...     for c in p:
    ...         y = y * x + c
    ...     return y
    >>> polynomial([0, 1, 2], p=[1, 2, 3])
    array([ 3.,  6., 11.])
    """

    def __init__(
        self,
        pyfunc: Any = np._NoValue,
        otypes: Any = None,
        doc: str | None = None,
        excluded: Iterable[int | str] | None = None,
        cache: bool = False,
        signature: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        resolve(options)
        super().__init__(pyfunc, otypes, doc, excluded, cache, signature)
        self._options = options

    def __getstate__(self) -> dict[str, Any]:
        # NumPy keeps ufuncs here, which cannot be pickled.
        return {**self.__dict__, "_ufunc": {}}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Map over arguments, broadcast to one shape."""
        settings = resolve(self._options)
        pyfunc: Any = self.pyfunc
        if pyfunc is np._NoValue or is_serial(settings):
            return super().__call__(*args, **kwargs)
        binding = Binding(pyfunc, args, kwargs, self.excluded)
        result = self._mapped(binding, settings)
        if result is NotImplemented:
            return super().__call__(*args, **kwargs)
        return result

    def _mapped(self, binding: Binding, settings: Settings) -> Any:
        """The result, or NotImplemented if NumPy's own loop gives that (or the right error)."""
        if not 0 < len(binding.values) <= MOST_ARGUMENTS:
            refuse_options(settings, f"a call with {len(binding.values)} arguments to map over")
            return NotImplemented
        if self.signature is not None:
            return map_arrays(binding, settings, self.otypes, self.signature)
        return map_scalars(binding, settings, self.otypes, self.cache)
