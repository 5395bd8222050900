"""Maps over arrays in Dask's blocks: lazy as they are, without ever calling a function on made-up data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from .._api.apply import plan
from .._core.call import Block
from .._core.random import RandomStreams, make_random_streams
from .labels import Labels, MappedArrays, listed
from .request import Request, arranged, dtypes_of, names_of_columns, places_of, run, sizes_of
from .slices import BareResult, Boxed, LabelledFunction, SliceTemplate

#: Within a block of Dask's; Dask itself decides where that is, and what happens if it is lost.
SERIAL = {"executor": "serial", "isolate": False, "timeout": None, "retries": 0, "verify": False, "progress": None}
_TAKEN = ("errors", "blas_threads")
_PAD_MODES = {"nearest": "edge"}


def map_lazily(frame: MappedArrays, request: Request) -> Any:
    """Map over DataArrays, of which one at least is in Dask's blocks."""
    _check(request)
    names, dtypes, tuples = _outputs(frame, request)
    sizes = [sizes_of(frame, request, one) for one in names]
    task = _Task(frame, request, names, sizes, dtypes, tuples)
    if request.vectorized:
        (axis,) = places_of(frame, True)
        arrays = _map_blocks(task, frame, request, axis)
    else:
        axis = 0
        arrays = _map_elements(task, frame)
    made = []
    for data, one in zip(arrays, names, strict=True):
        dims = [*one[:axis], *frame.dims, *one[axis:]]
        made.append(frame.wrap(data, dims, request.keep_attrs))
    return tuple(made) if tuples else made[0]


def _check(request: Request) -> None:
    if request.output_dtypes is None:
        raise ValueError(
            "the data is in Dask's blocks, and results are not known before they are computed; pass "
            "output_dtypes=[...] (and output_core_dims, output_sizes), or map over array.load()"
        )
    check_options(request)


def check_options(request: Request) -> None:
    """Refuse options that say how a call runs where Dask does that."""
    others = [name for name in request.options if name not in _TAKEN and request.options[name] is not None]
    if others:
        raise ValueError(
            f"option(s) {listed(others)} have no meaning for data in Dask's blocks, where Dask's scheduler decides; "
            "leave them out, or map over array.load()"
        )


def _outputs(frame: MappedArrays, request: Request) -> tuple[list[Any], list[Any], bool]:
    """Of each result the names of its dimensions and its dtype; and whether they come in a tuple."""
    given, core = request.output_dtypes, request.output_core_dims
    count = len(given) if isinstance(given, list | tuple) else 1
    nested = core is not None and not isinstance(core, str) and any(isinstance(one, list | tuple) for one in core)
    names = names_of_columns(request, count)
    if core is None:
        if frame.slice_dims and not request.vectorized:
            raise ValueError(
                "the data is in Dask's blocks: tell the dimensions of func's results, output_core_dims=[] for scalars, "
                f"output_core_dims={list(frame.slice_dims)!r} for arrays like the slices"
            )
        names = [list(frame.slice_dims)] * count
    return names, dtypes_of(request, count), count > 1 or nested


def _map_elements(task: _Task, frame: MappedArrays) -> list[Any]:
    depth = len(frame.dims)
    sources = [da.asarray(one) for one in arranged(frame, tuple(range(depth)))]
    axes = [(*range(depth), *((k, d) for d in range(depth, one.ndim))) for k, one in enumerate(sources)]
    _, sources = da.core.unify_chunks(*(x for pair in zip(sources, axes, strict=True) for x in pair))
    for one, source in zip(frame.arrays, sources, strict=True):
        whole = [dim for dim in one.dims if dim not in frame.dims]
        for dim, chunks in zip(whole, source.chunks[depth:], strict=True):
            if len(chunks) > 1:
                raise ValueError(
                    f"func needs all of {dim!r} at once, which is in {len(chunks)} chunks of Dask's; "
                    f"rechunk first: array.chunk({{{dim!r}: -1}})"
                )
    # Where blocks are: a number along each mapped dimension.
    places = [
        da.arange(n, chunks=(chunks,), dtype=np.int64).reshape(n, *[1] * (depth - 1 - k))
        for k, (n, chunks) in enumerate(zip(frame.lengths, sources[0].chunks, strict=False))
    ]
    inner = [",".join(f"i{k}_{d}" for d in range(depth, one.ndim)) for k, one in enumerate(sources)]
    outer = [",".join(f"o{k}_{d}" for d in range(len(one))) for k, one in enumerate(task.sizes)]
    signature = ",".join(f"({one})" for one in inner + [""] * depth) + "->" + ",".join(f"({one})" for one in outer)
    lengths = {f"o{k}_{d}": n for k, one in enumerate(task.sizes) for d, n in enumerate(one)}
    single = len(task.sizes) == 1
    made = da.apply_gufunc(
        task,
        signature,
        *sources,
        *places,
        output_dtypes=task.dtypes[0] if single else tuple(task.dtypes),
        output_sizes=lengths,
        vectorize=False,
    )
    return [made] if single else list(made)


def _map_blocks(task: _Task, frame: MappedArrays, request: Request, axis: int) -> list[Any]:
    """One call for each block of parwise's plan, whatever Dask's blocks are."""
    sources = [da.asarray(one) for one in arranged(frame, (axis,))]
    how = {"axis": axis, "chunk": request.chunk, "depth": request.depth, "boundary": request.boundary}
    blocks = plan(*sources, **how)
    chunks = {axis: sources[0].chunks[axis]}
    pad = request.depth if request.boundary is not None else 0
    if pad:
        sources = [_padded(one, axis, pad, request.boundary) for one in sources]
    columns: list[list[Any]] = [[] for _ in task.sizes]
    for block in blocks:
        cut = (slice(None),) * axis + (slice(block.first + pad, block.last + pad),)
        done = delayed(task.block)(axis, block.start // blocks[0].stop, block, *[one[cut] for one in sources])
        for k, (sizes, dtype) in enumerate(zip(task.sizes, task.dtypes, strict=True)):
            shape = (*sizes[:axis], block.stop - block.start, *sizes[axis:])
            columns[k].append(da.from_delayed(done[k] if task.tuples else done, shape, dtype))
    return [da.concatenate(column, axis=axis).rechunk(chunks) for column in columns]


def _padded(array: Any, axis: int, depth: int, boundary: Any) -> Any:
    mode, value = boundary if isinstance(boundary, tuple) else (boundary, 0)
    widths = [(depth, depth) if k == axis else (0, 0) for k in range(array.ndim)]
    more = {"constant_values": value} if mode == "constant" else {}
    return da.pad(array, widths, mode=_PAD_MODES.get(mode, mode), **more)


class _Task:
    """The plain loop over one of Dask's blocks."""

    def __init__(
        self, frame: MappedArrays, request: Request, names: list[Any], sizes: list[Any], dtypes: list[Any], tuples: bool
    ) -> None:
        self.sizes, self.dtypes = sizes, dtypes
        self._names, self.tuples = names, tuples
        self._labels = frame.labels()
        self._streams = streams = (
            None if request.rng is None else make_random_streams(request.rng, request.func, dict(request.kwargs or {}))
        )
        self._func = func = request.func
        if request.as_xarray:
            axis = places_of(frame, True)[0] if request.vectorized else 0
            whole = [[*one[:axis], *frame.dims, *one[axis:]] if request.vectorized else one for one in names]
            views = LabelledFunction(func, [SliceTemplate(one) for one in frame.arrays], frame.dims, frame.lengths)
            self._func = func = _Plain(views, whole)
        if not request.vectorized:
            self._func = _Placed(func, len(frame.arrays), streams, request.as_xarray)
        options = {**request.options, **SERIAL}
        self._request = replace(request, rng=None, options=options, chunk=None, depth=0, boundary=None)

    def __call__(self, *given: Any) -> Any:
        """Blocks, and where they are along each mapped dimension."""
        depth = len(self._labels.dims)
        blocks, places = [np.asarray(one) for one in given[:-depth]], given[-depth:]
        grid = tuple(max(one.shape[k] for one in blocks) for k in range(depth))
        starts = tuple(int(one.flat[0]) if one.size else 0 for one in places)
        labels = self._labels.part(starts, grid)
        number = np.zeros(grid, np.int64)
        for one, length in zip(places, self._labels.lengths, strict=True):
            number = number * length + one
        out = tuple(np.empty((*grid, *one), dtype) for one, dtype in zip(self.sizes, self.dtypes, strict=True))
        result = run(
            self._request,
            [*blocks, number],
            tuple(range(depth)),
            lambda: labels,
            out=out if self.tuples else out[0],
            func=self._func,
        )
        return tuple(result) if len(out) > 1 else result[0] if self.tuples else result

    def block(self, axis: int, number: int, block: Block, *given: Any) -> Any:
        """Call a block function, and take what it gives for the block without its neighbours."""
        func = self._func
        if self._streams is not None:
            func = functools.partial(func, rng=self._streams.one(number))
        arrays = [np.asarray(one) for one in given]
        lo, hi = max(block.first, 0), min(block.last, self._labels.lengths[0])
        labels = self._labels.part((lo,), (hi - lo,))
        request = replace(self._request, chunk=max(1, block.last - block.first))
        if self._request.as_xarray:
            arrays.append(np.arange(lo, hi).reshape((1,) * axis + (-1,)))
        result = run(request, arrays, (axis,), lambda: labels, func=func)
        cut = (slice(None),) * axis + (slice(block.start - block.first, block.stop - block.first),)
        columns = result if isinstance(result, tuple) else (result,)
        made = [
            one[cut].astype(dtype, casting="same_kind", copy=False)
            for one, dtype in zip(columns, self.dtypes, strict=True)
        ]
        return made if self.tuples else made[0]


class _Placed:
    """A function that gets the number of its element, for random numbers or labels."""

    def __init__(self, func: Callable[..., Any], count: int, streams: RandomStreams | None, keep: bool) -> None:
        self._func, self._count, self._streams, self._keep = func, count, streams, keep

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Slices, their number, and what every call gets."""
        count = self._count
        if self._streams is not None:
            named["rng"] = self._streams.one(int(given[count]))
        return self._func(*given[: count + self._keep], *given[count + 1 :], **named)


class _Plain:
    """Takes the data out of labelled results."""

    def __init__(self, func: Callable[..., Any], names: list[list[Hashable]]) -> None:
        self._func, self._names = func, names

    def __call__(self, *given: Any, **named: Any) -> Any:
        """As the function does."""
        result = self._func(*given, **named)
        if isinstance(result, tuple):
            return tuple(map(_data, result, self._names))
        return _data(result, self._names[0])


def _data(box: Any, names: list[Hashable]) -> Any:
    result = box.value if isinstance(box, Boxed) else box.flat[0].value  # of a block
    if set(result.dims) != set(names):
        raise ValueError(
            f"func returned a DataArray with dimensions {listed(result.dims)}, "
            f"but output_core_dims says {listed(names)}"
        )
    data = result.data if isinstance(result, BareResult) else result.to_numpy()
    return data.transpose([result.dims.index(name) for name in names]) if names else data[()]


@dataclass(frozen=True)
class _Column:
    """What is known of one variable of a result.

    Attributes
    ----------
    name : hashable
        None for a DataArray.
    dims : list of hashable
    shape : tuple of int
    dtype : dtype
    """

    name: Hashable
    dims: list[Hashable]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def lazy_results(parts: list[Any], labels: Labels, request: Request) -> list[Any]:
    """Results of all groups, not computed yet."""
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
    serial = replace(request, rng=None, options={**request.options, **SERIAL})
    made = []
    for number, part in enumerate(parts):
        func = request.func if streams is None else functools.partial(request.func, rng=streams.one(number))
        columns = _columns(part, request)
        # Dask hands the group over with its data computed.
        done = delayed(_compute)(replace(serial, func=func), labels.part((number,), (1,)), columns, part)
        arrays = {one.name: da.from_delayed(done[k], one.shape, one.dtype) for k, one in enumerate(columns)}
        made.append(_wrapped(part, columns, arrays))
    return made


def _columns(part: Any, request: Request) -> list[_Column]:
    """The variables of a result."""
    if not isinstance(part, xr.Dataset):
        (dtype,), (names,) = dtypes_of(request, 1), names_of_columns(request, 1)
        return [_column(None, part, names, dtype, request)]
    dtypes, core = request.output_dtypes, request.output_core_dims
    if not isinstance(dtypes, Mapping):
        (dtype,) = dtypes_of(request, 1)
        dtypes = dict.fromkeys(part.data_vars, dtype)
    if not isinstance(core, Mapping):
        (names,) = names_of_columns(request, 1)
        core = {} if names is None else dict.fromkeys(dtypes, names)
    if unknown := [name for name in core if name not in dtypes]:
        raise ValueError(f"output_core_dims names variable(s) {listed(unknown)}, which output_dtypes does not")
    return [_column(name, part, core.get(name), np.dtype(dtype), request) for name, dtype in dtypes.items()]


def _column(name: Hashable, part: Any, names: Any, dtype: Any, request: Request) -> _Column:
    if names is None:
        if isinstance(part, xr.Dataset) and name not in part.data_vars:
            raise ValueError(f"the dimensions of the new variable {name!r} are not known; pass output_core_dims")
        names = part.dims if name is None else part[name].dims
    known = {**part.sizes, **(request.output_sizes or {})}
    if missing := [dim for dim in names if dim not in known]:
        raise ValueError(f"the length of dimension(s) {listed(missing)} is not known; pass output_sizes={{...}}")
    return _Column(name, list(names), tuple(int(known[dim]) for dim in names), dtype)


def _wrapped(part: Any, columns: list[_Column], arrays: dict[Hashable, Any]) -> Any:
    """A labelled result with whatever coordinates of its group still fit."""
    if not isinstance(part, xr.Dataset):
        (column,) = columns
        return MappedArrays([part], ()).wrap(arrays[None], column.dims, keep_attrs=True)
    variables = {}
    for one in columns:
        like = part[one.name] if one.name in part.data_vars else xr.DataArray(0, name=one.name)
        variables[one.name] = xr.Variable(one.dims, arrays[one.name], like.attrs)
    sizes = dict(zip((d for one in columns for d in one.dims), (n for one in columns for n in one.shape), strict=True))
    fitting = [name for name, one in part.coords.items() if all(sizes.get(d) == n for d, n in one.sizes.items())]
    whole = xr.Dataset(variables, part.drop_vars([name for name in part.coords if name not in fitting]).coords)
    whole.attrs = dict(part.attrs)
    return whole


def _compute(request: Request, labels: Labels, columns: list[_Column], part: Any) -> list[np.ndarray]:
    """In a task of Dask's: call the function on one group."""
    given = np.empty(1, object)
    given[0] = part
    (box,) = run(request, [given], (0,), lambda: labels, func=_BoxingFunction(request.func)).tolist()
    if not isinstance(box, Boxed):
        return [_gap(one) for one in columns]
    return [_data_of(box.value, one) for one in columns]


class _BoxingFunction:
    """A function whose results are kept whole."""

    def __init__(self, func: Any) -> None:
        self.__wrapped__ = func  # has the signature

    def __call__(self, *given: Any, **named: Any) -> Boxed:
        return Boxed(self.__wrapped__(*given, **named))


def _data_of(result: Any, column: _Column) -> np.ndarray:
    """What a result has for a column."""
    what = "a DataArray" if column.name is None else f"a Dataset with variable {column.name!r}"
    one = result
    if column.name is not None and isinstance(result, xr.Dataset):
        one = result.data_vars.get(column.name)
    kind = type(result).__name__
    if not isinstance(one, xr.DataArray) or (column.name is not None and one is result):
        raise TypeError(f"func was to return {what}, but it returned {kind}")
    if dict(one.sizes) != dict(zip(column.dims, column.shape, strict=True)):
        raise ValueError(
            f"func was to return {what} of sizes {dict(zip(column.dims, column.shape, strict=True))}, "
            f"but it returned one of {dict(one.sizes)}"
        )
    return one.transpose(*column.dims).to_numpy().astype(column.dtype, casting="same_kind", copy=False)


def _gap(column: _Column) -> np.ndarray:
    if column.dtype.kind not in "fcmMO":
        raise ValueError(
            f"dtype {column.dtype} has no value for a gap, as errors='ignore' needs one; "
            "pass output_dtypes of floats, or errors='raise'"
        )
    return np.full(column.shape, np.datetime64("NaT") if column.dtype.kind in "mM" else np.nan).astype(column.dtype)
