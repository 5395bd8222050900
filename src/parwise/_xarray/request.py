"""A request: the checked arguments of one map, whatever the arrays; and the call that it makes with them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import xarray as xr

from .._api.run import compute
from .._core.arguments import make_call
from .._core.call import Told
from .._core.inputs.blocks import per_axis
from .._core.options.keywords import show_keywords
from .._core.options.number_checks import is_int
from .._core.options.options import Options, resolve
from .._core.outputs.casts import loss_by_cast
from .._core.results import Form
from .._system.limits import available_memory
from .file_arrays import moveaxis_order, transposed_data
from .labels import LabelNaming, Labels, MappedArrays, checked_dims, listed
from .slices import ConvertingFunction
from .variables import labelled, variable_of


@dataclass(frozen=True)
class Request:
    """The checked arguments of one map, without the arrays: those of `parallel_apply` and `How`.

    The mapped dimensions are `dims`; `options` are by name, as in `parwise.Options`. `variable` is the name of the one
    that is mapped, of a Dataset.
    """

    func: Callable[..., Any]
    dims: tuple[Hashable, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    vectorized: bool = False
    chunk: Any = None
    depth: Any = 0
    boundary: Any = None
    out: Any = None
    rng: Any = None
    output_core_dims: Any = None
    output_dtypes: Any = None
    output_sizes: Mapping[Hashable, int] | None = None
    keep_attrs: Any = True
    as_xarray: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    variable: Hashable = None


class How(Options, total=False):
    """Keyword arguments of the `map` methods: these, and those of `parwise.Options`, without `resume`.

    Attributes
    ----------
    args, kwargs, vectorized, chunk, depth, boundary, rng : optional
        As in `parwise.parallel_apply`, with dicts by dimension. If `rng` is an int, all variables of a
        Dataset get the same generators.
    output_core_dims, output_dtypes : optional
        As in `parwise.xarray.DataArrayMaps.map`. For groups of a Dataset, a dict by variable.
    output_sizes, keep_attrs, as_xarray : optional
        As in `parwise.xarray.DataArrayMaps.map`.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None
    vectorized: bool
    chunk: int | tuple[int | None, ...] | Mapping[Hashable, int] | None
    depth: int | tuple[int, ...] | Mapping[Hashable, int]
    boundary: Any
    rng: Any
    output_core_dims: Any
    output_dtypes: Any
    output_sizes: Mapping[Hashable, int] | None
    keep_attrs: bool | str
    as_xarray: bool


_DEFAULTS = {one.name: one.default for one in fields(Request)}
#: Decorators of methods that take ``**how``, alone or with other names.
show_how = show_keywords(How, Options, defaults=_DEFAULTS, without=("resume",))  # which needs an `out`
show_how_and_more = show_keywords(How, Options, defaults=_DEFAULTS, without=("resume",), keep=True)
#: Names of ways to combine attributes, as xarray has them.
_KEEP_ATTRS = ("drop", "identical", "no_conflicts", "drop_conflicts", "override")
#: Names of all keyword arguments in `How`, and that of `out`, which is refused by name.
HOW = frozenset(How.__annotations__) | frozenset(Options.__annotations__) | {"out"}


def make_request(func: Any, dim: Any, **how: Any) -> Request:
    """Check all arguments that can be checked without the arrays; raise TypeError or ValueError for a wrong one."""
    if not callable(func):
        raise TypeError(f"func must be callable, got {type(func).__name__}; the function comes first")
    own = {one.name for one in fields(Request)} - {"func", "dims", "options"}
    options = {name: value for name, value in how.items() if name not in own}
    names = (*How.__annotations__, "out") if "out" in how else How.__annotations__
    settings = resolve(options, func, names)
    if settings.resume is not None and how.get("out") is None:
        raise ValueError(
            f"resume={settings.resume!r} needs an array in files where results are kept: pass out=, an array "
            "(np.memmap, zarr, h5py) or the path of a new store of zarr, to .par.map of a DataArray, which must not be "
            "in Dask's blocks"
        )
    request = Request(func, checked_dims(dim), **{name: how[name] for name in how if name in own}, options=options)
    if not isinstance(request.as_xarray, bool):
        raise TypeError(f"as_xarray must be a bool, got {request.as_xarray!r}")
    if not isinstance(request.output_sizes, Mapping | None):
        raise TypeError(f"output_sizes must be a dict of lengths by dimension, got {request.output_sizes!r}")
    if not (isinstance(request.keep_attrs, bool) or callable(request.keep_attrs) or request.keep_attrs in _KEEP_ATTRS):
        raise ValueError(
            f"keep_attrs must be a bool, a function, or one of {listed(_KEEP_ATTRS)}, got {request.keep_attrs!r}"
        )
    if request.as_xarray and request.vectorized and (request.depth or request.boundary or settings.ignore):
        raise ValueError(
            "blocks of DataArrays (vectorized=True, as_xarray=True) cannot have a halo or gaps; leave "
            "out depth, boundary and errors='ignore', or as_xarray"
        )
    if request.as_xarray and request.vectorized and len(request.dims) > 1:
        raise ValueError(
            f"blocks of DataArrays (as_xarray=True) are along one dimension, got {request.dims}; leave as_xarray out"
        )
    return _in_order(request)


def _in_order(request: Request) -> Request:
    """The request with `chunk`, `depth` and `boundary` in the order of the mapped dimensions, or alone for one."""

    def ordered(name: str, missing: Any) -> Any:
        given = getattr(request, name)
        if not (isinstance(given, Mapping) or (isinstance(given, tuple) and len(given) == len(request.dims) == 1)):
            return given
        values = tuple(per_axis(name, given, request.dims, missing))
        return values if len(values) > 1 else values[0]

    return replace(request, chunk=ordered("chunk", None), depth=ordered("depth", 0), boundary=ordered("boundary", None))


def check_no_out(request: Request, what: str) -> None:
    """Raise a ValueError if there is an `out`; `what` has none."""
    if request.out is not None:
        raise ValueError(
            f"out= (and resume=) are for .par.map of a DataArray, not for {what}; map one variable at a time, each "
            "with an out of its own, or write the result by to_zarr"
        )


def common_axes(mapped: MappedArrays, vectorized: bool) -> tuple[int, ...]:
    """Axes that can hold the mapped dimensions in all arrays.

    These are the axes of the first array, unless another array has too few dimensions: then they are the first axes.
    A block function (`vectorized`) needs the same axis in all arrays; raise a ValueError if one differs.
    """
    first, *others = (tuple(one.get_axis_num(dim) for dim in mapped.dims) for one in mapped.arrays)
    if vectorized:
        for number, axes in enumerate(others):
            if axes != first:
                dim, own, at = next(one for one in zip(mapped.dims, axes, first, strict=True) if one[1] != one[2])
                raise ValueError(
                    f"{dim!r} is axis {own} of other {number} and axis {at} of the array; "
                    "a block function needs it in one place: transpose one of them"
                )
        return first
    if all(one.ndim > max(first) for one in mapped.arrays[1:]):
        return first
    return tuple(range(len(first)))


def transposed_arrays(mapped: MappedArrays, axes: tuple[int, ...]) -> list[Any]:
    """Data of the arrays, as views whose mapped dimensions are at `axes`."""
    return [
        transposed_data(
            one, moveaxis_order(one.ndim, [one.get_axis_num(dim) for dim in mapped.dims], axes), mapped.dims
        )
        for one in mapped.arrays
    ]


def run(
    request: Request,
    arrays: list[Any],
    axes: tuple[int, ...],
    labels: Callable[[], Labels],
    func: Any = None,
    chunk: int | None = None,
    transfer_seconds: Callable[[], float] = float,
    form: Form = "arrays",
    told: Callable[[], Told] | None = None,
    out: Any = None,
) -> Any:
    """Call `parallel_apply`; its errors then name labels.

    Parameters
    ----------
    labels : callable
        Returns the `Labels` of the elements. Called only for an error.
    func : callable, optional
        Function to call in place of the request's.
    chunk : int, optional
        Elements per block, in place of the request's.
    transfer_seconds : callable, optional
        Returns the estimated seconds to send one element to a worker and its result back, if that takes more than
        copying arrays.
    told : callable, optional
        Returns what the request tells of results.
    out : array, optional
        Where results go, with its axes as `parallel_apply` makes them.
    """
    called = func.__wrapped__ if isinstance(func, ConvertingFunction) else func
    call = make_call(
        func or request.func,
        tuple(arrays),
        axis=axes if len(axes) > 1 else axes[0],
        args=request.args,
        kwargs=request.kwargs,
        vectorized=request.vectorized,
        chunk=chunk or request.chunk,
        depth=request.depth,
        boundary=request.boundary,
        out=out,
        rng=request.rng,
        settings=resolve(request.options),
        form=form,
        transfer_seconds=transfer_seconds,
        naming=LabelNaming(labels, plain=called is None or called is request.func, variable=request.variable),
        told=told,
        memory=available_memory,
    )
    return compute(call)


def outputs_told(request: Request) -> tuple[int, bool]:
    """The number of outputs, by the request; and True if the function returns a tuple."""
    dtypes, core_dims = request.output_dtypes, _given_core_dims(request)
    nested = core_dims is not None and any(isinstance(one, list | tuple) for one in core_dims)
    count = len(dtypes) if isinstance(dtypes, list | tuple) else len(core_dims) if nested else 1
    return count, count > 1 or nested


def told_results(mapped: MappedArrays, request: Request) -> Told:
    """What the request tells of results; raise a ValueError if that is not enough to know their shapes."""
    count, in_tuple = outputs_told(request)
    unknown = mapped.slice_shape if request.vectorized else ()
    shapes = [
        unknown if one is None else core_shape(mapped, request, one) for one in core_dims_per_output(request, count)
    ]
    return Told(shapes, dtypes_per_output(request, count), in_tuple)


def check_told(request: Request) -> None:
    """Raise an error if what the request tells of results is wrong in itself, or has no value for gaps there may be."""
    count, _ = outputs_told(request)
    core_dims_per_output(request, count)
    if request.output_dtypes is None or not resolve(request.options).ignore:
        return
    for dtype in dtypes_per_output(request, count):
        if dtype.kind not in "fcmMO":
            raise ValueError(
                f"dtype {dtype} has no value for a gap, as errors='ignore' may need one; "
                "pass output_dtypes of floats, dates or objects, or errors='raise'"
            )


def core_shape(mapped: MappedArrays, request: Request, core_dims: Sequence[Hashable]) -> tuple[int, ...]:
    """Lengths of the dimensions of a result; raise a ValueError for one that only the result can tell."""
    known = {**dict(zip(mapped.slice_dims, mapped.slice_shape, strict=True)), **(request.output_sizes or {})}
    for name in core_dims:
        if name not in known:
            raise ValueError(
                f"the length of the new dimension {name!r} is not known before func is called; "
                f"pass output_sizes={{{name!r}: ...}}"
            )
    return tuple(_length(name, known[name]) for name in core_dims)


def _length(name: Hashable, given: Any) -> int:
    if not is_int(given) or given < 0:
        raise ValueError(f"output_sizes must have an int from 0 on for each dimension, got {given!r} for {name!r}")
    return int(given)


def as_told(data: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Results as the dtype that `output_dtypes` has for them; raise an error if they do not fit it."""
    if not np.can_cast(data.dtype, dtype, "same_kind"):
        raise TypeError(
            f"output_dtypes says {dtype}, but func returned results of dtype {data.dtype}, which "
            "same_kind casting does not allow; pass the dtype that func returns, or cast in func"
        )
    if loss := loss_by_cast(data, dtype):
        raise ValueError(
            f"output_dtypes says {dtype}, but func returned {loss.words}; pass output_dtypes={loss.dtype!r}, or "
            "cast in func"
        )
    return data.astype(dtype, copy=False)


def with_dtype(result: xr.DataArray, dtype: np.dtype[Any]) -> xr.DataArray:
    """A labelled result as the dtype that `output_dtypes` has for it."""
    if result.dtype == dtype:
        return result
    data = as_told(result.to_numpy(), dtype)
    return labelled(variable_of(result.dims, data, result.attrs, result.encoding), result.coords, result.name)


def check_dims(request: Request, sizes: Mapping[Hashable, int], core_dims: Sequence[Hashable] | None) -> None:
    """Raise a ValueError if a labelled result, whose dimensions have these sizes, is not as it was told."""
    if core_dims is not None and set(core_dims) != set(sizes):
        raise ValueError(
            f"output_core_dims names {len(core_dims)} dimension(s), {listed(core_dims)}, but func returns "
            f"results with the dimension(s) {listed(sizes)}; pass one name for each dimension"
        )
    check_lengths(request, sizes)


def check_lengths(request: Request, sizes: Mapping[Hashable, int]) -> None:
    """Raise a ValueError if dimensions of a result have other lengths than `output_sizes` says."""
    told = request.output_sizes or {}
    for name, length in sizes.items():
        if told.get(name, length) != length:
            raise ValueError(
                f"output_sizes says {told[name]} for {name!r}, but func returns results of shape "
                f"{tuple(sizes.values())}; correct one of them"
            )


def core_dims_per_output(request: Request, count: int) -> list[Any]:
    """`output_core_dims` as one list of names for each of `count` outputs, or None for each."""
    given = _given_core_dims(request)
    if given is None:
        return [None] * count
    outputs = [list(one) if isinstance(one, list | tuple) else one for one in given]
    nested = [isinstance(one, list) for one in outputs]
    if not any(nested) and (outputs or count == 1):
        outputs = [outputs]
    elif not all(nested):
        raise TypeError(
            f"output_core_dims must be a list of names, or of lists of names, got {request.output_core_dims!r}"
        )
    if len(outputs) != count:
        raise ValueError(
            f"output_core_dims={request.output_core_dims!r} is for {len(outputs)} result(s), but func "
            f"returns {count}; pass one list of names for each result"
        )
    for names in outputs:
        if None in names:
            raise TypeError(f"output_core_dims must be names, got {request.output_core_dims!r}")
        if len(set(names)) < len(names) or set(names) & set(request.dims):
            raise ValueError(
                f"output_core_dims must name different dimensions, without those mapped over ({listed(request.dims)}), "
                f"got {names}"
            )
    return outputs


def _given_core_dims(request: Request) -> Any:
    """`output_core_dims` as a list, or None; the name of one dimension may be given alone."""
    given = request.output_core_dims
    if isinstance(given, Mapping) or not (given is None or isinstance(given, Iterable)):
        hint = "; a dict by variable is for groups of a Dataset" if isinstance(given, Mapping) else ""
        raise TypeError(f"output_core_dims must be a list of names, or of lists of names, got {given!r}{hint}")
    return [given] if isinstance(given, str) else given


def dtypes_per_output(request: Request, count: int) -> list[Any]:
    """`output_dtypes` as one dtype for each of `count` outputs, or None for each."""
    given = request.output_dtypes
    if given is None:
        return [None] * count
    dtypes = [_dtype(one) for one in (given if isinstance(given, list | tuple) else [given])]
    if len(dtypes) != count:
        raise ValueError(
            f"output_dtypes has {len(dtypes)} dtype(s), but func returns {count} result(s); pass one "
            "dtype for each result"
        )
    return dtypes


def _dtype(given: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(given)
    except (TypeError, ValueError) as error:  # of a dict NumPy says that its items lack a length
        hint = "; a dict by variable is for groups of a Dataset" if isinstance(given, Mapping) else ""
        raise TypeError(f"output_dtypes must be a dtype, or a list of dtypes, got {given!r}{hint}") from error
    return dtype


class CastFunction(ConvertingFunction):
    """A function whose results are cast to the dtype that `output_dtypes` has for them, before they go to a file."""

    def __init__(self, func: Callable[..., Any], dtype: np.dtype[Any]) -> None:
        super().__init__(func)
        self._dtype = dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return as_told(np.asarray(self.__wrapped__(*args, **kwargs)), self._dtype)[()]
