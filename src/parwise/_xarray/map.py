"""Maps over DataArrays, Datasets and DataTrees, by names of dimensions."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from .._core.call import result_axes
from .._core.options.options import resolve
from .._core.results import tuple_of
from .combine import combine
from .file_arrays import is_dask
from .labels import MappedArrays, checked_dims, coords_within, listed
from .request import (
    Request,
    as_told,
    check_dims,
    check_lengths,
    check_no_out,
    check_told,
    common_axes,
    core_dims_per_output,
    dtypes_per_output,
    outputs_told,
    run,
    told_results,
    transposed_arrays,
    with_dtype,
)
from .slices import LabelledFunction, ObjectsFunction, SliceTemplate, element_numbers, unboxed

OnMissingDim: TypeAlias = Literal["copy", "drop", "raise"]


def map_array(array: xr.DataArray, others: Sequence[Any], request: Request) -> Any:
    """Map over one DataArray, and over others in step."""
    mapped = MappedArrays([array, *others], request.dims)
    check_told(request)
    if request.out is not None:
        return _map_into(mapped, request)
    if any(map(is_dask, mapped.arrays)):
        from .lazy.maps import map_dask

        return map_dask(mapped, request)
    axes = common_axes(mapped, request.vectorized)
    if request.as_xarray:
        return _map_labelled(mapped, request, axes if request.vectorized else tuple(range(len(axes))))
    told = functools.partial(told_results, mapped, request)
    func = _function_of_objects(request)
    results = run(request, transposed_arrays(mapped, axes), axes, mapped.labels, func=func, told=told)
    if isinstance(results, tuple):
        count = len(results)
        columns = zip(results, core_dims_per_output(request, count), dtypes_per_output(request, count), strict=True)
        return tuple_of(type(results), [_label_result(mapped, request, axes, *column) for column in columns])
    (core_dims,), (dtype,) = core_dims_per_output(request, 1), dtypes_per_output(request, 1)
    return _label_result(mapped, request, axes, results, core_dims, dtype)


def _function_of_objects(request: Request) -> ObjectsFunction | None:
    """The function, with its results as objects, if results are told to be objects; of blocks NumPy has the arrays."""
    dtypes = dtypes_per_output(request, outputs_told(request)[0])
    return ObjectsFunction(request.func, dtypes) if object in dtypes and not request.vectorized else None


def _map_into(mapped: MappedArrays, request: Request) -> xr.DataArray:
    """Map with `out`, which gets the result; return it with labels, over what was written."""
    from .out import check_request, labelled, map_into  # most maps do without

    check_request(mapped, request)
    if isinstance(request.out, str | os.PathLike):
        from .store import map_into_store  # which imports zarr

        return map_into_store(mapped, request, os.fspath(request.out))
    return labelled(mapped, request, request.out, map_into(mapped, request, request.out))


def _label_result(
    mapped: MappedArrays, request: Request, axes: tuple[int, ...], data: np.ndarray, core_dims: Any, dtype: Any
) -> xr.DataArray:
    """Name the dimensions of one output and put coordinates on it."""
    places = result_axes(axes, data.ndim)
    shape = tuple(n for axis, n in enumerate(data.shape) if axis not in places)
    if core_dims is None:
        core_dims = _infer_core_dims(mapped, shape)
    if len(core_dims) != len(shape):
        raise ValueError(
            f"output_core_dims names {len(core_dims)} dimension(s), {listed(core_dims)}, but func returns "
            f"results of shape {shape}; pass one name for each dimension"
        )
    check_lengths(request, dict(zip(core_dims, shape, strict=True)))
    if dtype is not None:
        data = as_told(unboxed(data), dtype)
    dims: list[Hashable] = list(core_dims)
    for place, dim in sorted(zip(places, mapped.dims, strict=True)):
        dims.insert(place, dim)
    return mapped.wrap(data, dims, request.keep_attrs)


def _infer_core_dims(mapped: MappedArrays, shape: tuple[int, ...]) -> tuple[Hashable, ...]:
    """Dimensions of a result from its shape: none, or those of the slice."""
    if not shape:
        return ()
    if shape == mapped.slice_shape:
        return mapped.slice_dims
    raise ValueError(
        f"func returns results of shape {shape}, but slices have shape {mapped.slice_shape}, with "
        f"dimensions {listed(mapped.slice_dims)}; name those of results: "
        f"output_core_dims=[{', '.join(['...'] * len(shape))}]"
    )


def _map_labelled(mapped: MappedArrays, request: Request, axes: tuple[int, ...]) -> Any:
    """Map a function of DataArrays."""
    func = LabelledFunction(request.func, [SliceTemplate(one) for one in mapped.arrays], mapped.dims, mapped.lengths)
    arrays = [*transposed_arrays(mapped, axes), element_numbers(mapped.lengths, axes)]
    told = functools.partial(told_results, mapped, request)
    results = run(request, arrays, axes, mapped.labels, func=func, told=told)
    columns = results if isinstance(results, tuple) else (results,)
    count, made = len(columns), []
    told_columns = zip(columns, core_dims_per_output(request, count), dtypes_per_output(request, count), strict=True)
    for column, core_dims, dtype in told_columns:
        if column.dtype != object or not column.size:  # no element has a result
            made.append(_label_result(mapped, request, axes, column, core_dims, dtype))
        else:
            boxes = column.ravel() if request.vectorized else column
            objects = dtype is not None and dtype.kind == "O"
            result = combine(boxes, mapped.arrays[0], mapped.dims, request.keep_attrs, objects)
            made.append(_labelled_as_told(mapped, request, result, core_dims, dtype))
    return tuple_of(type(results), made) if isinstance(results, tuple) else made[0]


def _labelled_as_told(
    mapped: MappedArrays, request: Request, result: xr.DataArray, core_dims: Any, dtype: Any
) -> xr.DataArray:
    """The results of a function of DataArrays, with the dtype and order of dimensions that they are told to have."""
    check_dims(request, {dim: n for dim, n in result.sizes.items() if dim not in mapped.dims}, core_dims)
    if core_dims is not None:
        result = result.transpose(*mapped.ordered([*core_dims, *mapped.dims]), transpose_coords=False)
    return result if dtype is None else with_dtype(result, dtype)


def map_dataset(
    dataset: xr.Dataset, others: Sequence[Any], request: Request, on_missing_dim: OnMissingDim, core_dims: Any = None
) -> Any:
    """Map over each variable that has all mapped dimensions and `core_dims`.

    Raise a ValueError if the dataset lacks one of these.
    """
    check_no_out(request, "a Dataset")
    needed = needed_dims(request, core_dims)
    for dim in needed:
        if dim not in dataset.dims:
            raise ValueError(f"the dataset has no dimension {dim!r}; it has {listed(dataset.dims)}")
    return map_node(dataset, others, request, on_missing_dim, needed)


def needed_dims(request: Request, core_dims: Any) -> tuple[Hashable, ...]:
    """The dimensions that a variable must have to be mapped: those mapped over, and those that slices must have."""
    needed = () if core_dims is None else checked_dims(core_dims, "core_dims")
    for dim in needed:
        if dim in request.dims:
            raise ValueError(f"core_dims are dimensions of slices, which do not have {dim!r}: it is mapped over")
    return (*request.dims, *needed)


def map_node(
    dataset: xr.Dataset,
    others: Sequence[Any],
    request: Request,
    on_missing_dim: OnMissingDim,
    needed: tuple[Hashable, ...],
) -> Any:
    """Map over a dataset, which may lack mapped dimensions itself: a node of a tree."""
    if on_missing_dim not in ("copy", "drop", "raise"):
        raise ValueError(f"on_missing_dim must be 'copy', 'drop' or 'raise', got {on_missing_dim!r}")
    without = [name for name, one in dataset.data_vars.items() if not set(needed) <= set(one.dims)]
    if without and on_missing_dim == "raise":
        raise ValueError(
            f"variable(s) {listed(without)} lack some of the dimensions {listed(needed)}; "
            "on_missing_dim='copy' keeps them as they are, 'drop' leaves them out"
        )
    check_told(request)
    _check_new_dims(dataset, without if on_missing_dim == "drop" else [], request)
    results: dict[Hashable, Any] = {}
    for name, one in dataset.data_vars.items():
        if name not in without:
            results[name] = _map_variable(name, one, others, request)
        elif on_missing_dim == "copy":
            results[name] = one
    outputs = _as_many([results[name] for name in results if name not in without], request)
    results.update(zip((name for name in results if name not in without), outputs, strict=True))
    counts = {len(one) if isinstance(one, tuple) else None for one in outputs}
    if len(counts) > 1:
        raise ValueError(
            f"func returns different numbers of results for different variables: {counts}; return as many "
            "for all, or map the variables one by one"
        )
    count = counts.pop() if counts else None
    if count is None:
        return _merge_variables(dataset, results, request, without)
    parts = [{n: one if n in without else one[k] for n, one in results.items()} for k in range(count)]
    return tuple_of(type(outputs[0]), [_merge_variables(dataset, part, request, without) for part in parts])


def _check_new_dims(dataset: xr.Dataset, dropped: Sequence[Hashable], request: Request) -> None:
    """Raise a ValueError for a new dimension with the name of a variable, which no dataset can hold."""
    given = [request.output_core_dims] if isinstance(request.output_core_dims, str) else request.output_core_dims or []
    names = [name for one in given for name in (one if isinstance(one, list | tuple) else [one])]
    for name in names:
        if name in dataset.data_vars and name not in dataset.dims and name not in dropped:
            raise ValueError(
                f"output_core_dims names a new dimension {name!r}, but the dataset has a variable of that name; "
                "choose another name, or rename the variable"
            )


def _as_many(outputs: list[Any], request: Request) -> list[Any]:
    """Results by variable, with as many for one without any result as for the others, where it was not told."""
    like = next((one for one in outputs if isinstance(one, tuple)), None)
    if like is None or not resolve(request.options).ignore or outputs_told(request)[1]:
        return outputs
    alone = [not isinstance(one, tuple) and not is_dask(one) and bool(one.isnull().all()) for one in outputs]
    return [
        tuple_of(type(like), [one] * len(like)) if is_gap else one for one, is_gap in zip(outputs, alone, strict=True)
    ]


def _map_variable(name: Hashable, variable: xr.DataArray, others: Sequence[Any], request: Request) -> Any:
    """Map over one variable of a dataset, and in step over the variables of this name in other datasets."""
    arrays = []
    for number, other in enumerate(others):
        if isinstance(other, xr.Dataset):
            if name not in other.data_vars:
                raise ValueError(f"other {number} has no variable {name!r}; it has {listed(other.data_vars)}")
            other = other[name]
        arrays.append(other)
    try:
        return map_array(variable, arrays, replace(request, variable=name))
    except Exception as error:
        error.add_note(f"in variable {name!r}{_without_slices(name, variable, request)}")
        raise


def _without_slices(name: Hashable, variable: xr.DataArray, request: Request) -> str:
    """What to do about a variable that has the mapped dimensions alone; empty for others."""
    if request.vectorized or not set(variable.dims) <= set(request.dims):
        return ""
    got = "a DataArray without dimensions" if request.as_xarray else "single values, not arrays"
    return (
        f", which has no dimensions but those mapped over: func got {got}. To leave it as it is: "
        f"ds.drop_vars({name!r}).par.map(...).assign({{{name!r}: ds[{name!r}]}})"
    )


def _conflicts(
    dataset: xr.Dataset, variables: Mapping[Hashable, xr.DataArray], copied: Sequence[Hashable]
) -> set[Hashable]:
    """Coordinates that fit a result and that it lacks: those of others have other values.

    As by `xarray.apply_ufunc` the dataset then has neither.
    """
    found = set()
    for name, result in variables.items():
        same = [dim for dim, length in dataset[name].sizes.items() if result.sizes.get(dim) == length]
        if name not in copied:
            found |= {one for one in coords_within(dataset[name], same) if one not in result.coords}
    return found.difference(*(one.dims for one in variables.values()))


def _merge_variables(
    dataset: xr.Dataset, variables: Mapping[Hashable, xr.DataArray], request: Request, copied: Sequence[Hashable]
) -> xr.Dataset:
    """Merge results by variable into a dataset with the attributes of `dataset`, and its coordinates that still fit."""
    conflicts = set() if request.as_xarray else _conflicts(dataset, variables, copied)
    parts = [
        one.rename(None).to_dataset(name=name).drop_vars(conflicts.intersection(one.coords))
        for name, one in variables.items()
    ]
    result = xr.merge(parts, join="exact", compat="equals", combine_attrs="override")
    if not request.as_xarray:  # coordinates whose dimensions no single variable has
        same = {dim for dim, length in dataset.sizes.items() if result.sizes.get(dim) == length}
        taken = {*result.coords, *(dim for dim in result.dims if dim not in dataset.dims), *conflicts}
        result = result.assign_coords(coords_within(dataset, same, taken))
    result.attrs = {} if request.keep_attrs in (False, "drop") else dict(dataset.attrs)
    unlimited = [dim for dim in dataset.encoding.get("unlimited_dims", ()) if dim in result.dims]
    result.encoding = {"unlimited_dims": set(unlimited)} if unlimited else {}
    return result
