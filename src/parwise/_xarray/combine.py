"""Labelled results of all elements, combined as `xarray.concat` would."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from .labels import coords_within
from .slices import BareResult, element_indexers
from .variables import labelled, same_variable, variable_of


def combine(
    boxes: np.ndarray, array: xr.DataArray, dims: tuple[Hashable, ...], keep_attrs: Any, objects: bool = False
) -> xr.DataArray:
    """Combine the results of all elements (None is a gap); raise a ValueError if dimensions or coordinates differ.

    Each axis of `boxes` is one of the mapped dimensions `dims`. In the result, dimensions that `array` has are in its
    order, and new ones follow. If `objects` is True, their data is to be objects, which `xarray.concat` leaves alone:
    of 3 and 2.5 it would make two floats.
    """
    values = [None if box is None else box.value for box in boxes.ravel().tolist()]
    gaps = [number for number, one in enumerate(values) if one is None]
    if objects:
        values = [None if one is None else _of_objects(one) for one in values]
    result = _stack(values, boxes.shape, array, dims, keep_attrs)
    if result is None:
        result = _concat_all(values, boxes.shape, array, dims, keep_attrs)
    if gaps and result.dtype == object:
        filled = result.copy()
        for number in gaps:
            filled[element_indexers(number, boxes.shape, dims)] = None
        # As xarray takes objects wherever it takes data: with pandas 3 it makes NaN of None among text.
        result = result.copy(data=filled.to_numpy())
    order = [dim for dim in array.dims if dim in result.dims]
    order += [dim for dim in result.dims if dim not in order]
    return result.transpose(*order, transpose_coords=False)


def _of_objects(result: Any) -> Any:
    """A result with its data as objects."""
    if isinstance(result, BareResult):
        return result._replace(data=result.data.astype(object))
    return labelled(
        variable_of(result.dims, result.to_numpy().astype(object), result.attrs), result.coords, result.name
    )


def _stack(
    values: list[Any], shape: tuple[int, ...], array: xr.DataArray, dims: tuple[Hashable, ...], keep_attrs: Any
) -> xr.DataArray | None:
    """All results stacked at once; None unless they are alike and have coordinates of the array only."""
    first = values[0]
    if not all(isinstance(one, BareResult) for one in values) or keep_attrs not in (True, False, "override", "drop"):
        return None
    form = first.form
    if any(one.form != form for one in values) or set(dims) & set(first.dims) or first.data.dtype.hasobject:
        return None
    attrs = first.attrs if keep_attrs in (True, "override") else None
    variables = {}
    for name in first.coord_names:
        variable = _stack_coord(array, name, dims)
        if variable is None:
            return None
        if variable.attrs and attrs is None:  # `xarray.concat` drops those of some coordinates, too
            return None
        variables[name] = variable
    indexes = {name: index for name, index in array.xindexes.items() if name in variables}
    if any(one not in variables for name in indexes for one in array.xindexes.get_all_coords(name)):
        return None
    data = np.stack([one.data for one in values])
    data = data.reshape(*shape, *data.shape[1:])
    coords = xr.Coordinates(variables, indexes)
    variable = variable_of((*dims, *first.dims), data, attrs, first.encoding)
    return labelled(variable, coords, first.name)


def _stack_coord(array: xr.DataArray, name: Hashable, dims: tuple[Hashable, ...]) -> xr.Variable | None:
    """The variable that `xarray.concat` makes of the slices of a coordinate; None if this function cannot tell."""
    variable: xr.Variable = array.coords[name].variable
    mapped = [dim for dim in dims if dim in variable.dims]
    if name in array.xindexes or not mapped:
        return variable
    rest = [dim for dim in variable.dims if dim not in mapped]
    if name in dims or (len(mapped) > 1 and rest):
        return None
    variable = variable.compute().transpose(*mapped, *rest)
    for dim in reversed(mapped):  # `xarray.concat` keeps one slice along dimensions where all are equal
        one = variable.isel({dim: slice(0, 1)})
        if variable.equals(one.isel({dim: np.zeros(variable.sizes[dim], int)})):
            variable = variable.isel({dim: 0})
    return variable


def _concat_all(
    values: list[Any], shape: tuple[int, ...], array: xr.DataArray, dims: tuple[Hashable, ...], keep_attrs: Any
) -> xr.DataArray:
    """All results concatenated along one mapped dimension after another, the last one first."""
    multi_indexes = _kept_multi_indexes(values, shape, array, dims)
    for number, one in enumerate(values):
        if isinstance(one, BareResult):
            values[number] = one.to_dataarray(array.isel(element_indexers(number, shape, dims)))
    _check_alike(values, shape, dims)
    first = next(one for one in values if one is not None)
    for number, one in enumerate(values):
        if one is None:
            values[number] = _gap(first, array, element_indexers(number, shape, dims))
    for dim, length in zip(reversed(dims), reversed(shape), strict=True):
        values = [_concat(values[start : start + length], dim, keep_attrs) for start in range(0, len(values), length)]
    result: xr.DataArray = values[0]
    for dim, levels in multi_indexes.items():
        coords = coords_within(array, [dim], [name for name in array.coords if name not in levels])
        result = result.drop_vars(levels).assign_coords(coords)
    return result


def _kept_multi_indexes(
    values: list[Any], shape: tuple[int, ...], array: xr.DataArray, dims: tuple[Hashable, ...]
) -> dict[Hashable, list[Hashable]]:
    """The multi-indexes that all results have as the array does: their coordinates, by mapped dimension.

    `xarray.concat` turns their labels into tuples.
    """
    found = {dim: list(array.xindexes.get_all_coords(dim)) for dim in dims if dim in array.xindexes}
    found = {dim: names for dim, names in found.items() if len(names) > 1}
    for number, one in enumerate(values if found else []):
        if isinstance(one, BareResult):
            found = {dim: names for dim, names in found.items() if set(names) <= set(one.coord_names)}
        elif one is not None:
            mine, own = one.coords.variables, array.isel(element_indexers(number, shape, dims)).coords.variables
            found = {
                dim: names
                for dim, names in found.items()
                if all(name in mine and same_variable(mine[name], own[name]) for name in names)
            }
    return found


def _gap(like: xr.DataArray, array: xr.DataArray, indexers: dict[Hashable, int]) -> xr.DataArray:
    """A result of NaN for a gap, with the shape of `like` and the coordinates of its own element."""
    own = array.coords.to_dataset().isel(indexers, missing_dims="ignore")
    gap = like.where(False)
    return gap.assign_coords(coords_within(own, own.dims, set(own.coords) - set(gap.coords)))


def _concat(values: list[Any], dim: Hashable, keep_attrs: Any) -> Any:
    """`xarray.concat` of results whose dimensions and indexes agree."""
    attrs = {True: "override", False: "drop"}.get(keep_attrs, keep_attrs)
    try:
        return xr.concat(values, dim, coords="different", compat="equals", join="exact", combine_attrs=attrs)
    except ValueError as error:
        remedy = "return the same dimensions and coordinates for all elements"
        if "combine_attrs" in str(error):
            remedy = f"return the same attributes for all elements, or pass another keep_attrs than {keep_attrs!r}"
        raise ValueError(f"the results of func cannot be combined along {dim!r}: {error}; {remedy}") from error


def _check_alike(values: list[Any], shape: tuple[int, ...], mapped_dims: tuple[Hashable, ...]) -> None:
    """Raise a ValueError for results whose differences `xarray.concat` would hide by broadcasting or filling."""
    first: tuple[int, Any] | None = None
    for number, one in enumerate(values):
        if one is None:
            continue
        properties = {
            "dimensions": {dim: n for dim, n in one.sizes.items() if dim not in mapped_dims},
            "coordinates": sorted(one.coords, key=str),
        }
        first = first or (number, properties)
        for name, expected in first[1].items():
            if expected != properties[name]:
                first_index, index = (_index(k, shape) for k in (first[0], number))
                raise ValueError(
                    f"results differ in {name}: {expected} of element {first_index}, {properties[name]} of "
                    f"element {index}; with as_xarray=True all results must have the same dimensions and "
                    "coordinates"
                )


def _index(number: int, shape: tuple[int, ...]) -> Any:
    """Index of an element, an int for one mapped dimension."""
    index = tuple(map(int, np.unravel_index(number, shape)))
    return index[0] if len(index) == 1 else index
