"""Maps over Dask arrays: lazy results, made without a call of the function on made-up data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from .._api.apply import plan
from .._core.call import Block
from .._core.random import RandomStreams, make_random_streams
from .labels import MappedArrays, listed
from .request import (
    Request,
    common_axes,
    core_dims_per_output,
    core_shape,
    dtypes_per_output,
    run,
    transposed_arrays,
)
from .slices import BareResult, Boxed, LabelledFunction, SliceTemplate

#: Options of a call within a Dask task. Dask decides where the task runs, and what happens if it is lost.
SERIAL = {"executor": "serial", "isolate": False, "timeout": None, "retries": 0, "verify": False, "progress": None}
_KEPT_OPTIONS = ("errors", "blas_threads")
_PAD_MODES = {"nearest": "edge"}


def map_dask(mapped: MappedArrays, request: Request) -> Any:
    """Map over DataArrays, at least one of which holds a Dask array."""
    _check_dtypes(request)
    check_options(request)
    core_dims, dtypes, in_tuple = _describe_outputs(mapped, request)
    shapes = [core_shape(mapped, request, one) for one in core_dims]
    task = _SerialMap(mapped, request, core_dims, shapes, dtypes, in_tuple)
    if request.vectorized:
        (axis,) = common_axes(mapped, True)
        arrays = _map_blocks(task, mapped, request, axis)
    else:
        axis = 0
        arrays = _map_elements(task, mapped)
    results = []
    for data, one in zip(arrays, core_dims, strict=True):
        dims = [*one[:axis], *mapped.dims, *one[axis:]]
        results.append(mapped.wrap(data, dims, request.keep_attrs))
    return tuple(results) if in_tuple else results[0]


def _check_dtypes(request: Request) -> None:
    if request.output_dtypes is None:
        raise ValueError(
            "the data is in Dask's blocks, and results are not known before they are computed; pass "
            "output_dtypes=[...] (and output_core_dims, output_sizes), or map over array.load()"
        )


def check_options(request: Request) -> None:
    """Raise a ValueError for options about where and how tasks run, which Dask decides."""
    others = [name for name in request.options if name not in _KEPT_OPTIONS and request.options[name] is not None]
    if others:
        raise ValueError(
            f"option(s) {listed(others)} have no meaning for data in Dask's blocks, where Dask's scheduler decides; "
            "leave them out, or map over array.load()"
        )


def _describe_outputs(mapped: MappedArrays, request: Request) -> tuple[list[Any], list[Any], bool]:
    """Core dimensions and dtype of each output; and True if the function returns a tuple."""
    dtypes, core_dims = request.output_dtypes, request.output_core_dims
    count = len(dtypes) if isinstance(dtypes, list | tuple) else 1
    nested = (
        core_dims is not None
        and not isinstance(core_dims, str)
        and any(isinstance(one, list | tuple) for one in core_dims)
    )
    outputs = core_dims_per_output(request, count)
    if core_dims is None:
        if mapped.slice_dims and not request.vectorized:
            raise ValueError(
                "the data is in Dask's blocks: tell the dimensions of func's results, output_core_dims=[] for scalars, "
                f"output_core_dims={list(mapped.slice_dims)!r} for arrays like the slices"
            )
        outputs = [list(mapped.slice_dims)] * count
    return outputs, dtypes_per_output(request, count), count > 1 or nested


def _map_elements(task: _SerialMap, mapped: MappedArrays) -> list[Any]:
    """Map an element function: one Dask task for each chunk of the mapped dimensions."""
    depth = len(mapped.dims)
    arrays = [da.asarray(one) for one in transposed_arrays(mapped, tuple(range(depth)))]
    axes = [(*range(depth), *((k, d) for d in range(depth, one.ndim))) for k, one in enumerate(arrays)]
    _, arrays = da.core.unify_chunks(*(x for pair in zip(arrays, axes, strict=True) for x in pair))
    for one, array in zip(mapped.arrays, arrays, strict=True):
        slice_dims = [dim for dim in one.dims if dim not in mapped.dims]
        for dim, chunks in zip(slice_dims, array.chunks[depth:], strict=True):
            if len(chunks) > 1:
                raise ValueError(
                    f"func needs all of {dim!r} at once, which is in {len(chunks)} chunks of Dask's; "
                    f"rechunk first: array.chunk({{{dim!r}: -1}})"
                )
    # Indices along each mapped dimension, from which a task knows which elements it has.
    indices = [
        da.arange(n, chunks=(chunks,), dtype=np.int64).reshape(n, *[1] * (depth - 1 - k))
        for k, (n, chunks) in enumerate(zip(mapped.lengths, arrays[0].chunks, strict=False))
    ]
    inputs = [",".join(f"i{k}_{d}" for d in range(depth, one.ndim)) for k, one in enumerate(arrays)]
    outputs = [",".join(f"o{k}_{d}" for d in range(len(one))) for k, one in enumerate(task.shapes)]
    signature = ",".join(f"({one})" for one in inputs + [""] * depth) + "->" + ",".join(f"({one})" for one in outputs)
    single = len(task.shapes) == 1
    results = da.apply_gufunc(
        task,
        signature,
        *arrays,
        *indices,
        output_dtypes=task.dtypes[0] if single else tuple(task.dtypes),
        output_sizes={f"o{k}_{d}": n for k, one in enumerate(task.shapes) for d, n in enumerate(one)},
        vectorize=False,
    )
    return [results] if single else list(results)


def _map_blocks(task: _SerialMap, mapped: MappedArrays, request: Request, axis: int) -> list[Any]:
    """Map a block function: one Dask task for each block that `parallel_apply` would make, whatever Dask's chunks."""
    arrays = [da.asarray(one) for one in transposed_arrays(mapped, (axis,))]
    how = {"axis": axis, "chunk": request.chunk, "depth": request.depth, "boundary": request.boundary}
    blocks = plan(*arrays, **how)
    chunks = {axis: arrays[0].chunks[axis]}
    pad = request.depth if request.boundary is not None else 0
    if pad:
        arrays = [_pad(one, axis, pad, request.boundary) for one in arrays]
    columns: list[list[Any]] = [[] for _ in task.shapes]
    for block in blocks:
        key = (slice(None),) * axis + (slice(block.first + pad, block.last + pad),)
        result = delayed(task.compute_block)(axis, block.start // blocks[0].stop, block, *[one[key] for one in arrays])
        for k, (core, dtype) in enumerate(zip(task.shapes, task.dtypes, strict=True)):
            shape = (*core[:axis], block.stop - block.start, *core[axis:])
            columns[k].append(da.from_delayed(result[k] if task.in_tuple else result, shape, dtype))
    return [da.concatenate(column, axis=axis).rechunk(chunks) for column in columns]


def _pad(array: Any, axis: int, depth: int, boundary: Any) -> Any:
    """`dask.array.pad` by the halo along one axis."""
    mode, value = boundary if isinstance(boundary, tuple) else (boundary, 0)
    widths = [(depth, depth) if k == axis else (0, 0) for k in range(array.ndim)]
    kwargs = {"constant_values": value} if mode == "constant" else {}
    return da.pad(array, widths, mode=_PAD_MODES.get(mode, mode), **kwargs)


class _SerialMap:
    """A map over some of the elements, run serially within one Dask task.

    Parameters
    ----------
    mapped : MappedArrays
        All arrays, for their labels.
    request : Request
    core_dims : list of (list of hashable)
        Dimensions of one result, for each output.
    shapes : list of (tuple of int)
        Their lengths.
    dtypes : list of dtype
        Dtype of each output.
    in_tuple : bool
        True if the function returns a tuple.

    Attributes
    ----------
    shapes, dtypes, in_tuple
    """

    def __init__(
        self,
        mapped: MappedArrays,
        request: Request,
        core_dims: list[Any],
        shapes: list[Any],
        dtypes: list[Any],
        in_tuple: bool,
    ) -> None:
        self.shapes, self.dtypes, self.in_tuple = shapes, dtypes, in_tuple
        self._labels = mapped.labels()
        self._streams = streams = (
            None if request.rng is None else make_random_streams(request.rng, request.func, dict(request.kwargs or {}))
        )
        self._func = func = request.func
        if request.as_xarray:
            axis = common_axes(mapped, True)[0] if request.vectorized else 0
            dims = [[*one[:axis], *mapped.dims, *one[axis:]] if request.vectorized else one for one in core_dims]
            templates = [SliceTemplate(one) for one in mapped.arrays]
            self._func = func = _DataFunction(LabelledFunction(func, templates, mapped.dims, mapped.lengths), dims)
        if not request.vectorized:
            self._func = _NumberedFunction(func, len(mapped.arrays), streams, request.as_xarray)
        options = {**request.options, **SERIAL}
        self._request = replace(request, rng=None, options=options, chunk=None, depth=0, boundary=None)

    def __call__(self, *args: Any) -> Any:
        """Call an element function for all elements of one chunk.

        Parameters
        ----------
        *args : ndarray
            Data of each array, then the indices along each mapped dimension.
        """
        depth = len(self._labels.dims)
        arrays, indices = [np.asarray(one) for one in args[:-depth]], args[-depth:]
        grid = tuple(max(one.shape[k] for one in arrays) for k in range(depth))
        starts = tuple(int(one.flat[0]) if one.size else 0 for one in indices)
        labels = self._labels.subset(starts, grid)
        numbers = np.zeros(grid, np.int64)
        for one, length in zip(indices, self._labels.lengths, strict=True):
            numbers = numbers * length + one
        out = tuple(np.empty((*grid, *one), dtype) for one, dtype in zip(self.shapes, self.dtypes, strict=True))
        result = run(
            self._request,
            [*arrays, numbers],
            tuple(range(depth)),
            lambda: labels,
            out=out if self.in_tuple else out[0],
            func=self._func,
        )
        return tuple(result) if len(out) > 1 else result[0] if self.in_tuple else result

    def compute_block(self, axis: int, number: int, block: Block, *args: Any) -> Any:
        """Call a block function for one block, and cut the halo off its result.

        Parameters
        ----------
        axis : int
            The mapped axis.
        number : int
            Number of the block, for random numbers.
        block : Block
        *args : ndarray
            Data of each array, with the halo.
        """
        func = self._func
        if self._streams is not None:
            func = functools.partial(func, rng=self._streams.one(number))
        arrays = [np.asarray(one) for one in args]
        lo, hi = max(block.first, 0), min(block.last, self._labels.lengths[0])
        labels = self._labels.subset((lo,), (hi - lo,))
        request = replace(self._request, chunk=max(1, block.last - block.first))
        if self._request.as_xarray:
            arrays.append(np.arange(lo, hi).reshape((1,) * axis + (-1,)))
        result = run(request, arrays, (axis,), lambda: labels, func=func)
        key = (slice(None),) * axis + (slice(block.start - block.first, block.stop - block.first),)
        columns = result if isinstance(result, tuple) else (result,)
        results = [
            one[key].astype(dtype, casting="same_kind", copy=False)
            for one, dtype in zip(columns, self.dtypes, strict=True)
        ]
        return results if self.in_tuple else results[0]


class _NumberedFunction:
    """A function whose call also gets the number of the element, which selects its random generator.

    Parameters
    ----------
    func : callable
    count : int
        Number of mapped arrays; the element's number follows their slices.
    streams : RandomStreams, optional
        Generators, one for each element.
    keep : bool
        True to hand the number on to `func`, a `LabelledFunction`.
    """

    def __init__(self, func: Callable[..., Any], count: int, streams: RandomStreams | None, keep: bool) -> None:
        self._func, self._count, self._streams, self._keep = func, count, streams, keep

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        count = self._count
        if self._streams is not None:
            kwargs["rng"] = self._streams.one(int(args[count]))
        return self._func(*args[: count + self._keep], *args[count + 1 :], **kwargs)


class _DataFunction:
    """A labelled function that returns the data of its results, without labels.

    Parameters
    ----------
    func : LabelledFunction
    dims : list of (list of hashable)
        Dimensions of the data, for each output.
    """

    def __init__(self, func: Callable[..., Any], dims: list[list[Hashable]]) -> None:
        self._func, self._dims = func, dims

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._func(*args, **kwargs)
        if isinstance(result, tuple):
            return tuple(map(_result_data, result, self._dims))
        return _result_data(result, self._dims[0])


def _result_data(box: Any, dims: list[Hashable]) -> Any:
    """Data of a boxed result, with its axes in the order of `dims`."""
    result = box.value if isinstance(box, Boxed) else box.flat[0].value  # of a block
    if set(result.dims) != set(dims):
        raise ValueError(
            f"func returned a DataArray with dimensions {listed(result.dims)}, but output_core_dims says {listed(dims)}"
        )
    data = result.data if isinstance(result, BareResult) else result.to_numpy()
    return data.transpose([result.dims.index(name) for name in dims]) if dims else data[()]
