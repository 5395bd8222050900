"""Maps over DataArrays, Datasets and DataTrees by the names of their dimensions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from .._core.call import result_axes
from .._core.results import tuple_of
from .combine import combined
from .file_arrays import is_dask
from .labels import MappedArrays, coords_within, listed
from .request import Request, arranged, dtypes_of, names_of_columns, places_of, run, sizes_of
from .slices import LabelledFunction, SliceTemplate, positions

OnMissingDim: TypeAlias = Literal["copy", "drop", "raise"]


def map_array(array: xr.DataArray, others: Sequence[Any], request: Request) -> Any:
    """Map over one DataArray, and others in step."""
    frame = MappedArrays([array, *others], request.dims)
    if any(map(is_dask, frame.arrays)):
        from .dask import map_lazily

        return map_lazily(frame, request)
    axes = places_of(frame, request.vectorized)
    if request.as_xarray:
        return _map_views(frame, request, axes if request.vectorized else tuple(range(len(axes))))
    results = run(request, arranged(frame, axes), axes, frame.labels)
    if isinstance(results, tuple):
        columns = zip(results, names_of_columns(request, len(results)), dtypes_of(request, len(results)), strict=True)
        return tuple_of(type(results), [_finish(frame, request, axes, *column) for column in columns])
    return _finish(frame, request, axes, results, names_of_columns(request, 1)[0], dtypes_of(request, 1)[0])


def _finish(
    frame: MappedArrays, request: Request, axes: tuple[int, ...], data: np.ndarray, names: Any, dtype: Any
) -> xr.DataArray:
    """Name the dimensions of one result."""
    places = result_axes(axes, data.ndim)
    core = tuple(n for axis, n in enumerate(data.shape) if axis not in places)
    if names is None:
        names = _guess(frame, core)
    elif len(names) != len(core) and not data.size and len(core) == 0:
        # No element, no call: only the names tell of what shape results would be.
        core = sizes_of(frame, request, names)
        data = np.zeros((*data.shape, *core), data.dtype)
        places = tuple(range(len(axes)))
    if len(names) != len(core):
        raise ValueError(
            f"output_core_dims names {len(names)} dimension(s), {listed(names)}, "
            f"but func gives results of shape {core}; give one name per dimension"
        )
    sizes = request.output_sizes or {}
    for name, length in zip(names, core, strict=True):
        if sizes.get(name, length) != length:
            raise ValueError(f"output_sizes says {sizes[name]} for {name!r}, but func gives results of shape {core}")
    if dtype is not None:
        data = data.astype(dtype, casting="same_kind", copy=False)
    dims: list[Hashable] = list(names)
    for place, dim in sorted(zip(places, frame.dims, strict=True)):
        dims.insert(place, dim)
    return frame.wrap(data, dims, request.keep_attrs)


def _guess(frame: MappedArrays, core: tuple[int, ...]) -> tuple[Hashable, ...]:
    if not core:
        return ()
    if core == frame.slice_shape:
        return frame.slice_dims
    raise ValueError(
        f"func gives results of shape {core}, but slices are of shape {frame.slice_shape}, with dimensions "
        f"{listed(frame.slice_dims)}; name those of results: output_core_dims=[{', '.join(['...'] * len(core))}]"
    )


def _map_views(frame: MappedArrays, request: Request, axes: tuple[int, ...]) -> Any:
    """Map a function of DataArrays."""
    func = LabelledFunction(request.func, [SliceTemplate(one) for one in frame.arrays], frame.dims, frame.lengths)
    sources = [*arranged(frame, axes), positions(frame.lengths, axes)]
    results = run(request, sources, axes, frame.labels, func=func)
    columns = results if isinstance(results, tuple) else (results,)
    made = []
    for column in columns:
        if column.dtype != object:  # no result at all
            made.append(frame.wrap(column, frame.dims, request.keep_attrs))
        else:
            boxes = column.ravel() if request.vectorized else column
            made.append(combined(boxes, frame.arrays[0], frame.dims, request.keep_attrs))
    return tuple_of(type(results), made) if isinstance(results, tuple) else made[0]


def map_dataset(dataset: xr.Dataset, others: Sequence[Any], request: Request, on_missing_dim: OnMissingDim) -> Any:
    """Map over each variable that has all the dimensions."""
    for dim in request.dims:
        if dim not in dataset.dims:
            raise ValueError(f"the dataset has no dimension {dim!r}; it has {listed(dataset.dims)}")
    return _map_node(dataset, others, request, on_missing_dim)


def _map_node(dataset: xr.Dataset, others: Sequence[Any], request: Request, on_missing_dim: OnMissingDim) -> Any:
    """The same, where the dataset as a whole may lack dimensions."""
    if on_missing_dim not in ("copy", "drop", "raise"):
        raise ValueError(f"on_missing_dim must be 'copy', 'drop' or 'raise', got {on_missing_dim!r}")
    without = [name for name, one in dataset.data_vars.items() if not set(request.dims) <= set(one.dims)]
    if without and on_missing_dim == "raise":
        raise ValueError(
            f"variable(s) {listed(without)} lack some of the dimensions {listed(request.dims)}; "
            "on_missing_dim='copy' keeps them as they are, 'drop' leaves them out"
        )
    results: dict[Hashable, Any] = {}
    for name, one in dataset.data_vars.items():
        if name not in without:
            results[name] = _map_variable(name, one, others, request)
        elif on_missing_dim == "copy":
            results[name] = one
    mapped = [results[name] for name in results if name not in without]
    widths = {len(one) if isinstance(one, tuple) else None for one in mapped}
    if len(widths) > 1:
        raise ValueError(f"func gives different numbers of results for variables: {widths}")
    width = widths.pop() if widths else None
    if width is None:
        return _assemble(dataset, results, request)
    parts = [{n: one if n in without else one[k] for n, one in results.items()} for k in range(width)]
    return tuple_of(type(mapped[0]), [_assemble(dataset, part, request) for part in parts])


def _map_variable(name: Hashable, variable: xr.DataArray, others: Sequence[Any], request: Request) -> Any:
    given = []
    for number, other in enumerate(others):
        if isinstance(other, xr.Dataset):
            if name not in other.data_vars:
                raise ValueError(f"other {number} has no variable {name!r}; it has {listed(other.data_vars)}")
            other = other[name]
        given.append(other)
    try:
        return map_array(variable, given, request)
    except Exception as error:
        error.add_note(f"in variable {name!r}")
        raise


def _assemble(dataset: xr.Dataset, variables: Mapping[Hashable, xr.DataArray], request: Request) -> xr.Dataset:
    """Variables as one dataset, with the coordinates that they have."""
    parts = [one.rename(None).to_dataset(name=name) for name, one in variables.items()]
    result = xr.merge(parts, join="exact", compat="equals", combine_attrs="override")
    if not request.as_xarray:  # what no variable has all dimensions of, but the dataset does
        same = {dim for dim, length in dataset.sizes.items() if result.sizes.get(dim) == length}
        result = result.assign_coords(coords_within(dataset, same, result.coords))
    result.attrs = {} if request.keep_attrs in (False, "drop") else dict(dataset.attrs)
    result.encoding = dict(dataset.encoding)
    return result


def map_tree(tree: xr.DataTree, others: Sequence[Any], request: Request, on_missing_dim: OnMissingDim) -> Any:
    """Map over the datasets of all nodes."""
    dims = {dim for node in tree.subtree for dim in node.dims}
    for dim in request.dims:
        if dim not in dims:
            raise ValueError(f"no node of the tree has a dimension {dim!r}; there are {listed(sorted(dims, key=str))}")

    def map_node(dataset: xr.Dataset, *given: Any) -> Any:
        whole = xr.Dataset(dataset.data_vars, dataset.coords, dataset.attrs)
        return _map_node(whole, given, request, on_missing_dim)

    return xr.map_over_datasets(map_node, tree, *others)
