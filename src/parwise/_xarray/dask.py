"""Maps over Dask arrays: the graph of Dask tasks, made without a call of the function on made-up data."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from .._api.apply import plan
from .dask_dtypes import declared_dtypes, strings_of_one_length
from .dask_task import SerialMap
from .labels import MappedArrays, listed
from .request import Request, common_axes, core_dims_per_output, core_shape, outputs_told, transposed_arrays

_KEPT_OPTIONS = ("errors", "blas_threads", "setup")
_PAD_MODES = {"nearest": "edge"}


def map_dask(mapped: MappedArrays, request: Request) -> Any:
    """Map over DataArrays, at least one of which holds a Dask array."""
    check_options(request)
    core_dims, dtypes, in_tuple = _describe_outputs(mapped, request)
    shapes = [core_shape(mapped, request, one) for one in core_dims]
    task = SerialMap(mapped, request, core_dims, shapes, dtypes, in_tuple)
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
    count, in_tuple = outputs_told(request)
    outputs = core_dims_per_output(request, count)
    if request.output_core_dims is None:
        if mapped.slice_dims and not request.vectorized:
            raise ValueError(
                "the data is in Dask's blocks: tell the dimensions of func's results, output_core_dims=[] for scalars, "
                f"output_core_dims={list(mapped.slice_dims)!r} for arrays like the slices"
            )
        outputs = [list(mapped.slice_dims)] * count
    return outputs, declared_dtypes(request, count), in_tuple


def _map_elements(task: SerialMap, mapped: MappedArrays) -> list[Any]:
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
    columns = [results] if single else list(results)
    return [strings_of_one_length([one], dtype)[0] for one, dtype in zip(columns, task.dtypes, strict=True)]


def _map_blocks(task: SerialMap, mapped: MappedArrays, request: Request, axis: int) -> list[Any]:
    """Map a block function: one Dask task for each block that `parallel_apply` would make, whatever Dask's chunks."""
    arrays = [da.asarray(one) for one in transposed_arrays(mapped, (axis,))]
    how = {"axis": axis, "chunk": request.chunk, "depth": request.depth, "boundary": request.boundary}
    # Of arrays that take no memory: those of Dask would be computed.
    blocks = plan(*(np.broadcast_to(np.empty((), one.dtype), one.shape) for one in arrays), **how)
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
    sized = (strings_of_one_length(one, dtype) for one, dtype in zip(columns, task.dtypes, strict=True))
    return [da.concatenate(one, axis=axis).rechunk(chunks) for one in sized]


def _pad(array: Any, axis: int, depth: int, boundary: Any) -> Any:
    """`dask.array.pad` by the halo along one axis."""
    mode, value = boundary if isinstance(boundary, tuple) else (boundary, np.zeros((), array.dtype)[()])
    widths = [(depth, depth) if k == axis else (0, 0) for k in range(array.ndim)]
    kwargs = {"constant_values": value} if mode == "constant" else {}
    return da.pad(array, widths, mode=_PAD_MODES.get(mode, mode), **kwargs)
