"""Functions of DataArrays: slices with their coordinates go in, labelled results come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ._results import Results, same_results


class Box:
    """A labelled result, which NumPy takes as one object."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Whether both have the same labels and bits."""
        if not isinstance(other, Box) or type(self.value) is not type(other.value):
            return False
        if not isinstance(self.value, xr.DataArray | xr.Dataset):
            return same_results(Results([[self.value]]), Results([[other.value]]))
        return bool(self.value.identical(other.value)) and _bits(self.value) == _bits(other.value)

    __hash__ = None  # type: ignore[assignment]


def _bits(value: Any) -> list[Any]:
    arrays = value.variables.values() if isinstance(value, xr.Dataset) else [value.variable]
    return [one.to_numpy().tolist() if one.dtype.hasobject else one.to_numpy().tobytes() for one in arrays]


def boxed(result: Any) -> Any:
    """A labelled result, or tuple of such, in boxes."""
    if isinstance(result, tuple):
        make = getattr(type(result), "_make", tuple)
        return make([boxed(one) for one in result])
    if not isinstance(result, xr.DataArray):
        raise TypeError(
            "with as_xarray=True func must return a DataArray, or a tuple of them, "
            f"but it returned {type(result).__name__}"
        )
    return Box(result.compute())


class View:
    """How slices of one DataArray are labelled.

    Parameters
    ----------
    array : DataArray
    """

    def __init__(self, array: xr.DataArray) -> None:
        # Not the data: it travels on its own. Coordinates may lie in files.
        self._coords = array.coords.to_dataset().compute()
        self._dims, self._dtype = array.dims, array.dtype
        self._name, self._attrs, self._encoding = array.name, dict(array.attrs), dict(array.encoding)

    def slice(self, data: Any, where: Mapping[Hashable, Any]) -> xr.DataArray:
        """What ``array.isel(where)`` gives, of which this is the data."""
        dims = [dim for dim in self._dims if isinstance(where.get(dim, slice(None)), slice)]
        if not isinstance(data, np.ndarray):
            # NumPy's scalars are of native byte order; what else there is might be a list.
            scalar = np.empty((), self._dtype)
            scalar[()] = data
            data = scalar
        coords = self._coords.isel(where, missing_dims="ignore").coords
        view = xr.DataArray(data, coords=coords, dims=dims, name=self._name, attrs=self._attrs)
        view.encoding = self._encoding
        return view


class OnViews:
    """A function of labelled slices, as one of plain slices and an index.

    Parameters
    ----------
    func : callable
    views : sequence of View
        One per mapped array.
    dims : tuple of hashable
        The mapped dimensions.
    grid : tuple of int
        Their lengths.
    """

    def __init__(
        self, func: Callable[..., Any], views: Sequence[View], dims: tuple[Hashable, ...], grid: tuple[int, ...]
    ) -> None:
        self.__wrapped__ = func  # has the signature
        self._views = views
        self._dims = dims
        self._grid = grid

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Take slices, their index, and what every call gets."""
        count = len(self._views)
        if isinstance(given[count], np.ndarray):  # a block
            lo, hi = int(given[count].min()), int(given[count].max()) + 1
            where: dict[Hashable, Any] = {self._dims[0]: slice(lo, hi)}
        else:
            index = np.unravel_index(int(given[count]), self._grid)
            where = dict(zip(self._dims, map(int, index), strict=True))
        slices = [view.slice(data, where) for view, data in zip(self._views, given[:count], strict=True)]
        result = boxed(self.__wrapped__(*slices, *given[count + 1 :], **named))
        if not isinstance(given[count], np.ndarray):
            return result
        ndim = given[count].ndim
        if isinstance(result, tuple):
            return tuple(_block(box, ndim) for box in result)
        return _block(result, ndim)


def _block(box: Box, ndim: int) -> np.ndarray:
    """A box as a block of one element."""
    block = np.empty((1,) * ndim, object)
    block.flat[0] = box
    return block


def positions(grid: tuple[int, ...], places: Sequence[int]) -> np.ndarray:
    """The number of each element, with the mapped axes at `places`."""
    shape = [1] * (max(places) + 1)
    for place, length in zip(places, grid, strict=True):
        shape[place] = length
    return np.arange(math.prod(grid)).reshape(grid).transpose(np.argsort(places)).reshape(shape)


def combined(boxes: np.ndarray, array: xr.DataArray, dims: tuple[Hashable, ...], keep_attrs: Any) -> xr.DataArray:
    """Put the results of all elements together, as `xarray.concat` of the loop's does.

    Parameters
    ----------
    boxes : ndarray of Box or None
        None stands for a gap.
    array : DataArray
        What was mapped over.
    dims : tuple of hashable
        The mapped dimensions, one per axis of `boxes`.
    keep_attrs : bool or str
    """
    values: list[Any] = [None if box is None else box.value for box in boxes.ravel().tolist()]
    _check_alike(values, boxes.shape, dims)
    first = next(one for one in values if one is not None)
    for at, one in enumerate(values):
        if one is None:
            where = dict(zip(dims, map(int, np.unravel_index(at, boxes.shape)), strict=True))
            values[at] = _gap(first, array, where)
    for dim, length in zip(reversed(dims), reversed(boxes.shape), strict=True):
        values = [concatenated(values[at : at + length], dim, keep_attrs) for at in range(0, len(values), length)]
    whole: xr.DataArray = values[0]
    order = [dim for dim in array.dims if dim in whole.dims]
    order += [dim for dim in whole.dims if dim not in order]
    return whole.transpose(*order, transpose_coords=False)


def _gap(like: xr.DataArray, array: xr.DataArray, where: dict[Hashable, int]) -> xr.DataArray:
    """NaN in place of a result, with the labels of its element."""
    own = array.coords.to_dataset().isel(where, missing_dims="ignore").coords
    gap = like.where(False)
    return gap.assign_coords({name: own[name] for name in gap.coords if name in own})


def concatenated(values: list[Any], dim: Hashable, keep_attrs: Any = True) -> Any:
    """`xarray.concat` of results that agree in their dimensions and indexes."""
    attrs = {True: "override", False: "drop"}.get(keep_attrs, keep_attrs)
    try:
        return xr.concat(values, dim, coords="different", compat="equals", join="exact", combine_attrs=attrs)
    except ValueError as error:
        raise ValueError(
            f"the results of func cannot be combined along {dim!r}: {error}; "
            "give all of them the same dimensions and coordinates"
        ) from error


def _check_alike(values: list[Any], shape: tuple[int, ...], mapped: tuple[Hashable, ...]) -> None:
    """Whether results agree in what `xarray.concat` would make agree."""
    first: tuple[int, Any] | None = None
    for at, one in enumerate(values):
        if one is None:
            continue
        look = {
            "dimensions": {dim: n for dim, n in one.sizes.items() if dim not in mapped},
            "coordinates": sorted(one.coords, key=str),
        }
        first = first or (at, look)
        for what, mine in first[1].items():
            if mine != look[what]:
                here, there = (_element(k, shape) for k in (first[0], at))
                raise ValueError(
                    f"results differ in {what}: {mine} of element {here}, {look[what]} of element {there}; "
                    "with as_xarray=True all must have the same dimensions and coordinates"
                )


def _element(number: int, shape: tuple[int, ...]) -> Any:
    index = tuple(map(int, np.unravel_index(number, shape)))
    return index[0] if len(index) == 1 else index
