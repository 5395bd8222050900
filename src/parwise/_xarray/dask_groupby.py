"""Maps over groups of Dask arrays: one Dask task for each group."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from .._core.random import make_random_streams
from .dask import check_options
from .dask_task import serial_options
from .labels import Labels, MappedArrays, listed
from .request import Request, core_dims_per_output, dtypes_per_output, run
from .slices import Boxed


@dataclass(frozen=True)
class _VariableSpec:
    """Name (None for a DataArray), dimensions, shape and dtype of one variable of a result."""

    name: Hashable
    dims: list[Hashable]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def lazy_results(groups: list[Any], labels: Labels, request: Request) -> list[Any]:
    """Results of all groups, as DataArrays or Datasets of Dask arrays."""
    check_options(request)
    if request.output_dtypes is None:
        raise ValueError(
            "the data is in Dask's blocks, and results are not known before they are computed; pass output_dtypes=... "
            "(a dict, if func gives a Dataset of other variables; and output_core_dims, if not the same dimensions), "
            "or load() it first"
        )
    streams = (
        None if request.rng is None else make_random_streams(request.rng, request.func, dict(request.kwargs or {}))
    )
    serial = replace(request, rng=None, options=serial_options(request))
    results = []
    for number, group in enumerate(groups):
        func = request.func if streams is None else functools.partial(request.func, rng=streams.one(number))
        specs = _variable_specs(group, request)
        # Dask computes the data of the group before it calls the function.
        data = delayed(_compute_group)(replace(serial, func=func), labels.subset((number,), (1,)), specs, group)
        arrays = {one.name: da.from_delayed(data[k], one.shape, one.dtype) for k, one in enumerate(specs)}
        results.append(_label_result(group, specs, arrays))
    return results


def _variable_specs(group: Any, request: Request) -> list[_VariableSpec]:
    """The variables that the result of a group has, by the request."""
    if not isinstance(group, xr.Dataset):
        (dtype,), (core_dims,) = dtypes_per_output(request, 1), core_dims_per_output(request, 1)
        return [_variable_spec(None, group, core_dims, dtype, request)]
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


def _variable_spec(name: Hashable, group: Any, dims: Any, dtype: Any, request: Request) -> _VariableSpec:
    """One variable; if `dims` is None, with the dimensions that it has in the group."""
    if dims is None:
        if isinstance(group, xr.Dataset) and name not in group.data_vars:
            raise ValueError(f"the dimensions of the new variable {name!r} are not known; pass output_core_dims")
        dims = group.dims if name is None else group[name].dims
    sizes = {**group.sizes, **(request.output_sizes or {})}
    if missing := [dim for dim in dims if dim not in sizes]:
        raise ValueError(f"the length of dimension(s) {listed(missing)} is not known; pass output_sizes={{...}}")
    return _VariableSpec(name, list(dims), tuple(int(sizes[dim]) for dim in dims), dtype)


def _label_result(group: Any, specs: list[_VariableSpec], arrays: dict[Hashable, Any]) -> Any:
    """A result with the coordinates of its group that still fit."""
    if not isinstance(group, xr.Dataset):
        (spec,) = specs
        return MappedArrays([group], ()).wrap(arrays[None], spec.dims, keep_attrs=True)
    variables = {}
    for one in specs:
        like = group[one.name] if one.name in group.data_vars else xr.DataArray(0, name=one.name)
        variables[one.name] = xr.Variable(one.dims, arrays[one.name], like.attrs)
    sizes = dict(zip((d for one in specs for d in one.dims), (n for one in specs for n in one.shape), strict=True))
    fitting = [name for name, one in group.coords.items() if all(sizes.get(d) == n for d, n in one.sizes.items())]
    result = xr.Dataset(variables, group.drop_vars([name for name in group.coords if name not in fitting]).coords)
    result.attrs = dict(group.attrs)
    return result


def _compute_group(request: Request, labels: Labels, specs: list[_VariableSpec], group: Any) -> list[np.ndarray]:
    """Call the function for one group, in a Dask task; return the data of each variable."""
    groups = np.empty(1, object)
    groups[0] = group
    (box,) = run(request, [groups], (0,), lambda: labels, func=_BoxedFunction(request.func)).tolist()
    if not isinstance(box, Boxed):
        return [_gap_data(one) for one in specs]
    return [_variable_data(box.value, one) for one in specs]


class _BoxedFunction:
    """A function whose results are boxed, so that NumPy stores each as one object."""

    def __init__(self, func: Any) -> None:
        self.__wrapped__ = func  # has the signature

    def __call__(self, *args: Any, **kwargs: Any) -> Boxed:
        return Boxed(self.__wrapped__(*args, **kwargs))


def _variable_data(result: Any, spec: _VariableSpec) -> np.ndarray:
    """Data of one variable of a result; raise an error if it is not as specified."""
    expected = "a DataArray" if spec.name is None else f"a Dataset with variable {spec.name!r}"
    array = result
    if spec.name is not None and isinstance(result, xr.Dataset):
        array = result.data_vars.get(spec.name)
    kind = type(result).__name__
    if not isinstance(array, xr.DataArray) or (spec.name is not None and array is result):
        raise TypeError(f"func was to return {expected}, but it returned {kind}")
    if dict(array.sizes) != dict(zip(spec.dims, spec.shape, strict=True)):
        raise ValueError(
            f"func was to return {expected} of sizes {dict(zip(spec.dims, spec.shape, strict=True))}, "
            f"but it returned one of {dict(array.sizes)}"
        )
    return array.transpose(*spec.dims).to_numpy().astype(spec.dtype, casting="same_kind", copy=False)


def _gap_data(spec: _VariableSpec) -> np.ndarray:
    """An array of NaN or NaT; raise a ValueError if the dtype has neither."""
    if spec.dtype.kind not in "fcmMO":
        raise ValueError(
            f"dtype {spec.dtype} has no value for a gap, as errors='ignore' needs one; "
            "pass output_dtypes of floats, or errors='raise'"
        )
    return np.full(spec.shape, np.datetime64("NaT") if spec.dtype.kind in "mM" else np.nan).astype(spec.dtype)
