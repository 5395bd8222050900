"""Labelled results of all elements put together, as `xarray.concat` of the loop's does."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from .labels import coords_within
from .slices import BareResult


def combined(boxes: np.ndarray, array: xr.DataArray, dims: tuple[Hashable, ...], keep_attrs: Any) -> xr.DataArray:
    """Put the results of all elements together.

    Parameters
    ----------
    boxes : ndarray of Boxed or None
        None stands for a gap.
    array : DataArray
        What was mapped over.
    dims : tuple of hashable
        The mapped dimensions, one per axis of `boxes`.
    keep_attrs : bool or str
    """
    values = [None if box is None else box.value for box in boxes.ravel().tolist()]
    whole = _stacked(values, boxes.shape, array, dims, keep_attrs)
    if whole is None:
        whole = _concatenated(values, boxes.shape, array, dims, keep_attrs)
    order = [dim for dim in array.dims if dim in whole.dims]
    order += [dim for dim in whole.dims if dim not in order]
    return whole.transpose(*order, transpose_coords=False)


def _stacked(
    values: list[Any], shape: tuple[int, ...], array: xr.DataArray, dims: tuple[Hashable, ...], keep_attrs: Any
) -> xr.DataArray | None:
    """The whole at once, where results are alike and their coordinates those of their slices."""
    first = values[0]
    if not all(isinstance(one, BareResult) for one in values) or keep_attrs not in (True, False, "override", "drop"):
        return None
    look = first.look
    if any(one.look != look for one in values) or set(dims) & set(first.dims) or first.data.dtype.hasobject:
        return None
    variables = {}
    for name in first.names:
        variable = _whole_coordinate(array, name, dims)
        if variable is None:
            return None
        variables[name] = variable
    indexes = {name: index for name, index in array.xindexes.items() if name in variables}
    if any(one not in variables for name in indexes for one in array.xindexes.get_all_coords(name)):
        return None
    data = np.stack([one.data for one in values])
    data = data.reshape(*shape, *data.shape[1:])
    attrs = first.attrs if keep_attrs in (True, "override") else None
    coords = xr.Coordinates(variables, indexes)
    whole = xr.DataArray(data, coords, (*dims, *first.dims), name=first.name, attrs=attrs)
    whole.encoding = dict(first.encoding)
    return whole


def _whole_coordinate(array: xr.DataArray, name: Hashable, dims: tuple[Hashable, ...]) -> xr.Variable | None:
    """What the slices of a coordinate are put together to: one slice, along dimensions where all are equal."""
    variable: xr.Variable = array.coords[name].variable
    lead = [dim for dim in dims if dim in variable.dims]
    if name in array.xindexes or not lead:
        return variable
    rest = [dim for dim in variable.dims if dim not in lead]
    if name in dims or (len(lead) > 1 and rest):
        return None
    variable = variable.compute().transpose(*lead, *rest)
    for dim in reversed(lead):
        one = variable.isel({dim: slice(0, 1)})
        if variable.equals(one.isel({dim: np.zeros(variable.sizes[dim], int)})):
            variable = variable.isel({dim: 0})
    return variable


def _concatenated(
    values: list[Any], shape: tuple[int, ...], array: xr.DataArray, dims: tuple[Hashable, ...], keep_attrs: Any
) -> xr.DataArray:
    """One result after another, as the loop does it."""
    for at, one in enumerate(values):
        if isinstance(one, BareResult):
            where = dict(zip(dims, map(int, np.unravel_index(at, shape)), strict=True))
            values[at] = one.opened(array.isel(where))
    _check_alike(values, shape, dims)
    first = next(one for one in values if one is not None)
    for at, one in enumerate(values):
        if one is None:
            where = dict(zip(dims, map(int, np.unravel_index(at, shape)), strict=True))
            values[at] = _gap(first, array, where)
    for dim, length in zip(reversed(dims), reversed(shape), strict=True):
        values = [_concat(values[at : at + length], dim, keep_attrs) for at in range(0, len(values), length)]
    whole: xr.DataArray = values[0]
    for dim in dims:  # labels of several levels have come back as tuples
        levels = list(array.xindexes.get_all_coords(dim)) if dim in array.xindexes else []
        if len(levels) > 1 and all(name in whole.coords for name in levels):
            own = coords_within(array, [dim], [name for name in array.coords if name not in levels])
            whole = whole.drop_vars(levels).assign_coords(own)
    return whole


def _gap(like: xr.DataArray, array: xr.DataArray, where: dict[Hashable, int]) -> xr.DataArray:
    """NaN in place of a result, with the labels of its element."""
    own = array.coords.to_dataset().isel(where, missing_dims="ignore").coords
    gap = like.where(False)
    return gap.assign_coords({name: own[name] for name in gap.coords if name in own})


def _concat(values: list[Any], dim: Hashable, keep_attrs: Any) -> Any:
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
