"""Results of groups as they are told: dimensions, shapes and dtypes, for lazy results and for gaps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from .._core.outputs.gaps import gap_value
from .labels import MappedArrays, listed
from .request import Request, as_told, check_dims, core_dims_per_output, dtypes_per_output, with_dtype
from .variables import ItsOwn, variable_of


@dataclass(frozen=True)
class VariableSpec:
    """Name (`ItsOwn` for a DataArray), dimensions, shape and dtype of one variable of a result."""

    name: Hashable
    dims: list[Hashable]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def variable_specs(group: Any, request: Request) -> list[VariableSpec]:
    """The variables that the result of a group has, by the request."""
    if not isinstance(group, xr.Dataset):
        (dtype,), (core_dims,) = dtypes_per_output(request, 1), core_dims_per_output(request, 1)
        return [_variable_spec(ItsOwn, group, core_dims, dtype, request)]
    dtypes, dims = request.output_dtypes, request.output_core_dims
    if not isinstance(dtypes, Mapping):
        (dtype,) = dtypes_per_output(request, 1)
        dtypes = dict.fromkeys(group.data_vars, dtype)
    if not isinstance(dims, Mapping):
        (core_dims,) = core_dims_per_output(request, 1)
        dims = {} if core_dims is None else dict.fromkeys(dtypes, core_dims)
    if unknown := [name for name in dims if name not in dtypes]:
        raise ValueError(f"output_core_dims names variable(s) {listed(unknown)}, which output_dtypes does not")
    return [_variable_spec(name, group, dims.get(name), np.dtype(dtype), request) for name, dtype in dtypes.items()]


def _variable_spec(name: Hashable, group: Any, dims: Any, dtype: Any, request: Request) -> VariableSpec:
    """One variable; if `dims` is None, with the dimensions that it has in the group."""
    if dims is None:
        if isinstance(group, xr.Dataset) and name not in group.data_vars:
            raise ValueError(f"the dimensions of the new variable {name!r} are not known; pass output_core_dims")
        dims = group.dims if name is ItsOwn else group[name].dims
    sizes = {**group.sizes, **(request.output_sizes or {})}
    if missing := [dim for dim in dims if dim not in sizes]:
        raise ValueError(f"the length of dimension(s) {listed(missing)} is not known; pass output_sizes={{...}}")
    return VariableSpec(name, list(dims), tuple(int(sizes[dim]) for dim in dims), np.dtype(dtype))


def label_result(group: Any, specs: list[VariableSpec], arrays: dict[Hashable, Any]) -> Any:
    """A result with the coordinates of its group that still fit."""
    if not isinstance(group, xr.Dataset):
        (spec,) = specs
        return MappedArrays([group], ()).wrap(arrays[ItsOwn], spec.dims, keep_attrs=True)
    variables = {}
    for one in specs:
        like = group[one.name] if one.name in group.data_vars else xr.DataArray(0, name=one.name)
        variables[one.name] = variable_of(one.dims, arrays[one.name], like.attrs)
    sizes = dict(zip((d for one in specs for d in one.dims), (n for one in specs for n in one.shape), strict=True))
    new = set(sizes).difference(group.dims)  # a coordinate of that name would not fit
    fitting = [
        name
        for name, one in group.coords.items()
        if name not in new and all(sizes.get(d) == n for d, n in one.sizes.items())
    ]
    result = xr.Dataset(variables, group.drop_vars([name for name in group.coords if name not in fitting]).coords)
    result.attrs = dict(group.attrs)
    return result


def as_told_result(result: Any, request: Request) -> Any:
    """The result of a group with the dtypes that it was told to have; raise an error if it differs in more."""
    dtypes, dims = request.output_dtypes, request.output_core_dims
    if not isinstance(result, xr.Dataset):
        if isinstance(dtypes, Mapping):
            raise TypeError(
                f"func was to return a Dataset with variables {listed(dtypes)}, but it returned {type(result).__name__}"
            )
        (dtype,), (core_dims,) = dtypes_per_output(request, 1), core_dims_per_output(request, 1)
        if isinstance(result, np.ndarray) and dtype is not None:
            return as_told(result, dtype)
        return _as_told_array(result, request, core_dims, dtype) if isinstance(result, xr.DataArray) else result
    if not isinstance(dtypes, Mapping):
        dtypes = dict.fromkeys(result.data_vars, *dtypes_per_output(request, 1))
    if not isinstance(dims, Mapping):
        dims = dict.fromkeys(dtypes, *core_dims_per_output(request, 1))
    if missing := [name for name in {**dtypes, **dims} if name not in result.data_vars]:
        raise TypeError(
            f"func was to return a Dataset with variables {listed(missing)}, but it returned one with "
            f"{listed(result.data_vars)}"
        )
    told = {}
    for name, one in result.data_vars.items():
        dtype = dtypes.get(name)
        told[name] = _as_told_array(one, request, dims.get(name), None if dtype is None else np.dtype(dtype)).variable
    return result.assign(told)


def _as_told_array(array: xr.DataArray, request: Request, core_dims: Any, dtype: Any) -> xr.DataArray:
    check_dims(request, array.sizes, core_dims)
    return array if dtype is None else with_dtype(array, dtype)


def check_gap_values(request: Request) -> None:
    """Raise a ValueError if one of `output_dtypes` has no value for a gap."""
    dtypes = request.output_dtypes
    for one in dtypes.values() if isinstance(dtypes, Mapping) else dtypes_per_output(request, 1):
        if one is not None:
            _check_gap_value(np.dtype(one))


def _check_gap_value(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "fcmMO":
        raise ValueError(
            f"dtype {dtype} has no value for a gap, as errors='ignore' needs one; "
            "pass output_dtypes of floats, or errors='raise'"
        )


def gap_data(spec: VariableSpec) -> np.ndarray:
    """An array of gaps; raise a ValueError if the dtype has no value for one."""
    _check_gap_value(spec.dtype)
    return np.full(spec.shape, gap_value(spec.dtype)[1], spec.dtype)


def gap_result(group: Any, request: Request) -> Any:
    """A result of NaN as it was told, for a call in which no group has a result."""
    specs = variable_specs(group, request)
    return label_result(group, specs, {one.name: gap_data(one) for one in specs})
