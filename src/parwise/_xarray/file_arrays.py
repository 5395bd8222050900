"""Arrays in files: reads that run ahead, rolling views; and the data of a DataArray with its axes in some order."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._core.inputs.foreign import is_duck
from .._core.inputs.source import MAX_READ_BYTES, READ_BYTES, ReadAhead, Region

#: Rolling windows of single pixels need the same maps for each pixel. A reader then keeps the maps of so many windows,
#: up to `MAX_READ_BYTES`, and few maps are read twice.
KEPT_WINDOWS = 4


class VariableReader(ReadAhead):
    """A reader for a variable in a file.

    Parameters
    ----------
    dims : sequence of hashable
        Dimensions along which consecutive tasks advance, the fastest last.
    name : hashable
        Name of the variable, for errors.
    window : int, optional
        Number of consecutive indices along the first of `dims` that each task reads: the length of a rolling window.
    """

    reads_are_new = True

    def __init__(self, variable: xr.Variable, dims: Sequence[Hashable], name: Hashable = None, window: int = 1) -> None:
        wanted = KEPT_WINDOWS * window * _row_bytes(variable, dims[0]) if window > 1 else 0
        nbytes = max(READ_BYTES, min(wanted, MAX_READ_BYTES))
        axes = [variable.dims.index(dim) for dim in dims]
        super().__init__(_FileVariable(variable), axes, f"the variable {name!r} in a file", nbytes)
        self._given = variable, dims, name, window

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), self._given


class _FileVariable:
    """A variable in a file as an array that is indexed by slices."""

    def __init__(self, variable: xr.Variable) -> None:
        self._variable, self.shape, self.dtype = variable, variable.shape, np.dtype(variable.dtype)
        # Chunks of the file, not those of a part that was selected of it.
        preferred = variable.encoding.get("preferred_chunks") or {}
        stored = variable.encoding.get("original_shape", variable.shape)
        chunks = variable.encoding.get("chunksizes") or [preferred.get(dim) for dim in variable.dims]
        self.chunks = tuple(chunks) if tuple(stored) == variable.shape and len(chunks) == variable.ndim else None

    def __getitem__(self, region: tuple[slice, ...]) -> Any:
        part: xr.Variable = self._variable[dict(zip(self._variable.dims, region, strict=True))]
        return part.compute().data


class RollingView:
    """Rolling windows over a variable in a file: a duck array, which a DataArray can hold.

    Parameters
    ----------
    axes : sequence of int
        Axes along which windows roll. The windows' own axes are the last ones.
    sizes, offsets : sequence of int
        Along each of `axes` the length of a window, and how many labels it has before its own.
    strides : sequence of int
        Along each of `axes` the distance of windows, in labels.
    example : ndarray
        A window that xarray made of an array of this dtype. Its first value is the fill value; it is writable where
        xarray copies windows.
    """

    def __init__(
        self,
        reader: VariableReader,
        axes: Sequence[int],
        sizes: Sequence[int],
        offsets: Sequence[int],
        strides: Sequence[int],
        example: np.ndarray,
    ) -> None:
        self._reader, self._axes, self._sizes, self._offsets, self._strides = reader, axes, sizes, offsets, strides
        self._fill_value, self._copied = example.flat[0], example.flags.writeable
        shape = list(reader.shape)
        for axis, stride in zip(axes, strides, strict=True):
            shape[axis] = -(-shape[axis] // stride)
        self.shape, self.dtype = (*shape, *sizes), example.dtype
        self.ndim = len(self.shape)

    @property
    def reader(self) -> VariableReader:
        """What reads the file."""
        return self._reader

    @property
    def memory_strides(self) -> tuple[int, ...] | None:
        """Strides in bytes of xarray's windows over the variable in memory; None for dates, which xarray copies."""
        if self._copied:
            return None
        lengths = list(self._reader.shape)
        for axis, size in zip(self._axes, self._sizes, strict=True):
            lengths[axis] += size - 1
        strides = [self.dtype.itemsize * math.prod(lengths[axis + 1 :]) for axis in range(len(lengths))]
        within = [strides[axis] for axis in self._axes]
        for axis, stride in zip(self._axes, self._strides, strict=True):
            strides[axis] *= stride
        return (*strides, *within)

    def read(self, region: Region) -> np.ndarray:
        """Data of a region, with fill values beyond the ends of the variable."""
        ndim = len(self._reader.shape)
        inner, target = list(region[:ndim]), [slice(None)] * ndim
        lengths = [part.stop - part.start for part in inner]
        every = [slice(None)] * ndim
        for axis, size, offset, stride in zip(self._axes, self._sizes, self._offsets, self._strides, strict=True):
            first, length = region[axis].start * stride - offset, max(0, lengths[axis] - 1) * stride + size
            every[axis] = slice(None, lengths[axis] * stride, stride)
            inner[axis] = slice(max(0, first), max(0, min(self._reader.shape[axis], first + length)))
            target[axis] = slice(inner[axis].start - first, inner[axis].stop - first)
            lengths[axis] = length
        padded = np.full(lengths, self._fill_value, self.dtype)
        padded[tuple(target)] = self._reader.read(tuple(inner))
        windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(self._sizes), tuple(self._axes))
        cut: np.ndarray = windows[(*every, *region[ndim:])]
        return cut

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        part: np.ndarray = self.read(tuple(slice(0, n) for n in self.shape))[key]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __array_function__(self, *_: Any) -> Any:
        return NotImplemented

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        return NotImplemented


class FileArray:
    """A transposed view of an array in a file, read region by region; `order` lists the axes of the source.

    `memory_strides` are the strides in bytes that the array would have in memory; None for contiguous elements.
    """

    def __init__(self, source: VariableReader | RollingView, order: Sequence[int]) -> None:
        self._source, self._order = source, list(order)
        self.reader = source.reader
        self.shape = tuple(source.shape[k] for k in order)
        self.dtype = source.dtype
        strides = source.memory_strides
        self.memory_strides = None if strides is None else tuple(strides[k] for k in order)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a region, given by slices."""
        region = [slice(0, n) for n in self._source.shape]
        for axis, part in zip(self._order, key if isinstance(key, tuple) else (key,), strict=False):
            start, stop, _ = part.indices(self._source.shape[axis])
            region[axis] = slice(start, max(start, stop))
        return self._source.read(tuple(region)).transpose(self._order)


def rows_per_read(array: xr.DataArray, dim: Hashable) -> int:
    """Number of indices along a dimension that make one read of `READ_BYTES`."""
    return max(1, READ_BYTES // max(1, _row_bytes(array.variable, dim)))


def _row_bytes(variable: xr.Variable, dim: Hashable) -> int:
    """Bytes of one index along a dimension."""
    return int(variable.nbytes) // max(1, int(variable.sizes[dim]))


def is_dask(array: xr.DataArray) -> bool:
    """Return True if the data is a Dask array."""
    return array.chunks is not None


def is_file(array: xr.DataArray) -> bool:
    """Return True if the data is in a file and was not read yet."""
    variable = array.variable
    # xarray has no public way to ask. Both names are as old as its lazy arrays.
    return not variable._in_memory and hasattr(variable._data, "get_duck_array")


def transposed_data(array: xr.DataArray, order: Sequence[int], dims: Sequence[Hashable]) -> Any:
    """The data of a DataArray with its axes in some order: a view, of which nothing is copied or read.

    The result is an ndarray, a Dask array or a `FileArray`. Raise a TypeError for another duck array.
    """
    if isinstance(array.variable._data, RollingView):
        return FileArray(array.variable._data, order)
    if is_file(array):
        return FileArray(VariableReader(array.variable, dims, array.name), order)
    data = array.data
    held = data._meta if is_dask(array) else data
    if is_duck(held) or (is_dask(array) and type(held) is not np.ndarray):
        kind = type(held)
        raise TypeError(
            f"the data of {array.name!r} is a {kind.__module__}.{kind.__name__}, which would lose what "
            "makes it one; pass array.as_numpy(), or another array with NumPy data"
        )
    if not is_dask(array):
        return np.asarray(data).transpose(order)
    # Dask makes a layer of tasks even where nothing changes.
    return data if list(order) == list(range(data.ndim)) else data.transpose(order)


def moveaxis_order(ndim: int, source: Sequence[int], destination: Sequence[int]) -> list[int]:
    """Order of axes of the array that ``numpy.moveaxis(array, source, destination)`` returns.

    Examples
    --------
    >>> moveaxis_order(3, [2], [0]), moveaxis_order(3, [0, 1], [2, 1])
    ([2, 0, 1], [2, 1, 0])
    """
    order = [axis for axis in range(ndim) if axis not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return order
