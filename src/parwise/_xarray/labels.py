"""Dimensions and coordinates: checked before a call, named in errors, put back on results."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from .._core.call import Call, Naming

#: What xarray raises for objects that do not align; a ValueError, and older than its own name.
AlignmentError: type[ValueError] = getattr(xr, "AlignmentError", ValueError)

#: Of an encoding, what holds whatever the shape, dtype and values.
_FREE_ENCODING = {
    "zlib",
    "complevel",
    "shuffle",
    "fletcher32",
    "compression",
    "compression_opts",
    "compressor",
    "compressors",
    "grid_mapping",
}


@dataclass(frozen=True)
class Labels:
    """The labels along the mapped dimensions.

    Attributes
    ----------
    dims : tuple of hashable
    lengths : tuple of int
    values : tuple of ndarray or None
        Of each dimension that has a coordinate of its name.
    starts : tuple of int
        Where a part of the whole begins.
    what : str
        What one element is to the user.
    """

    dims: tuple[Hashable, ...]
    lengths: tuple[int, ...]
    values: tuple[np.ndarray | None, ...]
    starts: tuple[int, ...]
    what: str = "element"

    def part(self, starts: tuple[int, ...], lengths: tuple[int, ...]) -> Labels:
        """The labels of a box of elements."""
        cut = tuple(
            None if v is None else v[lo : lo + n] for v, lo, n in zip(self.values, starts, lengths, strict=True)
        )
        return Labels(self.dims, lengths, cut, starts, self.what)

    def name(self, index: tuple[int, ...], stop: int | None) -> str:
        """How an error names the element at `index`, or the block up to `stop`."""
        whole = [one + start for one, start in zip(index, self.starts, strict=True)]
        if stop is not None:
            where = f"in block {whole[0]}:{stop + self.starts[0]}"
        else:
            where = f"in {self.what} {whole[0] if len(whole) == 1 else tuple(whole)}"
        dims = f"dimension {self.dims[0]!r}" if len(self.dims) == 1 else f"dimensions {self.dims}"
        known = []
        for dim, one, values in zip(self.dims, index, self.values, strict=True):
            if values is not None:
                until = "" if stop is None else f" to {_text(values[stop - 1])}"
                known.append(f"{dim}={_text(values[one])}{until}")
        return ", ".join([f"{where} along {dims}", *known])


def _text(label: Any) -> str:
    return str(np.datetime_as_string(label, unit="auto")) if isinstance(label, np.datetime64) else str(label)


class LabelNaming(Naming):
    """How errors name elements that have labels.

    Parameters
    ----------
    labels : callable
        Returns the labels.
    """

    def __init__(self, labels: Callable[[], Labels]) -> None:
        self._labels = labels

    def name(self, call: Call, index: int, stop: int | None = None) -> str:
        """Name an element, or the block ``index:stop``."""
        labels = self._labels()
        if labels.lengths != call.grid:  # made up, to try the function
            return super().name(call, index, stop)
        place = self.public_index(call, index)
        return labels.name(place if isinstance(place, tuple) else (place,), stop if call.vectorized else None)


class MappedArrays:
    """Arrays that are mapped together, as far as labels go.

    Parameters
    ----------
    arrays : sequence of DataArray
        The first one gives results their dimensions and coordinates.
    dims : tuple of hashable
        The mapped dimensions.

    Raises
    ------
    TypeError, ValueError
        If one lacks a dimension, or their coordinates differ along one.
    """

    def __init__(self, arrays: Sequence[xr.DataArray], dims: tuple[Hashable, ...]) -> None:
        for number, one in enumerate(arrays):
            check_has(one, dims, number - 1)
        self.arrays = tuple(arrays)
        self.dims = dims
        if len(arrays) > 1:
            _check_aligned([_stub(one, dims) for one in self.arrays])

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of the mapped dimensions."""
        return tuple(self.arrays[0].sizes[dim] for dim in self.dims)

    @property
    def slice_dims(self) -> tuple[Hashable, ...]:
        """The first array's dimensions that are not mapped."""
        return tuple(dim for dim in self.arrays[0].dims if dim not in self.dims)

    @property
    def slice_shape(self) -> tuple[int, ...]:
        """Their lengths."""
        return tuple(self.arrays[0].sizes[dim] for dim in self.slice_dims)

    def labels(self) -> Labels:
        """The labels along the mapped dimensions."""
        values = []
        for dim in self.dims:
            owners = [one for one in self.arrays if dim in one.coords and one.coords[dim].dims == (dim,)]
            values.append(owners[0].coords[dim].to_numpy() if owners else None)
        return Labels(self.dims, self.lengths, tuple(values), (0,) * len(self.dims))

    def in_order(self, dims: Sequence[Hashable]) -> list[Hashable]:
        """Dimensions of a result as it is to have them: first those of the array, in its order."""
        known = [dim for dim in self.arrays[0].dims if dim in dims]
        return known + [dim for dim in dims if dim not in known]

    def wrap(self, data: Any, dims: Sequence[Hashable], keep_attrs: Any) -> xr.DataArray:
        """Put dimensions and whatever coordinates still fit on a result."""
        first = self.arrays[0]
        order = self.in_order(dims)
        if order != list(dims):
            data = data.transpose([list(dims).index(dim) for dim in order])
        changed = {dim for dim, n in zip(order, data.shape, strict=True) if dim in first.dims and first.sizes[dim] != n}
        if len(self.arrays) == 1 and keep_attrs is True:
            coords = coords_within(first, [dim for dim in order if dim not in changed])
            result = xr.DataArray(data, coords, order, attrs=first.attrs)
        else:
            # xarray knows how to merge coordinates; it is given no data to touch.
            stubs = [_stub(first, first.dims), *(_stub(one, self.dims) for one in self.arrays[1:])]
            result = xr.apply_ufunc(
                lambda *_: data,
                *stubs,
                input_core_dims=[one.dims for one in stubs],
                output_core_dims=[order],
                exclude_dims=changed,
                join="exact",
                keep_attrs=keep_attrs,
            )
        result.name = first.name  # and not that of an array of Dask's
        result.encoding = _encoding(first, result)
        return result


def check_has(array: xr.DataArray, dims: tuple[Hashable, ...], other: int = -1) -> None:
    """Whether `array` can be mapped over `dims`; `other` is its number among the others."""
    name = "the array" if other < 0 else f"other {other}"
    if not isinstance(array, xr.DataArray):
        raise TypeError(
            f"{name} is a {type(array).__name__}, not a DataArray; "
            "what is mapped over needs dimensions, and what every call gets whole goes in args"
        )
    for dim in dims:
        if dim not in array.dims:
            hint = "" if other < 0 else "; what every call gets whole goes in args"
            raise ValueError(f"{name} has no dimension {dim!r}; it has {listed(array.dims)}{hint}")


def listed(dims: Any) -> str:
    """Dimensions, for a message."""
    return ", ".join(map(repr, dims)) or "none"


def checked_dims(dim: Any) -> tuple[Hashable, ...]:
    """`dim` as a tuple of different names."""
    dims = tuple(dim) if isinstance(dim, tuple | list) else (dim,)
    if not dims:
        raise ValueError("dim must name at least one dimension, got none")
    for one in dims:
        if not isinstance(one, Hashable):
            raise TypeError(f"dim must be a name or a tuple of names, got {type(one).__name__}")
    if len(set(dims)) < len(dims):
        raise ValueError(f"dim names one dimension twice: {dims}")
    return dims


def _stub(array: xr.DataArray, dims: tuple[Hashable, ...]) -> xr.DataArray:
    """The labels of `array` along some dimensions, over data that takes no memory."""
    data = np.broadcast_to(np.zeros(()), [array.sizes[dim] for dim in dims])
    return xr.DataArray(data, coords=coords_within(array, dims), dims=dims, name=array.name, attrs=array.attrs)


def coords_within(array: xr.DataArray | xr.Dataset, dims: Iterable[Hashable], but: Any = ()) -> xr.Coordinates:
    """Coordinates that have no other dimensions, with their indexes; without those named in `but`."""
    names = [name for name, one in array.coords.items() if set(one.dims) <= set(dims) and name not in but]
    if len(names) == len(array.coords):
        return array.coords
    indexes = {
        name: index
        for name, index in array.xindexes.items()
        if all(one in names for one in array.xindexes.get_all_coords(name))
    }
    return xr.Coordinates({name: array.coords[name].variable for name in names}, indexes)


def _check_aligned(stubs: list[xr.DataArray]) -> None:
    first = stubs[0]
    for number, other in enumerate(stubs[1:]):
        for dim in first.dims:
            if other.sizes[dim] != first.sizes[dim]:
                raise AlignmentError(
                    f"other {number} has length {other.sizes[dim]} along {dim!r}, the array {first.sizes[dim]}; "
                    "arrays mapped together must align: select or xr.align(..., join='inner') first"
                )
            both = dim in first.indexes and dim in other.indexes
            if both and not first.indexes[dim].equals(other.indexes[dim]):
                mine, theirs = first.indexes[dim], other.indexes[dim]
                at = next((k for k, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1]), 0)
                raise AlignmentError(
                    f"the coordinate {dim!r} of other {number} differs from the array's, first at {at}: "
                    f"{_text(theirs[at])} against {_text(mine[at])}; "
                    "arrays mapped together must align: select, reindex or xr.align(..., join='inner') first"
                )
    try:  # indexes that are not pandas'
        xr.align(*stubs, join="exact", copy=False)
    except ValueError as error:
        raise AlignmentError(
            f"the coordinates of others differ from the array's along {listed(first.dims)}: {error}"
        ) from error


def _encoding(first: xr.DataArray, result: xr.DataArray) -> dict[Any, Any]:
    """All of it for a result of that dtype and shape; else what does not depend on these."""
    if (first.dtype, first.dims, first.shape) == (result.dtype, result.dims, result.shape):
        return dict(first.encoding)
    return {name: value for name, value in first.encoding.items() if name in _FREE_ENCODING}
