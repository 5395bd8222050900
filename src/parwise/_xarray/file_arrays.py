"""Arrays in files: reads that run ahead, rolling views; and the data of a DataArray with its axes in some order."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

#: Bytes of one read from a file: a second of reading and unpacking where that is slow.
READ_BYTES = 2**25
#: Rolling windows of single pixels need the same maps for each pixel. A reader then keeps the maps of so many windows,
#: up to `MAX_READ_BYTES`, and few maps are read twice.
KEPT_WINDOWS = 4
MAX_READ_BYTES = 2**28

#: A region of an array: along each axis a slice with non-negative bounds and without a step.
Region: TypeAlias = tuple[slice, ...]


class ReadAhead:
    """A reader for a variable in a file, which reads more than one task needs and keeps it for the next tasks.

    Files are often stored and compressed in chunks of which one task needs little: one pixel of each of many maps, say.
    Without the reader each task would read all of these chunks again.

    Parameters
    ----------
    dims : sequence of hashable
        Dimensions along which consecutive tasks advance, the fastest last.
    window : int, optional
        Number of consecutive indices along the first of `dims` that each task reads: the length of a rolling window.
    """

    memory_strides: tuple[int, ...] | None = None  # functions get contiguous elements

    def __init__(self, variable: xr.Variable, dims: Sequence[Hashable], window: int = 1) -> None:
        self._variable, self._window = variable, window
        self._axes = [variable.dims.index(dim) for dim in dims]
        wanted = KEPT_WINDOWS * window * _row_bytes(variable, dims[0]) if window > 1 else 0
        self._nbytes = max(READ_BYTES, min(wanted, MAX_READ_BYTES))
        self.shape, self.dtype = variable.shape, np.dtype(variable.dtype)
        self._lock = threading.Lock()
        self._kept_region: Region = ()
        self._kept: np.ndarray | None = None

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self._variable, [self._variable.dims[axis] for axis in self._axes], self._window)

    def read(self, region: Region) -> np.ndarray:
        """Data of a region, perhaps as a view of kept memory: do not write to it."""
        with self._lock:
            kept = self._kept
            if kept is None or not _contains(self._kept_region, region):
                if kept is not None and self._precedes_kept(region):  # an element that is computed again
                    return self._load(region)
                del kept  # frees its memory before the next read
                kept = self._advance(self._extend(region))
            return kept[_relative(region, self._kept_region)]

    def _advance(self, region: Region) -> np.ndarray:
        """Keep a region, of which only the data that is not kept yet is read."""
        kept, old = self._kept, self._kept_region
        self._kept = None
        changed = [axis for axis, (a, b) in enumerate(zip(old, region, strict=False)) if a != b]
        if kept is not None and len(changed) == 1 and old[changed[0]].stop > region[changed[0]].start:
            (axis,) = changed
            known, rest = list(region), list(region)
            known[axis] = slice(region[axis].start, old[axis].stop)
            rest[axis] = slice(old[axis].stop, region[axis].stop)
            tail = kept[_relative(tuple(known), old)]
            data = np.concatenate([tail, self._load(tuple(rest))], axis)
        else:
            del kept
            data = self._load(region)
        self._kept, self._kept_region = data, region
        return data

    def _precedes_kept(self, region: Region) -> bool:
        """Return True if tasks come to a region earlier than to the kept one."""
        return [region[axis].start for axis in self._axes] < [self._kept_region[axis].start for axis in self._axes]

    def _extend(self, region: Region) -> Region:
        """A region of the size of one read: the given one and those that follow it."""
        lengths = [part.stop - part.start for part in region]
        extended = list(region)
        for axis in reversed(self._axes):
            row_bytes = self.dtype.itemsize * math.prod(lengths[:axis] + lengths[axis + 1 :])
            length = max(lengths[axis], self._nbytes // max(1, row_bytes))
            if length < self.shape[axis]:
                stop = min(self.shape[axis], region[axis].start + length)
                extended[axis] = slice(region[axis].start, stop)
                break
            extended[axis], lengths[axis] = slice(0, self.shape[axis]), self.shape[axis]
        return tuple(extended)

    def _load(self, region: Region) -> np.ndarray:
        part: xr.Variable = self._variable[dict(zip(self._variable.dims, region, strict=True))]
        return part.to_numpy()


def _contains(outer: Region, inner: Region) -> bool:
    return all(b.start <= a.start and a.stop <= b.stop for a, b in zip(inner, outer, strict=True))


def _relative(region: Region, outer: Region) -> Region:
    """A region of an array as a region of the data of `outer`."""
    return tuple(slice(b.start - a.start, b.stop - a.start) for a, b in zip(outer, region, strict=True))


class RollingView:
    """Rolling windows over a variable in a file: a duck array, which a DataArray can hold.

    Parameters
    ----------
    axes : sequence of int
        Axes along which windows roll. The windows' own axes are the last ones.
    sizes, offsets : sequence of int
        Along each of `axes` the length of a window, and how many labels it has before its own.
    example : ndarray
        A window that xarray made of an array of this dtype. Its first value is the fill value; it is writable where
        xarray copies windows.
    """

    def __init__(
        self, reader: ReadAhead, axes: Sequence[int], sizes: Sequence[int], offsets: Sequence[int], example: np.ndarray
    ) -> None:
        self._reader, self._axes, self._sizes, self._offsets = reader, axes, sizes, offsets
        self._fill_value, self._copied = example.flat[0], example.flags.writeable
        self.shape, self.dtype = (*reader.shape, *sizes), example.dtype
        self.ndim = len(self.shape)

    @property
    def memory_strides(self) -> tuple[int, ...] | None:
        """Strides in bytes of xarray's windows over the variable in memory; None for dates, which xarray copies."""
        if self._copied:
            return None
        lengths = list(self._reader.shape)
        for axis, size in zip(self._axes, self._sizes, strict=True):
            lengths[axis] += size - 1
        strides = [self.dtype.itemsize * math.prod(lengths[axis + 1 :]) for axis in range(len(lengths))]
        return (*strides, *(strides[axis] for axis in self._axes))

    def read(self, region: Region) -> np.ndarray:
        """Data of a region, with fill values beyond the ends of the variable."""
        ndim = len(self._reader.shape)
        inner, target = list(region[:ndim]), [slice(None)] * ndim
        lengths = [part.stop - part.start for part in inner]
        for axis, size, offset in zip(self._axes, self._sizes, self._offsets, strict=True):
            first, length = region[axis].start - offset, lengths[axis] + size - 1
            inner[axis] = slice(max(0, first), max(0, min(self._reader.shape[axis], first + length)))
            target[axis] = slice(inner[axis].start - first, inner[axis].stop - first)
            lengths[axis] = length
        padded = np.full(lengths, self._fill_value, self.dtype)
        padded[tuple(target)] = self._reader.read(tuple(inner))
        windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(self._sizes), tuple(self._axes))
        cut: np.ndarray = windows[(slice(None),) * ndim + region[ndim:]]
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

    def __init__(self, source: ReadAhead | RollingView, order: Sequence[int]) -> None:
        self._source, self._order = source, list(order)
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
        return FileArray(ReadAhead(array.variable, dims), order)
    data = array.data
    if is_dask(array):
        return data.transpose(order)
    if not isinstance(data, np.ndarray) and hasattr(data, "__array_function__"):
        kind = type(data)
        raise TypeError(
            f"the data of {array.name!r} is a {kind.__module__}.{kind.__name__}, which would lose what makes it one; "
            "pass array.as_numpy(), or another conversion to a NumPy array"
        )
    return np.asarray(data).transpose(order)


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
