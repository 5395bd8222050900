"""Results that go to a new store of zarr, which `xarray.open_zarr` reads as the result: `out=path` of `.par.map`."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import xarray as xr
import zarr

from .._api.apply import plan
from .._api.resume.journal import Journal, sync_file, sync_folder
from .._core.options.options import resolve
from .labels import MappedArrays, listed
from .out import labelled, map_into
from .request import Request, common_axes, core_dims_per_output, core_shape, dtypes_per_output, transposed_arrays

# Bytes of a chunk, at most.
CHUNK_BYTES = 2**22
# Chunks along the first mapped dimension, at least: whole chunks count in a journal.
LEAST_CHUNKS = 16


def map_into_store(mapped: MappedArrays, request: Request, path: str) -> xr.DataArray:
    """Make the store and map into it.

    It has its name once all results are there, so that nobody reads gaps of a run that was killed as results.
    """
    if "://" in path:
        raise ValueError(f"out={path!r} must be a path on this machine; pass an array of zarr that is opened there")
    path = os.path.abspath(path)  # the function may change the working directory
    template, chunks = _template(mapped, request)
    _check_decoding(template)
    resume = resolve(request.options).resume
    work = _work_folder(path, resume)
    if os.path.exists(work):
        _check_store(work, template, chunks)
    else:
        _make(work, template, chunks)
    # zarr leaves out chunks that equal the fill value, as complex zeros do whatever their signs, and all NaNs.
    with zarr.config.set({"array.write_empty_chunks": True}):
        stored: Any = zarr.open_group(work, mode="r+")[str(template.name)]
    try:
        order = map_into(mapped, request, stored)
    except BaseException:
        if resume is None:
            shutil.rmtree(work)
        raise
    if work != path:
        os.rename(work, path)
        sync_folder(os.path.dirname(path) or ".")
    return labelled(mapped, request, zarr.open_group(path, mode="r")[str(template.name)], order)


def _template(mapped: MappedArrays, request: Request) -> tuple[xr.DataArray, tuple[int, ...]]:
    """The result without its values, which takes no memory; and the lengths of its chunks."""
    core_dims, dtype = _told(mapped, request)
    sizes = dict(zip(mapped.dims, mapped.lengths, strict=True))
    sizes |= dict(zip(core_dims, core_shape(mapped, request, core_dims), strict=True))
    order = mapped.ordered([*core_dims, *mapped.dims])
    # What a store has where nothing was written: no chunk is made.
    fill = np.array(np.nan if dtype.kind == "f" else 0, dtype)
    data = np.broadcast_to(fill, [sizes[dim] for dim in order])
    template = mapped.wrap(data, order, request.keep_attrs).drop_encoding()
    if not isinstance(template.name, str):
        raise ValueError(
            f"the name of the array is {template.name!r}, which a store cannot use for the result; pass "
            "array.rename('...')"
        )
    lengths = _chunk_lengths(mapped, request, core_dims, sizes, dtype.itemsize)
    return template, tuple(lengths[dim] for dim in order)


def _told(mapped: MappedArrays, request: Request) -> tuple[list[Hashable], np.dtype[Any]]:
    """Dimensions and dtype of results, which must be known before the first of them."""
    (core_dims,), (dtype,) = core_dims_per_output(request, 1), dtypes_per_output(request, 1)
    if core_dims is None and mapped.slice_dims and not request.vectorized:
        raise ValueError(
            "out is the path of a new store: pass the dimensions of func's results, output_core_dims=[] "
            f"for scalars, output_core_dims={list(mapped.slice_dims)!r} for arrays like the slices"
        )
    if dtype is None:
        raise ValueError("out is the path of a new store: pass output_dtypes, the dtype of func's results")
    if not dtype.isnative:
        raise ValueError(
            f"out is the path of a new store, which has native byte order, and output_dtypes says {dtype}; pass "
            f"output_dtypes={dtype.newbyteorder('=').name!r}"
        )
    if dtype.kind not in "iufc":
        raise ValueError(
            f"out is the path of a new store, in which xarray encodes results of dtype {dtype} as another "
            "dtype; pass as out an array of zarr, or output_dtypes of numbers"
        )
    return list(mapped.slice_dims) if core_dims is None else core_dims, dtype


def _check_decoding(template: xr.DataArray) -> None:
    """Raise a ValueError for attributes by which `xarray.open_zarr` would change values, as by scale_factor."""
    few = template.isel({dim: slice(0, 1) for dim in template.dims})
    for name, variable in few.to_dataset().variables.items():
        if variable.attrs and (taken := _decoded_attributes(name, variable)):
            raise ValueError(
                f"out is the path of a new store, and xarray would decode values of {name!r} by its attribute(s) "
                f"{listed(taken)} when it opens that; drop or rename them in .attrs, or decode first (xr.decode_cf)"
            )


def _decoded_attributes(name: Hashable, variable: xr.Variable) -> list[Any]:
    """Attributes that xarray takes to decode a variable, and does not keep."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how other versions decode
        try:
            ((_, decoded),) = xr.conventions.decode_cf_variables({name: variable}, {})[0].items()
        except ValueError:  # as for units that are no date
            return list(variable.attrs)
    return [key for key in variable.attrs if key not in decoded.attrs]


def _chunk_lengths(
    mapped: MappedArrays, request: Request, core_dims: list[Hashable], sizes: dict[Hashable, int], itemsize: int
) -> dict[Hashable, int]:
    """Lengths of chunks by dimension: some results each, in the order in which these come."""
    left, lengths = CHUNK_BYTES // itemsize, {}
    for dim in reversed([*mapped.dims, *core_dims]):
        lengths[dim] = max(1, min(sizes[dim], left))
        left //= lengths[dim]
    first = mapped.dims[0]
    lengths[first] = max(1, min(lengths[first], -(-sizes[first] // LEAST_CHUNKS)))
    if request.vectorized:
        lengths |= zip(mapped.dims, _block_lengths(mapped, request), strict=True)
    return lengths


def _block_lengths(mapped: MappedArrays, request: Request) -> list[int]:
    """Lengths of the first block of a block function."""
    axes = common_axes(mapped, True)
    arrays = [np.broadcast_to(np.empty((), one.dtype), one.shape) for one in transposed_arrays(mapped, axes)]
    axis = axes if len(axes) > 1 else axes[0]
    blocks = plan(*arrays, axis=axis, chunk=request.chunk, depth=request.depth, boundary=request.boundary)
    stops = blocks[0].stop if len(axes) > 1 else (blocks[0].stop,)
    if len(blocks) == 1 and stops[0] > 1 and resolve(request.options).resume is not None:
        raise ValueError(
            f"resume could keep nothing before the end: all of {mapped.dims[0]!r} is one block of "
            f"{stops[0]} elements; pass a smaller one as chunk="
        )
    return [max(1, stop) for stop in stops]


def _work_folder(path: str, resume: str | None) -> str:
    """The folder of the store while results are missing, or `path` if a run with this journal has ended.

    Raises
    ------
    FileExistsError
        If there is a store that is not known to be of this run.
    """
    lines = _journal_lines(resume)
    work = path.rstrip(os.sep) + ".partial"
    if os.path.lexists(path):
        if any(line.get("done") for line in lines):
            return path
        whose = "" if resume is None else f", and resume={resume!r} is no journal of a run that has made it"
        raise FileExistsError(f"out={path!r} exists{whose}; pass another path, or remove it")
    if os.path.lexists(work):
        if resume is None:
            raise FileExistsError(
                f"{work} is the store of a run that was killed, or is at work; wait until it has ended, or remove it"
            )
        if not lines:  # nothing in it counts
            shutil.rmtree(work)
    return work


def _journal_lines(resume: str | None) -> list[dict[str, Any]]:
    if resume is None or not os.path.isfile(resume):
        return []
    with Journal(resume) as journal:
        return journal.lines


def _make(path: str, template: xr.DataArray, chunks: tuple[int, ...]) -> None:
    """Bring coordinates and attributes to the disk, as xarray writes them, and no chunk of results."""
    encoding = {template.name: {"chunks": chunks}}
    os.makedirs(path)  # so that what is there if it fails is of this call
    try:
        with warnings.catch_warnings():
            # Consolidated metadata is no part of format 3, of which zarr warns; without it `xarray.open_zarr` warns.
            warnings.filterwarnings("ignore", "Consolidated metadata")
            template.to_dataset().to_zarr(path, mode="w-", encoding=encoding, write_empty_chunks=False)
    except BaseException:  # as for a multi-index, or a coordinate of objects
        shutil.rmtree(path)
        raise
    # A journal may soon count results in it.
    for root, _, names in os.walk(path, topdown=False):
        for name in names:
            sync_file(os.path.join(root, name))
        sync_folder(root)
    sync_folder(os.path.dirname(path) or ".")


def _changed(path: str, fresh: str, results: str) -> set[str]:
    """Variables whose files differ from those of a fresh store, in which `results` is left out."""
    names = [name for one in _files(fresh) if not (name := os.path.relpath(one, fresh)).startswith(results)]
    return {name.partition(os.sep)[0] for name in names if _read(os.path.join(path, name)) != _read(f"{fresh}/{name}")}


def _check_store(path: str, template: xr.DataArray, chunks: tuple[int, ...]) -> None:
    """Raise a ValueError if a store has other coordinates, attributes or chunks than one that was made now."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = os.path.join(folder, "store")
        _make(fresh, template, chunks)
        # Without chunks of results: xarray 2025.7 writes some, of another fill value than its own.
        changed = _changed(path, fresh, os.path.join(str(template.name), "c", ""))
    if changed:
        raise ValueError(
            f"{path} has different labels or attributes than the result of this call, in "
            f"{listed(sorted(changed))}; make the same call as then to continue it, or remove the store "
            "and the journal to start again"
        )


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _files(folder: str) -> Iterator[str]:
    for root, _, names in os.walk(folder):
        yield from (os.path.join(root, name) for name in sorted(names))
