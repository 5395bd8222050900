"""The part of a map that one Dask task computes, by a serial loop."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from ..._core.call import Block, Told
from ..._core.inputs.foreign import plain_array
from ..._core.inputs.random import RandomStreams, make_random_streams
from ..._core.options.options import resolve
from ..file_arrays import moveaxis_order
from ..labels import Labels, MappedArrays, listed
from ..request import Request, as_told, run
from ..slices import BareResult, Boxed, LabelledFunction, ObjectsFunction, SliceTemplate, unboxed

#: Options of a call within a Dask task. Dask decides where the task runs, and what happens if it is lost.
SERIAL = {"executor": "serial", "isolate": False, "timeout": None, "retries": 0, "verify": False, "progress": False}


def serial_options(request: Request) -> dict[str, Any]:
    """Options of the calls within Dask tasks.

    What `parwise.options` sets for the map holds wherever and whenever Dask computes it, and nothing that it sets then.
    """
    settings = resolve(request.options)
    setup = None if settings.setup is None else _Setup(settings.setup, uuid.uuid4().hex)
    return {**SERIAL, "errors": settings.errors, "setup": setup}


class _Setup:
    """A function given as `setup`: one object in each process, which calls it once, though each task brings it."""

    def __init__(self, setup: Callable[[], object], token: str) -> None:
        self._setup = setup
        self._token = token

    def __call__(self) -> None:
        self._setup()

    def __reduce__(self) -> tuple[Any, ...]:
        return _setup_of, (self._setup, self._token)


_setups: dict[str, _Setup] = {}


def _setup_of(setup: Callable[[], object], token: str) -> _Setup:
    if len(_setups) > 100:  # each map brings one
        _setups.clear()
    return _setups.setdefault(token, _Setup(setup, token))


class SerialMap:
    """A map over some of the elements, run serially within one Dask task.

    Parameters
    ----------
    core_dims, shapes, dtypes : list
        Dimensions of one result, their lengths and its dtype, for each output.
    in_tuple : bool
        True if the function returns a tuple.
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
        self.func, self.shapes, self.dtypes, self.in_tuple = request.func, shapes, dtypes, in_tuple
        self._labels = mapped.labels()
        self._streams = (
            None if request.rng is None else make_random_streams(request.rng, request.func, dict(request.kwargs or {}))
        )
        self._mapped_func = self._of_data(mapped, request, core_dims) if request.as_xarray else request.func
        self._request = replace(request, rng=None, options=serial_options(request), chunk=None, depth=0, boundary=None)

    def _of_data(self, mapped: MappedArrays, request: Request, dims: list[Any]) -> Callable[..., Any]:
        """The function, as one of unlabelled data; `dims` are those of each output."""
        templates = [SliceTemplate(one) for one in mapped.arrays]
        return _DataFunction(LabelledFunction(request.func, templates, mapped.dims, mapped.lengths), dims)

    def __call__(self, number: int, *blocks: Any) -> Any:
        """Compute part `number` of the map, from the blocks of its arrays."""
        raise NotImplementedError

    def _told(self) -> Told:
        return Told(self.shapes, self.dtypes, self.in_tuple)

    def _as_declared(
        self, result: Any, shapes: list[tuple[int, ...]], where: tuple[slice, ...], keep: tuple[slice, ...] = ()
    ) -> Any:
        """The `keep` part of the data, cast to its dtype; raise an error if results are not what the lazy arrays say.

        Data of a function that returns a tuple is a list.
        """
        columns = result if isinstance(result, tuple) else (result,)
        try:
            if isinstance(result, tuple) != self.in_tuple or len(columns) != len(shapes):
                raise ValueError(
                    f"output_dtypes and output_core_dims are for {_counted(len(shapes), self.in_tuple)}, but func "
                    f"returned {_counted(len(columns), isinstance(result, tuple))}; name as many as func returns"
                )
            for one, shape in zip(columns, shapes, strict=True):
                self._check_shape(one.shape, shape, len(where))
            data = [as_told(unboxed(one), dtype)[keep] for one, dtype in zip(columns, self.dtypes, strict=True)]
        except (TypeError, ValueError) as error:
            parts = ", ".join(
                f"{dim}={one.start}:{one.stop}" for dim, one in zip(self._labels.dims, where, strict=True)
            )
            error.add_note(f"in the part with indices {parts}")
            raise
        return data if self.in_tuple else data[0]

    def _check_shape(self, found: tuple[int, ...], told: tuple[int, ...], depth: int) -> None:
        """Raise a ValueError for results of another shape; for an element function `depth` axes count elements."""
        first = 0 if self._request.vectorized else depth
        if found != told:
            raise ValueError(
                f"func returned results of shape {found[first:]}, but by the array's dimensions, "
                f"output_core_dims and output_sizes they have shape {told[first:]}; correct these, or func"
            )


class ChunkMap(SerialMap):
    """Maps an element function; one Dask task has the elements of one chunk."""

    def __init__(self, mapped: MappedArrays, request: Request, *described: Any, chunks: list[tuple[int, ...]]) -> None:
        super().__init__(mapped, request, *described)
        self._bounds = [list(accumulate(one, initial=0)) for one in chunks]
        lead = range(len(mapped.dims))
        self._orders = [
            moveaxis_order(one.ndim, [one.get_axis_num(dim) for dim in mapped.dims], lead) for one in mapped.arrays
        ]
        if object in self.dtypes:
            self._mapped_func = ObjectsFunction(self._mapped_func, self.dtypes)
        self._numbered = self._streams is not None or request.as_xarray
        if self._numbered:
            count = len(mapped.arrays)
            self._mapped_func = _NumberedFunction(self._mapped_func, count, self._streams, request.as_xarray)

    def _where(self, number: int) -> tuple[slice, ...]:
        """The indices of chunk `number`, in C order, along each mapped dimension."""
        where: list[slice] = []
        for bounds in reversed(self._bounds):
            number, at = divmod(number, len(bounds) - 1)
            where.append(slice(bounds[at], bounds[at + 1]))
        return tuple(reversed(where))

    def __call__(self, number: int, *blocks: Any) -> Any:
        """Call the function for each element of a chunk."""
        where = self._where(number)
        starts, grid = tuple(one.start for one in where), tuple(one.stop - one.start for one in where)
        depth = len(grid)
        # Contiguous, as one element is that Dask reads alone; and the function may write to its copy.
        arrays = [
            np.require(_plain(one).transpose(order), requirements=("C", "W"))
            for one, order in zip(blocks, self._orders, strict=True)
        ]
        for one in arrays:
            _check_lengths(one.shape[:depth], grid)
        if self._numbered:
            arrays.append(_numbers(starts, grid, self._labels.lengths))

        def labels() -> Labels:
            return self._labels.subset(starts, grid)

        result = run(self._request, arrays, tuple(range(depth)), labels, func=self._mapped_func, told=self._told)
        return self._as_declared(result, [(*grid, *one) for one in self.shapes], where)


class BlockMap(SerialMap):
    """Maps a block function; one Dask task has one of its blocks, all of which are along `axis`.

    Each of `blocks` has the numbers of a `Block`, in a plain tuple, which takes a fifth of the time to pickle.
    """

    def __init__(
        self,
        mapped: MappedArrays,
        request: Request,
        *described: Any,
        axis: int,
        blocks: list[tuple[int, ...]],
    ) -> None:
        self._axis, self._blocks = axis, blocks
        super().__init__(mapped, request, *described)

    def _of_data(self, mapped: MappedArrays, request: Request, dims: list[Any]) -> Callable[..., Any]:
        axis = self._axis
        return super()._of_data(mapped, request, [[*one[:axis], *mapped.dims, *one[axis:]] for one in dims])

    def __call__(self, number: int, *blocks: Any) -> Any:
        """Call the function for a block, whose data has a halo, and cut the halo off its result."""
        block, axis, func = Block(*self._blocks[number]), self._axis, self._mapped_func
        if self._streams is not None:
            func = functools.partial(func, rng=self._streams.one(number))
        length = block.last - block.first
        arrays = [np.require(_plain(one), requirements="W") for one in blocks]
        for one in arrays:
            _check_lengths(one.shape[axis : axis + 1], (length,))
        lo, hi = max(block.first, 0), min(block.last, self._labels.lengths[0])
        if self._request.as_xarray:
            arrays.append(np.arange(lo, hi).reshape((1,) * axis + (-1,)))

        def labels() -> Labels:
            return self._labels.subset((lo,), (hi - lo,))

        result = run(self._request, arrays, (axis,), labels, func=func, chunk=max(1, length), told=self._told)
        keep = (slice(None),) * axis + (slice(block.start - block.first, block.stop - block.first),)
        shapes = [(*one[:axis], length, *one[axis:]) for one in self.shapes]
        return self._as_declared(result, shapes, (slice(block.start, block.stop),), keep)


def _plain(block: Any) -> np.ndarray:
    """A block of Dask's; one along axes that the result lacks is in lists."""
    while isinstance(block, list):
        (block,) = block
    return plain_array(block, "a block of Dask's", getattr(block, "dtype", object))


def _check_lengths(found: tuple[int, ...], told: tuple[int, ...]) -> None:
    """Raise a ValueError if a block has not the lengths that the chunks of its array tell."""
    if found != told:
        raise ValueError(
            f"a block of Dask has length(s) {found} along the mapped dimensions, but the array's chunks "
            f"say {told}; make the array with its true chunks"
        )


def _numbers(starts: tuple[int, ...], grid: tuple[int, ...], lengths: tuple[int, ...]) -> np.ndarray:
    """The number of each element of a chunk, in the whole map."""
    numbers = np.zeros(grid, np.int64)
    for axis, (start, count, length) in enumerate(zip(starts, grid, lengths, strict=True)):
        indices = np.arange(start, start + count, dtype=np.int64)
        numbers = numbers * length + indices.reshape(-1, *[1] * (len(grid) - 1 - axis))
    return numbers


def _counted(count: int, in_tuple: bool) -> str:
    return f"{count} result(s) in a tuple" if in_tuple else "one result"


class _NumberedFunction:
    """A function whose call also gets the number of the element, which selects its random generator.

    The number follows the slices of `count` arrays. If `keep` is True, it is handed on to `func`, a `LabelledFunction`.
    """

    def __init__(self, func: Callable[..., Any], count: int, streams: RandomStreams | None, keep: bool) -> None:
        self._func, self._count, self._streams, self._keep = func, count, streams, keep

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        count = self._count
        if self._streams is not None:
            kwargs["rng"] = self._streams.one(int(args[count]))
        return self._func(*args[: count + self._keep], *args[count + 1 :], **kwargs)


class _DataFunction:
    """A `LabelledFunction` that returns the data of its results, without labels; `dims` has one list per output."""

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
    if dims:
        return data.transpose([result.dims.index(name) for name in dims])
    # Of bare objects NumPy would find a dtype, by those in the chunk.
    return Boxed(data[()]) if data.dtype == object else data
