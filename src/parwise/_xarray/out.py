"""Results that go to an array in a file: `out` of `.par.map`."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from .._api.resume.files import is_hdf5, is_zarr, path_of
from .._core.call import result_axes
from .file_arrays import is_dask
from .labels import MappedArrays, listed
from .request import (
    CastFunction,
    Request,
    common_axes,
    core_dims_per_output,
    dtypes_per_output,
    outputs_told,
    run,
    told_results,
    transposed_arrays,
)


def map_into(mapped: MappedArrays, request: Request, out: Any) -> list[Hashable]:
    """Write the results to an array; return its dimensions, in order."""
    _check_out(mapped, out)
    core_dims = _core_dims(mapped, request, tuple(out.shape))
    order = mapped.ordered([*core_dims, *mapped.dims])
    _check_shape(mapped, request, order, tuple(out.shape))
    _check_dtype(request, out)
    axes = _axes(mapped, request, order)
    made = list(core_dims)
    for place, dim in sorted(zip(result_axes(axes, len(order)), mapped.dims, strict=True)):
        made.insert(place, dim)
    told = functools.partial(told_results, mapped, request)
    target = _transposed(out, order, made)
    (dtype,) = dtypes_per_output(request, 1)
    # What is written is cast as NumPy's ufuncs do, which wrap integers around.
    func = CastFunction(request.func, dtype) if dtype is not None and dtype.kind in "iumM" else None
    run(request, transposed_arrays(mapped, axes), axes, mapped.labels, func=func, told=told, out=target)
    return order


def labelled(mapped: MappedArrays, request: Request, out: Any, order: Sequence[Hashable]) -> xr.DataArray:
    """The result over an array that holds it, which is read when it is used."""
    if isinstance(out, np.ndarray):
        return mapped.wrap(out, order, request.keep_attrs)
    # What `xarray.open_dataset` puts around arrays in files.
    lazy: Any = indexing.LazilyIndexedArray(_StoredArray(out))
    result = mapped.wrap(indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazy)), order, request.keep_attrs)
    chunks = getattr(out, "shards", None) or out.chunks
    if chunks is not None:
        result.encoding["preferred_chunks"] = dict(zip(order, chunks, strict=True))
    return result


class _StoredArray(BackendArray):
    """An array of zarr or h5py, as xarray's lazy arrays read it."""

    def __init__(self, array: Any) -> None:
        self._array, self.shape, self.dtype = array, tuple(array.shape), np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> Any:
        basic = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, basic, self._array.__getitem__)


def check_request(mapped: MappedArrays, request: Request) -> None:
    """Raise a ValueError for what has no place in one array."""
    if any(map(is_dask, mapped.arrays)):
        raise ValueError(
            "out= is not for data in Dask's blocks, whose results are lazy; leave out= (and resume=) out "
            "and write the result with .to_zarr(path), or open the file without Dask (chunks=None)"
        )
    if request.as_xarray:
        raise ValueError(
            "out= is for functions of arrays; with as_xarray=True only the labels of results tell where "
            "they go. Leave out= or as_xarray out"
        )
    if isinstance(request.out, tuple) or outputs_told(request)[1]:
        raise ValueError(
            "out= of .par.map is for a function with one result; for a tuple of results use "
            "parallel_apply(func, x.data, axis=x.get_axis_num(dim), out=(..., ...))"
        )


def _check_out(mapped: MappedArrays, out: Any) -> None:
    if not (isinstance(out, np.ndarray) or is_zarr(out) or is_hdf5(out)):
        raise TypeError(
            "out must be an array of NumPy (np.memmap), zarr or h5py, or the path of a new store of zarr, got "
            f"{type(out).__module__}.{type(out).__name__}"
        )
    own = path_of(out)
    for number, one in enumerate(mapped.arrays):
        path = _file_behind(one.variable)
        if own is not None and path is not None and (own == path or own.startswith(path + os.sep)):
            raise ValueError(
                f"out lies in {path}, from which {'the array' if number == 0 else f'other {number - 1}'} is read "
                "during the call; pass an out in another file, or map over array.load()"
            )


def _file_behind(variable: xr.Variable) -> str | None:
    """The file, or folder, that a lazy variable is read from, as far as xarray tells."""
    held = variable._data
    while hasattr(held, "array"):
        held = held.array
    path = path_of(getattr(held, "_array", None)) or variable.encoding.get("source")
    return os.path.realpath(path) if isinstance(path, str) and not variable._in_memory else None


def _core_dims(mapped: MappedArrays, request: Request, shape: tuple[int, ...]) -> list[Hashable]:
    """Dimensions of one result, by the shape of `out` if they are not told."""
    (core_dims,) = core_dims_per_output(request, 1)
    count = len(shape) - len(mapped.dims)
    if core_dims is None and count in (0, len(mapped.slice_dims)):
        return list(mapped.slice_dims) if count else []
    if core_dims is None or count != len(core_dims):
        given = "which are not told" if core_dims is None else listed(core_dims)
        raise ValueError(
            f"out has shape {shape}, but the result has the mapped dimension(s) {listed(mapped.dims)} and "
            f"those of func's results, {given}; pass output_core_dims with one name for each dimension of "
            "a result"
        )
    return list(core_dims)


def _check_shape(mapped: MappedArrays, request: Request, order: list[Hashable], shape: tuple[int, ...]) -> None:
    """Raise a ValueError if `out` cannot have the result, by its shape."""
    sizes = dict(request.output_sizes or {})
    if not request.vectorized:
        sizes |= dict(zip(mapped.dims, mapped.lengths, strict=True))
    if request.output_core_dims is None:
        sizes |= dict(zip(mapped.slice_dims, mapped.slice_shape, strict=True))
    wanted = tuple(sizes.get(dim, length) for dim, length in zip(order, shape, strict=True))
    if wanted != shape:
        raise ValueError(
            f"out has shape {shape}, but the result has {wanted}, of the dimensions {listed(order)}; "
            "dimensions of the array come first, in its order"
        )


def _check_dtype(request: Request, out: Any) -> None:
    (dtype,) = dtypes_per_output(request, 1)
    if dtype is not None and dtype != out.dtype:
        raise ValueError(
            f"output_dtypes says {dtype}, but out has dtype {out.dtype}; leave output_dtypes out, or pass an out of "
            "that dtype"
        )


def _axes(mapped: MappedArrays, request: Request, order: list[Hashable]) -> tuple[int, ...]:
    """Axes for the mapped dimensions in the call: where they are in `out`, if the arrays allow it."""
    axes = tuple(order.index(dim) for dim in mapped.dims)
    # A block function gets its blocks as they are in the first array.
    if request.vectorized or any(one.ndim <= max(axes) for one in mapped.arrays):
        return common_axes(mapped, request.vectorized)
    return axes


def _transposed(out: Any, order: list[Hashable], made: list[Hashable]) -> Any:
    """`out` with its axes as the call makes results, whose dimensions are `made`."""
    if made == order:
        return out
    if isinstance(out, np.ndarray):
        return out.transpose([order.index(dim) for dim in made])
    raise ValueError(
        f"results are made with the dimensions {listed(made)}, and out has them as {listed(order)}, "
        "an order in which arrays of zarr and h5py cannot be written; pass a np.memmap, or transpose "
        "the array (or func's results)"
    )
