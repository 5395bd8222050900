"""The data of a DataArray, as parwise maps over it: in memory, in a file, or in Dask's blocks."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

#: What is read of a file at once: a second of reading and unpacking where that is slow.
BAND_BYTES = 2**25
#: Windows of single pixels are asked for map by map: as many times a window's maps are kept, so that few are read
#: twice, up to that size.
WINDOWS_KEPT = 4
MOST_BYTES = 2**28

#: Where a part lies: a slice along each axis, from 0 on, without steps.
Region: TypeAlias = tuple[slice, ...]


class ReadAhead:
    """A variable of a file, of which parts are read: more than is asked for, as what follows is asked for next.

    Files are often stored and compressed in chunks of which a task needs little:
    one pixel of each of many maps, say. Without this each task would read all
    of those chunks again.

    Parameters
    ----------
    variable : xarray.Variable
    lead : sequence of hashable
        The dimensions along which parts follow each other, the fastest last.
    again : int, optional
        So many rows along the slowest of them are asked for again and again.
    """

    read_strides: tuple[int, ...] | None = None

    def __init__(self, variable: xr.Variable, lead: Sequence[Hashable], again: int = 1) -> None:
        self._variable, self._again = variable, again
        self._lead = [variable.dims.index(dim) for dim in lead]
        wanted = WINDOWS_KEPT * again * _row_bytes(variable, lead[0]) if again > 1 else 0
        self._nbytes = max(BAND_BYTES, min(wanted, MOST_BYTES))
        self.shape, self.dtype = variable.shape, np.dtype(variable.dtype)
        self._lock = threading.Lock()
        self._box: Region = ()
        self._kept: np.ndarray | None = None

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self._variable, [self._variable.dims[axis] for axis in self._lead], self._again)

    def read(self, box: Region) -> np.ndarray:
        """What lies in a box, perhaps in memory that is read again: nobody may write to it."""
        with self._lock:
            kept = self._kept
            if kept is None or not _within(box, self._box):
                if kept is not None and self._is_behind(box):  # something is looked at once more
                    return self._load(box)
                del kept  # before there is another
                kept = self._advance(self._more(box))
            return kept[_seen_from(self._box, box)]

    def _advance(self, box: Region) -> np.ndarray:
        """Keep what lies in a box, and read only what is not kept already."""
        kept, old = self._kept, self._box
        self._kept = None
        changed = [axis for axis, (a, b) in enumerate(zip(old, box, strict=False)) if a != b]
        if kept is not None and len(changed) == 1 and old[changed[0]].stop > box[changed[0]].start:
            (axis,) = changed
            known, rest = list(box), list(box)
            known[axis] = slice(box[axis].start, old[axis].stop)
            rest[axis] = slice(old[axis].stop, box[axis].stop)
            tail = kept[_seen_from(old, tuple(known))]
            made = np.concatenate([tail, self._load(tuple(rest))], axis)
        else:
            del kept
            made = self._load(box)
        self._kept, self._box = made, box
        return made

    def _is_behind(self, box: Region) -> bool:
        """Whether a box lies before what is kept, in the order in which parts are asked for."""
        return [box[axis].start for axis in self._lead] < [self._box[axis].start for axis in self._lead]

    def _more(self, box: Region) -> Region:
        """A box and what follows it."""
        lengths = [part.stop - part.start for part in box]
        whole = list(box)
        for axis in reversed(self._lead):
            row = self.dtype.itemsize * math.prod(lengths[:axis] + lengths[axis + 1 :])
            most = max(lengths[axis], self._nbytes // max(1, row))
            if most < self.shape[axis]:
                stop = min(self.shape[axis], box[axis].start + most)
                whole[axis] = slice(box[axis].start, stop)
                break
            whole[axis], lengths[axis] = slice(0, self.shape[axis]), self.shape[axis]
        return tuple(whole)

    def _load(self, box: Region) -> np.ndarray:
        part: xr.Variable = self._variable[dict(zip(self._variable.dims, box, strict=True))]
        return part.to_numpy()


def _within(box: Region, other: Region) -> bool:
    return all(b.start <= a.start and a.stop <= b.stop for a, b in zip(box, other, strict=True))


def _seen_from(outer: Region, inner: Region) -> Region:
    return tuple(slice(b.start - a.start, b.stop - a.start) for a, b in zip(outer, inner, strict=True))


class RollingView:
    """The rolling windows of a variable of a file, of which parts are read with their neighbours.

    It is a duck array, so that a DataArray can hold it.

    Parameters
    ----------
    band : ReadAhead
    axes : sequence of int
        Those that windows roll along; the windows' own axes follow all others.
    sizes, befores : sequence of int
        How long windows are, and how many labels they have before their own.
    like : ndarray
        A window as xarray makes it, whose first number stands beyond the variable.
    """

    def __init__(
        self, band: ReadAhead, axes: Sequence[int], sizes: Sequence[int], befores: Sequence[int], like: np.ndarray
    ) -> None:
        self._band, self._axes, self._sizes, self._befores = band, axes, sizes, befores
        self._fill, self._copied = like.flat[0], like.flags.writeable
        self.shape, self.dtype = (*band.shape, *sizes), like.dtype
        self.ndim = len(self.shape)

    @property
    def read_strides(self) -> tuple[int, ...] | None:
        """Strides that xarray's own windows have, of the variable in memory; None for dates, which it copies."""
        if self._copied:
            return None
        lengths = list(self._band.shape)
        for axis, size in zip(self._axes, self._sizes, strict=True):
            lengths[axis] += size - 1
        strides = [self.dtype.itemsize * math.prod(lengths[axis + 1 :]) for axis in range(len(lengths))]
        return (*strides, *(strides[axis] for axis in self._axes))

    def read(self, box: Region) -> np.ndarray:
        """What lies in a box."""
        depth = len(self._band.shape)
        inner, lengths, places = (
            list(box[:depth]),
            [part.stop - part.start for part in box[:depth]],
            [slice(None)] * depth,
        )
        for axis, size, before in zip(self._axes, self._sizes, self._befores, strict=True):
            first, length = box[axis].start - before, lengths[axis] + size - 1
            inner[axis] = slice(max(0, first), max(0, min(self._band.shape[axis], first + length)))
            places[axis] = slice(inner[axis].start - first, inner[axis].stop - first)
            lengths[axis] = length
        padded = np.full(lengths, self._fill, self.dtype)
        padded[tuple(places)] = self._band.read(tuple(inner))
        windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(self._sizes), tuple(self._axes))
        cut: np.ndarray = windows[(slice(None),) * depth + box[depth:]]
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
    """An array that is read part by part, as parwise maps over it.

    Parameters
    ----------
    source : ReadAhead or RollingView
    order : sequence of int
        Its axes, in the order that they are to have.

    Attributes
    ----------
    shape, dtype
    read_strides : tuple of int or None
        Strides that the function is to see, if they are not those of what is read.
    """

    def __init__(self, source: ReadAhead | RollingView, order: Sequence[int]) -> None:
        self._source, self._order = source, list(order)
        self.shape = tuple(source.shape[k] for k in order)
        self.dtype = source.dtype
        self.read_strides = None if source.read_strides is None else tuple(source.read_strides[k] for k in order)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a box; slices only."""
        box = [slice(0, n) for n in self._source.shape]
        for axis, part in zip(self._order, key if isinstance(key, tuple) else (key,), strict=False):
            start, stop, _ = part.indices(self._source.shape[axis])
            box[axis] = slice(start, max(start, stop))
        return self._source.read(tuple(box)).transpose(self._order)


def rows_at_once(array: xr.DataArray, dim: Hashable) -> int:
    """How many indices along a dimension are read at once."""
    return max(1, BAND_BYTES // max(1, _row_bytes(array.variable, dim)))


def _row_bytes(variable: xr.Variable, dim: Hashable) -> int:
    return int(variable.nbytes) // max(1, int(variable.sizes[dim]))


def is_dask(array: xr.DataArray) -> bool:
    """Whether the data is lazy and in blocks."""
    return array.chunks is not None


def is_file(array: xr.DataArray) -> bool:
    """Whether the data is in a file, and was not read yet."""
    variable = array.variable
    # xarray has no public way to ask; both names are as old as its lazy arrays.
    return not variable._in_memory and hasattr(variable._data, "get_duck_array")


def source_of(array: xr.DataArray, order: Sequence[int], lead: Sequence[Hashable]) -> Any:
    """The data with its axes in `order`, nothing copied or read; it is mapped along the dimensions `lead`."""
    if isinstance(array.variable._data, RollingView):
        return FileArray(array.variable._data, order)
    if is_file(array):
        return FileArray(ReadAhead(array.variable, lead), order)
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
