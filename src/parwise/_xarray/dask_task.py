"""The part of a map that one Dask task computes, by a serial loop."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np

from .._core.call import Block, Told
from .._core.inputs.source import plain_array
from .._core.random import RandomStreams, make_random_streams
from .labels import MappedArrays, listed
from .request import Request, common_axes, run
from .slices import BareResult, Boxed, LabelledFunction, SliceTemplate

#: Options of a call within a Dask task. Dask decides where the task runs, and what happens if it is lost.
SERIAL = {"executor": "serial", "isolate": False, "timeout": None, "retries": 0, "verify": False, "progress": None}


def serial_options(request: Request) -> dict[str, Any]:
    """Options of the calls within Dask tasks."""
    options = {**request.options, **SERIAL}
    setup = options.get("setup")
    return options if setup is None else {**options, "setup": _Setup(setup, uuid.uuid4().hex)}


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
        self._request = replace(request, rng=None, options=serial_options(request), chunk=None, depth=0, boundary=None)

    def __call__(self, *args: Any) -> Any:
        """Call an element function for one chunk; `args` are data of arrays, then indices along mapped dimensions."""
        depth = len(self._labels.dims)
        arrays, indices = [plain_array(one, "a block of Dask's", one.dtype) for one in args[:-depth]], args[-depth:]
        grid = tuple(max(one.shape[k] for one in arrays) for k in range(depth))
        starts = tuple(int(one.flat[0]) if one.size else 0 for one in indices)
        labels = self._labels.subset(starts, grid)
        numbers = np.zeros(grid, np.int64)
        for one, length in zip(indices, self._labels.lengths, strict=True):
            numbers = numbers * length + one
        axes = tuple(range(depth))
        result = run(self._request, [*arrays, numbers], axes, lambda: labels, func=self._func, told=self._told)
        results = self._as_declared(result, [(*grid, *one) for one in self.shapes], depth)
        return tuple(results) if len(results) > 1 else results[0]

    def compute_block(self, axis: int, number: int, block: Block, *args: Any) -> Any:
        """Call a block function for block `number`, whose data has a halo, and cut the halo off its result."""
        func = self._func
        if self._streams is not None:
            func = functools.partial(func, rng=self._streams.one(number))
        arrays = [plain_array(one, "a block of Dask's", one.dtype) for one in args]
        lo, hi = max(block.first, 0), min(block.last, self._labels.lengths[0])
        labels = self._labels.subset((lo,), (hi - lo,))
        request = replace(self._request, chunk=max(1, block.last - block.first))
        if self._request.as_xarray:
            arrays.append(np.arange(lo, hi).reshape((1,) * axis + (-1,)))
        result = run(request, arrays, (axis,), lambda: labels, func=func, told=self._told)
        length = arrays[0].shape[axis]
        results = self._as_declared(result, [(*one[:axis], length, *one[axis:]) for one in self.shapes])
        key = (slice(None),) * axis + (slice(block.start - block.first, block.stop - block.first),)
        results = [one[key] for one in results]
        return results if self.in_tuple else results[0]

    def _told(self) -> Told:
        return Told(self.shapes, self.dtypes, self.in_tuple)

    def _as_declared(self, result: Any, shapes: list[tuple[int, ...]], depth: int = 0) -> list[np.ndarray]:
        """The data of each output, cast to its dtype; raise an error if it is not what the lazy arrays say.

        The first `depth` axes count elements.
        """
        columns = result if isinstance(result, tuple) else (result,)
        if isinstance(result, tuple) != self.in_tuple or len(columns) != len(shapes):
            raise ValueError(
                f"output_dtypes and output_core_dims tell of {_counted(len(shapes), self.in_tuple)}, "
                f"but func returned {_counted(len(columns), isinstance(result, tuple))}"
            )
        for one, shape, dtype in zip(columns, shapes, self.dtypes, strict=True):
            if one.shape != shape:
                raise ValueError(
                    f"func gave results of shape {one.shape[depth:]}, but the array's dimensions, output_core_dims "
                    f"and output_sizes tell of {shape[depth:]}"
                )
            if not np.can_cast(one.dtype, dtype, "same_kind"):
                raise TypeError(
                    f"output_dtypes says {dtype}, but func gave results of dtype {one.dtype}, "
                    "which same_kind casting does not allow"
                )
        return [one.astype(dtype, copy=False) for one, dtype in zip(columns, self.dtypes, strict=True)]


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
    return data.transpose([result.dims.index(name) for name in dims]) if dims else data[()]
