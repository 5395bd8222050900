"""Maps over Dask arrays: the graph of Dask tasks, made without a call of the function on made-up data."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from operator import getitem
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.blockwise import blockwise
from dask.delayed import unpack_collections
from dask.highlevelgraph import HighLevelGraph
from dask.layers import ArrayBlockwiseDep
from dask.utils import funcname

from ..._api.apply import plan
from ..._core.arguments import check_no_blocks
from ..file_arrays import transposed_data
from ..labels import MappedArrays, listed
from ..request import Request, common_axes, core_dims_per_output, core_shape, outputs_told, transposed_arrays
from .blocks import in_blocks
from .dtypes import declared_dtypes, strings_of_one_length
from .shared import shared
from .task import BlockMap, ChunkMap, SerialMap

_KEPT_OPTIONS = ("errors", "setup")
_PAD_MODES = {"nearest": "edge", "periodic": "wrap"}


def map_dask(mapped: MappedArrays, request: Request) -> Any:
    """Map over DataArrays, at least one of which holds a Dask array."""
    check_options(request)
    if request.vectorized and len(mapped.dims) > 1:
        raise ValueError(
            f"blocks along several dimensions, {listed(mapped.dims)}, are for data that is not in Dask's blocks: map "
            "over array.load(), or open the file without Dask (chunks=None); or use dask.array.map_overlap"
        )
    core_dims, dtypes, in_tuple = _describe_outputs(mapped, request)
    shapes = [core_shape(mapped, request, one) for one in core_dims]
    axis = common_axes(mapped, True)[0] if request.vectorized else 0
    for one in core_dims:
        if len(one) < axis:
            raise ValueError(
                f"a block function must keep the mapped axis {axis}, but by output_core_dims its result has "
                f"{len(one) + 1} dimension(s); put that dimension first: array.transpose({mapped.dims[0]!r}, ...)"
            )
    map_lazily = _map_blocks if request.vectorized else _map_elements
    arrays = map_lazily(mapped, request, axis, (core_dims, shapes, dtypes, in_tuple))
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
            f"option(s) {listed(others)} have no effect on data in Dask's blocks, where Dask's scheduler "
            "decides; leave them out, or map over array.load()"
        )


def _describe_outputs(mapped: MappedArrays, request: Request) -> tuple[list[Any], list[Any], bool]:
    """Core dimensions and dtype of each output; and True if the function returns a tuple."""
    count, in_tuple = outputs_told(request)
    outputs = core_dims_per_output(request, count)
    if request.output_core_dims is None:
        if mapped.slice_dims and not request.vectorized:
            raise ValueError(
                "the data is in Dask's blocks, and slices have dimensions: pass those of func's results, "
                f"output_core_dims=[] for scalars, output_core_dims={list(mapped.slice_dims)!r} for arrays "
                "like the slices"
            )
        outputs = [list(mapped.slice_dims)] * count
    return outputs, declared_dtypes(request, count), in_tuple


def _map_elements(mapped: MappedArrays, request: Request, axis: int, described: tuple[Any, ...]) -> list[Any]:
    """Map an element function: one Dask task for each chunk of the mapped dimensions."""
    check_no_blocks(request.chunk, request.depth, request.boundary, mapped.dims)
    depth = len(mapped.dims)
    labels = _axis_labels(mapped)
    arrays = _as_dask([transposed_data(one, tuple(range(one.ndim)), mapped.dims) for one in mapped.arrays], labels)
    _, arrays = _unify(zip(arrays, labels, strict=True))
    for one, array in zip(mapped.arrays, arrays, strict=True):
        for dim, chunks in zip(one.dims, array.chunks, strict=True):
            if dim not in mapped.dims and len(chunks) > 1:
                raise ValueError(
                    f"func needs all of {dim!r} at once, which is in {len(chunks)} chunks of Dask; rechunk first: "
                    f"array.chunk({{{dim!r}: -1}})"
                )
    chunks = {label: chunks for label, chunks in zip(labels[0], arrays[0].chunks, strict=True) if label < depth}
    task = ChunkMap(mapped, request, *described, chunks=[chunks[label] for label in sorted(chunks)])
    return _blockwise(task, axis, chunks, arrays, labels)


def _as_dask(arrays: list[Any], labels: list[tuple[int, ...]]) -> list[Any]:
    """The arrays, and as Dask arrays those that are not, in the chunks of the others along mapped dimensions.

    Left to itself Dask cuts what is large along all dimensions, and cannot do so with objects, whose size it cannot
    tell.
    """
    cut, _ = _unify(pair for pair in zip(arrays, labels, strict=True) if isinstance(pair[0], da.Array))
    made = []
    for one, label in zip(arrays, labels, strict=True):
        if not isinstance(one, da.Array):
            meta = np.empty((0,) * len(label), one.dtype)  # Dask would read some of a file
            one = da.from_array(one, tuple(map(cut.get, label, one.shape)), getitem=da.core.getter_inline, meta=meta)
        made.append(one)
    return made


def _unify(pairs: Iterable[tuple[Any, tuple[int, ...]]]) -> tuple[dict[int, tuple[int, ...]], list[Any]]:
    """The common chunks by label, and the arrays in these."""
    chunks, arrays = da.core.unify_chunks(*itertools.chain.from_iterable(pairs))
    return chunks, arrays


def _axis_labels(mapped: MappedArrays) -> list[tuple[int, ...]]:
    """Labels of the axes of each array, as `dask.array.blockwise` has them: mapped dimensions have the first ones."""
    new = itertools.count(len(mapped.dims))
    return [
        tuple(mapped.dims.index(dim) if dim in mapped.dims else next(new) for dim in one.dims) for one in mapped.arrays
    ]


def _blockwise(
    task: SerialMap, axis: int, chunks: dict[int, tuple[int, ...]], arrays: list[Any], labels: list[tuple[int, ...]]
) -> list[Any]:
    """Call ``task(number, *blocks)`` in a layer that Dask fuses with others; return one Dask array per output.

    Mapped dimensions have the labels 0, 1, ... and, in results, `chunks`; they are at `axis` in results. All other axes
    of `arrays` are in one chunk; as Dask has it for axes without a place in the result, their blocks come in lists.
    """
    mapped = tuple(sorted(chunks))
    lead = tuple(chunks[label] for label in mapped)
    name = funcname(task.func)
    given: list[tuple[Any, Any]] = [(_ChunkNumber(lead), mapped), *zip(arrays, labels, strict=True)]
    func: Any = task
    if (held := shared(task, name)) is not task:
        func, given = _compute, [(held, None), *given]
    if not task.in_tuple:
        layers = [_layer(func, name, given, mapped, lead, axis, task.shapes[0], task.dtypes[0])]
    else:
        # An array of tuples, as far as Dask knows.
        whole = _layer(func, f"{name}-tuple", given, mapped, lead, 0, (), np.dtype(object))
        layers = [
            _layer(getitem, f"{name}-{k}", [(whole, mapped), (k, None)], mapped, lead, axis, shape, dtype)
            for k, (shape, dtype) in enumerate(zip(task.shapes, task.dtypes, strict=True))
        ]
    return [strings_of_one_length(one, dtype) for one, dtype in zip(layers, task.dtypes, strict=True)]


def _layer(
    func: Any,
    prefix: str,
    given: list[tuple[Any, tuple[int, ...] | None]],
    mapped: tuple[int, ...],
    lead: tuple[tuple[int, ...], ...],
    axis: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Any:
    """A Dask array whose chunks are results of `func`: `lead` along mapped dimensions, one along those of `shape`.

    `given` are arguments of `func` and the labels of their axes, None for what every call gets. This is what
    `dask.array.blockwise` makes, which in Dask 2024.7 takes no description of chunks (`ArrayBlockwiseDep`).
    """
    arrays: dict[str, Any] = {one.name: one for one, _ in given if isinstance(one, da.Array)}
    pairs, others = [], []
    for one, label in given:
        if label is None:
            one, found = unpack_collections(one)
            others += found
        pairs += [one.name if isinstance(one, da.Array) else one, label]
    new = {-1 - k: 1 for k in range(len(shape))}
    out = (*list(new)[:axis], *mapped, *list(new)[axis:])
    name = f"{prefix}-{tokenize(func, pairs, out, lead, shape, dtype)}"
    numblocks = {name: one.numblocks for name, one in arrays.items()}
    layer = blockwise(func, name, out, *pairs, numblocks=numblocks, new_axes=new, dependencies=others)
    graph = HighLevelGraph.from_collections(name, layer, dependencies=[*arrays.values(), *others])
    core = [(length,) for length in shape]
    chunks = (*core[:axis], *lead, *core[axis:])
    return da.Array(graph, name, chunks, meta=np.empty((0,) * len(out), dtype))


def _compute(task: SerialMap, number: int, *blocks: Any) -> Any:
    return task(number, *blocks)


class _ChunkNumber(ArrayBlockwiseDep):
    """The number of each chunk in C order: an int, with which Dask has less work than with a tuple of slices."""

    def __getitem__(self, idx: tuple[int, ...]) -> int:
        number = 0
        for at, count in zip(idx, self.numblocks, strict=True):
            number = number * count + at
        return number

    def __dask_tokenize__(self) -> Any:
        return "chunk numbers", self.chunks


def _map_blocks(mapped: MappedArrays, request: Request, axis: int, described: tuple[Any, ...]) -> list[Any]:
    """Map a block function: one Dask task for each block that `parallel_apply` would make, whatever Dask's chunks."""
    labels = _axis_labels(mapped)
    arrays = _as_dask(transposed_arrays(mapped, (axis,)), labels)
    how = {"axis": axis, "chunk": request.chunk, "depth": request.depth, "boundary": request.boundary}
    # Of arrays that take no memory: those of Dask would be computed.
    planned = plan(*(np.broadcast_to(np.empty((), one.dtype), one.shape) for one in arrays), **how)
    pad = request.depth if request.boundary is not None and mapped.lengths[0] else 0
    extents = [(block.first + pad, block.last + pad) for block in planned]
    padded = [_pad(one, axis, pad, request.boundary) if pad else one for one in arrays]
    blocks = [in_blocks(one, axis, extents) for one in padded]
    lengths = {0: tuple(block.stop - block.start for block in planned)}
    task = BlockMap(mapped, request, *described, axis=axis, blocks=[tuple(one) for one in planned])
    results = _blockwise(task, axis, lengths, blocks, labels)
    return [one.rechunk({axis: arrays[0].chunks[axis]}) for one in results]


def _pad(array: Any, axis: int, depth: int, boundary: Any) -> Any:
    """The array with the halo beyond its ends along one axis."""
    mode, value = boundary if isinstance(boundary, tuple) else (boundary, np.zeros((), array.dtype)[()])
    if mode == "constant":  # `dask.array.pad` takes bytes for numbers, and refuses text
        constant = np.empty((1,) * array.ndim, array.dtype)
        constant[...] = value
        shape = tuple(depth if k == axis else n for k, n in enumerate(array.shape))
        beyond = da.broadcast_to(da.from_array(constant, constant.shape), shape)
        return da.concatenate([beyond, array, beyond], axis)
    numpy_mode: Any = _PAD_MODES.get(mode, mode)
    if depth >= array.shape[axis]:  # `dask.array.pad` repeats an array once at most
        return da.take(array, np.pad(np.arange(array.shape[axis]), depth, numpy_mode), axis)
    widths = [(depth, depth) if k == axis else (0, 0) for k in range(array.ndim)]
    return da.pad(array, widths, mode=numpy_mode)
