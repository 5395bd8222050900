"""The data of a DataArray, as parwise maps over it: in memory, in a file, or in Dask's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr


class FileArray:
    """A variable of a file, of which only what is asked for is read.

    Parameters
    ----------
    variable : xarray.Variable
    order : sequence of int
        Its dimensions, in the order that they are to have.
    """

    def __init__(self, variable: xr.Variable, order: Sequence[int]) -> None:
        self._variable = variable
        self._dims = [variable.dims[k] for k in order]
        self.shape = tuple(variable.shape[k] for k in order)
        self.dtype = np.dtype(variable.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a box; slices only."""
        parts = key if isinstance(key, tuple) else (key,)
        box: xr.Variable = self._variable[dict(zip(self._dims, parts, strict=False))]
        return box.transpose(*self._dims).to_numpy()


def is_dask(array: xr.DataArray) -> bool:
    """Whether the data is lazy and in blocks."""
    return array.chunks is not None


def is_file(array: xr.DataArray) -> bool:
    """Whether the data is in a file, and was not read yet."""
    variable = array.variable
    # xarray has no public way to ask; both names are as old as its lazy arrays.
    return not variable._in_memory and hasattr(variable._data, "get_duck_array")


def source_of(array: xr.DataArray, order: Sequence[int]) -> Any:
    """The data with its axes in `order`, nothing copied or read."""
    if is_file(array):
        return FileArray(array.variable, order)
    data = array.data
    if is_dask(array):
        return data.transpose(order)
    if not isinstance(data, np.ndarray) and hasattr(data, "__array_function__"):
        kind = type(data)
        raise TypeError(
            f"the data of {array.name!r} is a {kind.__module__}.{kind.__name__}, which would lose what makes it one; "
            "pass array.as_numpy(), or what else makes plain NumPy data of it"
        )
    return np.asarray(data).transpose(order)


def order_with(ndim: int, sources: Sequence[int], places: Sequence[int]) -> list[int]:
    """The order of axes that brings the axes `sources` to `places`, as `numpy.moveaxis` does.

    Examples
    --------
    >>> order_with(3, [2], [0]), order_with(3, [0, 1], [2, 1])
    ([2, 0, 1], [2, 1, 0])
    """
    order = [axis for axis in range(ndim) if axis not in sources]
    for place, source in sorted(zip(places, sources, strict=True)):
        order.insert(place, source)
    return order
