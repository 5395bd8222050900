"""Dimensions and coordinates: checks before a call, labels in errors, coordinates of results."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from .._core.call import Call, Naming

#: The error of xarray for objects that do not align; ValueError in versions that have no class for it.
AlignmentError: type[ValueError] = getattr(xr, "AlignmentError", ValueError)

#: Keys of an encoding that are valid for numbers of any shape, dtype and value.
_COMPRESSION = {
    "zlib",
    "complevel",
    "shuffle",
    "fletcher32",
    "compression",
    "compression_opts",
    "compressor",
    "compressors",
}


@dataclass(frozen=True)
class Labels:
    """The labels along the mapped dimensions.

    Attributes
    ----------
    values : tuple of ndarray or None
        The coordinate of each dimension's name; None where there is none.
    starts : tuple of int
        Index of the first element along each dimension, in the whole array.
    noun : str
        The word for one element in errors: "element" or "group".
    """

    dims: tuple[Hashable, ...]
    lengths: tuple[int, ...]
    values: tuple[np.ndarray | None, ...]
    starts: tuple[int, ...]
    noun: str = "element"

    def subset(self, starts: tuple[int, ...], lengths: tuple[int, ...]) -> Labels:
        """The labels of `lengths` elements from index `starts` on."""
        values = tuple(
            None if v is None else v[lo : lo + n] for v, lo, n in zip(self.values, starts, lengths, strict=True)
        )
        return Labels(self.dims, lengths, values, starts, self.noun)

    def along(self, number: int) -> Labels:
        """The labels along one of the dimensions."""
        one = slice(number, number + 1)
        return Labels(self.dims[one], self.lengths[one], self.values[one], self.starts[one], self.noun)

    def name(self, index: tuple[int, ...], stops: tuple[int, ...] | None) -> str:
        """Words by which an error names the element at `index`, or the block from there to `stops`."""
        position = [one + start for one, start in zip(index, self.starts, strict=True)]
        if stops is not None:
            ends = [one + start for one, start in zip(stops, self.starts, strict=True)]
            where = f"in block {', '.join(f'{lo}:{hi}' for lo, hi in zip(position, ends, strict=True))}"
        else:
            where = f"in {self.noun} {position[0] if len(position) == 1 else tuple(position)}"
        dims = f"dimension {self.dims[0]!r}" if len(self.dims) == 1 else f"dimensions {self.dims}"
        known = []
        for dim, one, stop, values in zip(self.dims, index, stops or (None,) * len(index), self.values, strict=True):
            if values is not None:
                until = "" if stop is None else f" to {_text(values[stop - 1])}"
                known.append(f"{dim}={_text(values[one])}{until}")
        return ", ".join([f"{where} along {dims}", *known])


def _text(label: Any) -> str:
    return str(np.datetime_as_string(label, unit="auto")) if isinstance(label, np.datetime64) else str(label)


class LabelNaming(Naming):
    """Names elements in errors by their labels.

    Parameters
    ----------
    labels : callable
        Returns them, and is called only for an error.
    plain : bool
        True if the function gets NumPy arrays.
    variable : hashable, optional
        Name of the variable of a Dataset that is mapped.
    """

    def __init__(self, labels: Callable[[], Labels], plain: bool = False, variable: Hashable = None) -> None:
        self._labels = labels
        self._plain = plain
        self.variable = variable

    def name(self, call: Call, index: int, stop: int | None = None) -> str:
        """Name an element, or the block ``index:stop``."""
        labels = self._labels()
        if labels.lengths != call.grid:  # a call on made-up elements, which tries the function
            return super().name(call, index, stop)
        if call.vectorized and stop is not None:
            box = ((index, stop),) if call.block_grid is None else call.block_grid.box(index, stop)
            return labels.name(tuple(lo for lo, _ in box), tuple(hi for _, hi in box))
        place = self.public_index(call, index)
        return labels.name(place if isinstance(place, tuple) else (place,), None)

    def public_indices(self, call: Call, indices: np.ndarray) -> list[Any]:
        """Many flat indices in the whole array, of which Dask's blocks are parts."""
        labels = self._labels()
        if labels.lengths != call.grid:
            return super().public_indices(call, indices)
        places = [at + start for at, start in zip(call.places(indices), labels.starts, strict=True)]
        return places[0].tolist() if len(places) == 1 else list(zip(*(one.tolist() for one in places), strict=True))

    def labels(self, call: Call, indices: np.ndarray) -> dict[Hashable, np.ndarray]:
        """The labels of some elements along each mapped dimension that has labels."""
        labels = self._labels()
        if labels.lengths != call.grid:
            return {}
        places = call.places(indices)
        pairs = zip(labels.dims, labels.values, places, strict=True)
        return {dim: values[at] for dim, values, at in pairs if values is not None}

    def mapped(self, call: Call) -> str:
        """What is mapped over, in words; empty if the function gets labelled arrays."""
        if not self._plain:
            return ""
        dims = self._labels().dims
        if call.vectorized:
            return f"blocks are cut along {listed(dims)}"
        return f"{listed(dims)} {'are' if len(dims) > 1 else 'is'} what is mapped over"

    def along(self, number: int) -> LabelNaming:
        """The naming of a call along one of the dimensions."""
        return LabelNaming(lambda: self._labels().along(number), self._plain, self.variable)

    def option(self, values: Sequence[Any]) -> dict[Hashable, Any]:
        """An option with one value for each of several dimensions, as the user may write it."""
        return dict(zip(self._labels().dims, values, strict=True))


class MappedArrays:
    """The arrays that are mapped together; raise an error if coordinates differ, or the first lacks a mapped dimension.

    Others that lack mapped dimensions are broadcast along them. Results take dimensions,
    coordinates and attributes from the first array.
    """

    def __init__(self, arrays: Sequence[xr.DataArray], dims: tuple[Hashable, ...]) -> None:
        first, *others = arrays
        check_has_dims(first, dims)
        for one in arrays:
            _check_lengths_known(one, dims)
        self.arrays = (first, *(broadcast(one, first, dims, number) for number, one in enumerate(others)))
        self.dims = dims
        if len(arrays) > 1:
            _check_aligned([_template(one, dims) for one in self.arrays])

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of the mapped dimensions."""
        return tuple(self.arrays[0].sizes[dim] for dim in self.dims)

    @property
    def slice_dims(self) -> tuple[Hashable, ...]:
        """Dimensions of a slice of the first array: those that are not mapped."""
        return tuple(dim for dim in self.arrays[0].dims if dim not in self.dims)

    @property
    def slice_shape(self) -> tuple[int, ...]:
        """Shape of a slice of the first array."""
        return tuple(self.arrays[0].sizes[dim] for dim in self.slice_dims)

    def labels(self) -> Labels:
        """The labels along the mapped dimensions."""
        values = []
        for dim in self.dims:
            owners = [one for one in self.arrays if dim in one.coords and one.coords[dim].dims == (dim,)]
            values.append(owners[0].coords[dim].to_numpy() if owners else None)
        return Labels(self.dims, self.lengths, tuple(values), (0,) * len(self.dims))

    def ordered(self, dims: Sequence[Hashable]) -> list[Hashable]:
        """Dimensions of a result in their final order: those of the first array in its order, then new ones."""
        known = [dim for dim in self.arrays[0].dims if dim in dims]
        return known + [dim for dim in dims if dim not in known]

    def wrap(self, data: Any, dims: Sequence[Hashable], keep_attrs: Any) -> xr.DataArray:
        """Make a DataArray of a result, with the coordinates that still fit; `dims` are the axes of `data`."""
        first = self.arrays[0]
        order = self.ordered(dims)
        if order != list(dims):
            data = data.transpose([list(dims).index(dim) for dim in order])
        changed = {dim for dim, n in zip(order, data.shape, strict=True) if dim in first.dims and first.sizes[dim] != n}
        if len(self.arrays) == 1 and keep_attrs is True:
            coords = coords_within(first, [dim for dim in order if dim not in changed])
            result = xr.DataArray(data, coords, order, attrs=first.attrs)
        else:
            # xarray merges the coordinates. It gets templates, so that it copies no data.
            templates = [_template(first, first.dims), *(_template(one, self.dims) for one in self.arrays[1:])]
            # A coordinate with the name of a dimension that it does not have, as that of ``cube.isel(x=0)``.
            templates = [one.drop_vars(set(order).intersection(one.coords) - set(one.dims)) for one in templates]
            result = xr.apply_ufunc(
                lambda *_: data,
                *templates,
                input_core_dims=[one.dims for one in templates],
                output_core_dims=[order],
                exclude_dims=changed,
                join="exact",
                keep_attrs=keep_attrs,
            )
        result.name = first.name  # not the name of a Dask array
        result.encoding = _portable_encoding(first.encoding, result.dtype)
        return result


def check_has_dims(array: Any, dims: tuple[Hashable, ...], other: int = -1) -> None:
    """Raise an error if `array` lacks one of `dims`; `other` is its number among the other arrays, -1 for the first."""
    name = "the array" if other < 0 else f"other {other}"
    if not isinstance(array, xr.DataArray):
        variable = ", or one of its variables, x['name']" if isinstance(array, xr.Dataset) else ""
        raise TypeError(
            f"{name} is a {type(array).__name__}, not a DataArray; arrays that are mapped over need "
            f"dimensions: pass a DataArray{variable}. Pass what all calls get whole in args=(...,)"
        )
    for dim in dims:
        if dim not in array.dims:
            hint = "" if other < 0 else "; pass what all calls get whole in args=(...,)"
            raise ValueError(f"{name} has no dimension {dim!r}; it has {listed(array.dims)}{hint}")


def _check_lengths_known(array: Any, dims: tuple[Hashable, ...]) -> None:
    """Raise a ValueError for chunks of Dask along mapped dimensions whose lengths only the data tells."""
    if getattr(array, "chunks", None) is None:
        return
    for dim in dims:
        if (length := array.sizes.get(dim)) != length:
            raise ValueError(
                f"the length of {dim!r} is not known, as Dask's chunks have none after a selection by values; call "
                "array.data.compute_chunk_sizes() first, or map over array.load()"
            )


def listed(names: Any) -> str:
    """Names as the text of a message: ``'time', 'lat'``, or ``none``."""
    return ", ".join(map(repr, names)) or "none"


def checked_dims(dim: Any, name: str = "dim") -> tuple[Hashable, ...]:
    """`dim`, or the argument of that name, as a tuple of names; raise an error if it has none, or one twice."""
    dims = tuple(dim) if isinstance(dim, tuple | list) else (dim,)
    if not dims:
        raise ValueError(f"{name} must name at least one dimension, got none")
    for one in dims:
        if not isinstance(one, Hashable):
            raise TypeError(f"{name} must be a name or a tuple of names, got {type(one).__name__}")
    if len(set(dims)) < len(dims):
        raise ValueError(f"{name} names one dimension twice: {dims}")
    return dims


def _template(array: xr.DataArray, dims: tuple[Hashable, ...]) -> xr.DataArray:
    """The coordinates of `array` along some dimensions, over data that takes no memory."""
    data = np.broadcast_to(np.zeros(()), [array.sizes[dim] for dim in dims])
    return xr.DataArray(data, coords=coords_within(array, dims), dims=dims, name=array.name, attrs=array.attrs)


def coords_within(array: xr.DataArray | xr.Dataset, dims: Iterable[Hashable], exclude: Any = ()) -> xr.Coordinates:
    """Coordinates that have no dimensions but `dims`, with their indexes, except those named in `exclude`.

    A coordinate with the name of a new dimension is left out: no file can hold both.
    """
    taken = {*exclude, *(dim for dim in dims if dim not in array.dims)}
    names = [name for name, one in array.coords.items() if set(one.dims) <= set(dims) and name not in taken]
    if len(names) == len(array.coords):
        return array.coords
    indexes = {
        name: index
        for name, index in array.xindexes.items()
        if all(one in names for one in array.xindexes.get_all_coords(name))
    }
    return xr.Coordinates({name: array.coords[name].variable for name in names}, indexes)


def broadcast(other: Any, first: xr.DataArray, dims: tuple[Hashable, ...], number: int) -> xr.DataArray:
    """An array that is mapped in step with the first, as a view with all mapped dimensions.

    Raise an error if it lacks some, and differs from the first in what else it has: one that is named otherwise by
    mistake would go to every call as a whole.
    """
    if not isinstance(other, xr.DataArray):
        check_has_dims(other, dims, number)
    missing = [dim for dim in first.dims if dim in dims and dim not in other.dims]
    if not missing:
        return other  # type: ignore[no-any-return]
    shared = tuple(dim for dim in other.dims if dim in first.dims)
    if len(shared) < len(other.dims):
        check_has_dims(other, dims, number)
    _check_aligned([_template(first, shared), _template(other, shared)], number)
    # A scalar coordinate, as of ``cube.isel(time=0)``: the array's own labels count, as in arithmetic of xarray.
    other = other.drop_vars([dim for dim in missing if dim in other.coords])
    if other.chunks is None:
        # Dask would cut a large view anywhere. Its tasks are small: one holds the array.
        other = other.compute() if first.chunks is None else other.compute().chunk()
    for dim in missing:
        other = other.expand_dims({dim: first.sizes[dim]}, min(first.get_axis_num(dim), other.ndim))
    return other  # type: ignore[no-any-return]


def _check_aligned(templates: list[xr.DataArray], first_number: int = 0) -> None:
    """Raise an AlignmentError that names the first difference, if coordinates of others differ from the first's.

    The others are those from `first_number` on.
    """
    first = templates[0]
    for number, other in enumerate(templates[1:], first_number):
        for dim in first.dims:
            if other.sizes[dim] != first.sizes[dim]:
                raise AlignmentError(
                    f"other {number} has length {other.sizes[dim]} along {dim!r}, the array {first.sizes[dim]}; "
                    "arrays mapped together must align: select or xr.align(..., join='inner') first"
                )
            both = dim in first.indexes and dim in other.indexes
            if both and not first.indexes[dim].equals(other.indexes[dim]):
                expected, index = first.indexes[dim], other.indexes[dim]
                at = next((k for k, pair in enumerate(zip(expected, index, strict=True)) if pair[0] != pair[1]), 0)
                raise AlignmentError(
                    f"the coordinate {dim!r} of other {number} differs from the array's, first at {at}: "
                    f"{_text(index[at])} against {_text(expected[at])}; "
                    "arrays mapped together must align: select, reindex or xr.align(..., join='inner') first"
                )
    try:  # for custom indexes, which are not pandas indexes
        xr.align(*templates, join="exact", copy=False)
    except ValueError as error:
        raise AlignmentError(
            f"the coordinates of others differ from the array's along {listed(first.dims)}: {error}"
        ) from error


def _portable_encoding(encoding: Mapping[Any, Any], dtype: np.dtype[Any]) -> dict[Any, Any]:
    """The part of an encoding that any values may have: scale_factor, dtype, _FillValue or units may not fit them."""
    # Strings cannot be compressed in netCDF files: HDF5 says "not suitable for filters".
    kept = {"grid_mapping"} | (_COMPRESSION if dtype.kind in "?biufcmM" else set())
    return {name: value for name, value in encoding.items() if name in kept}
