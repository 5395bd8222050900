"""What is to be mapped over labelled arrays: checked, and handed to `parallel_apply`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from .._api.run import compute
from .._core.arguments import make_call
from .._core.options import Options, resolve
from .._core.results import Form
from .file_arrays import order_with, source_of
from .labels import LabelNaming, Labels, MappedArrays, checked_dims, listed


@dataclass(frozen=True)
class Request:
    """What is to be done, whatever the arrays.

    Attributes
    ----------
    func : callable
    dims : tuple of hashable
        The mapped dimensions.
    args, kwargs, vectorized, chunk, depth, boundary, rng
        As `parallel_apply` has them.
    output_core_dims, output_dtypes, output_sizes, keep_attrs, as_xarray
        As `parwise.xarray.How` has them.
    options : dict
        How the call runs.
    """

    func: Callable[..., Any]
    dims: tuple[Hashable, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    vectorized: bool = False
    chunk: int | None = None
    depth: int = 0
    boundary: Any = None
    rng: Any = None
    output_core_dims: Any = None
    output_dtypes: Any = None
    output_sizes: Mapping[Hashable, int] | None = None
    keep_attrs: Any = True
    as_xarray: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class How(Options, total=False):
    """What a map does, and how it runs.

    Besides these, all of `parwise.Options`.

    Attributes
    ----------
    args, kwargs, vectorized, chunk, depth, boundary, rng : optional
        As `parwise.parallel_apply` has them. A number for `rng` gives each
        variable of a Dataset the same generators.
    output_core_dims : list of hashable, or list of lists, optional
        The dimensions of one result, if these are not the slice's; a list for
        each, if the function gives a tuple.
    output_dtypes : dtype or list of dtype, optional
        Of each result. Needed for data in Dask's blocks. For groups of a
        Dataset a dict, by variable; so is `output_core_dims`.
    output_sizes : dict, optional
        Lengths of new dimensions. Needed for data in Dask's blocks.
    keep_attrs : bool or str, optional
        As xarray has it: "override", "drop", "identical", ...
    as_xarray : bool, optional
        Whether the function gets DataArrays, and returns them.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None
    vectorized: bool
    chunk: int | None
    depth: int
    boundary: Any
    rng: Any
    output_core_dims: Any
    output_dtypes: Any
    output_sizes: Mapping[Hashable, int] | None
    keep_attrs: bool | str
    as_xarray: bool


#: What xarray knows to do with attributes.
_ATTRS = ("drop", "identical", "no_conflicts", "drop_conflicts", "override")
#: The names of all that.
HOW = frozenset(How.__annotations__) | frozenset(Options.__annotations__)


def make_request(func: Any, dim: Any, **how: Any) -> Request:
    """Check what needs no array, and tell options from the rest."""
    if not callable(func):
        raise TypeError(f"func must be callable, got {type(func).__name__}; the function comes first")
    own = {one.name for one in fields(Request)} - {"func", "dims", "options"}
    options = {name: value for name, value in how.items() if name not in own}
    settings = resolve(options)
    request = Request(func, checked_dims(dim), **{name: how[name] for name in how if name in own}, options=options)
    if not isinstance(request.as_xarray, bool):
        raise TypeError(f"as_xarray must be a bool, got {request.as_xarray!r}")
    if not (isinstance(request.keep_attrs, bool) or callable(request.keep_attrs) or request.keep_attrs in _ATTRS):
        raise ValueError(
            f"keep_attrs must be a bool, a function, or one of {listed(_ATTRS)}, got {request.keep_attrs!r}"
        )
    if request.as_xarray and request.vectorized and (request.depth or request.boundary or settings.ignore):
        raise ValueError(
            "blocks of DataArrays (vectorized=True, as_xarray=True) have no halo and no gaps; "
            "leave out depth, boundary and errors='ignore', or as_xarray"
        )
    if request.vectorized and len(request.dims) > 1:
        raise ValueError(f"a block function is mapped along one dimension, got {request.dims}")
    return request


def places_of(frame: MappedArrays, vectorized: bool) -> tuple[int, ...]:
    """Where the mapped axes stand, in all arrays alike."""
    first, *others = (tuple(one.get_axis_num(dim) for dim in frame.dims) for one in frame.arrays)
    if vectorized:
        for number, axes in enumerate(others):
            if axes != first:
                raise ValueError(
                    f"{frame.dims[0]!r} is axis {axes[0]} of other {number} and axis {first[0]} of the array; "
                    "a block function needs it in one place: transpose one of them"
                )
        return first
    if all(one.ndim > max(first) for one in frame.arrays[1:]):
        return first
    return tuple(range(len(first)))


def arranged(frame: MappedArrays, places: tuple[int, ...]) -> list[Any]:
    """The arrays' data, with the mapped axes at `places`."""
    return [
        source_of(one, order_with(one.ndim, [one.get_axis_num(dim) for dim in frame.dims], places), frame.dims)
        for one in frame.arrays
    ]


def run(
    request: Request,
    sources: list[Any],
    axes: tuple[int, ...],
    labels: Callable[[], Labels],
    out: Any = None,
    func: Any = None,
    transfer_seconds: Callable[[], float] = float,
    form: Form = "arrays",
) -> Any:
    """Call `parallel_apply`, whose errors then name labels.

    `transfer_seconds` and `form` are those of the `Call`.
    """
    call = make_call(
        func or request.func,
        tuple(sources),
        axis=axes if len(axes) > 1 else axes[0],
        args=request.args,
        kwargs=request.kwargs,
        vectorized=request.vectorized,
        chunk=request.chunk,
        depth=request.depth,
        boundary=request.boundary,
        out=out,
        rng=request.rng,
        settings=resolve(request.options),
        form=form,
        transfer_seconds=transfer_seconds,
        naming=LabelNaming(labels),
    )
    return compute(call)


def sizes_of(frame: MappedArrays, request: Request, names: Sequence[Hashable]) -> tuple[int, ...]:
    """The lengths of dimensions of results, as far as that can be known without calling the function."""
    known = {**dict(zip(frame.slice_dims, frame.slice_shape, strict=True)), **(request.output_sizes or {})}
    for name in names:
        if name not in known:
            raise ValueError(
                f"the length of the new dimension {name!r} is not known before func was called; "
                f"pass output_sizes={{{name!r}: ...}}"
            )
    return tuple(int(known[name]) for name in names)


def names_of_columns(request: Request, count: int) -> list[Any]:
    """Of each of `count` results the names of its dimensions, or None."""
    given = request.output_core_dims
    if given is None:
        return [None] * count
    if isinstance(given, str):
        given = [given]
    columns = [list(one) if isinstance(one, list | tuple) else one for one in given]
    nested = [isinstance(one, list) for one in columns]
    if not any(nested) and (columns or count == 1):
        columns = [columns]
    elif not all(nested):
        raise TypeError(
            f"output_core_dims must be a list of names, or of lists of names, got {request.output_core_dims!r}"
        )
    if len(columns) != count:
        raise ValueError(
            f"output_core_dims={request.output_core_dims!r} is for {len(columns)} result(s), but func gives {count}; "
            "pass one list of names per result"
        )
    for names in columns:
        if None in names:
            raise TypeError(f"output_core_dims must be names, got {request.output_core_dims!r}")
        if len(set(names)) < len(names) or set(names) & set(request.dims):
            raise ValueError(
                f"output_core_dims must name different dimensions, without those mapped over ({listed(request.dims)}), "
                f"got {names}"
            )
    return columns


def dtypes_of(request: Request, count: int) -> list[Any]:
    """Of each of `count` results its dtype, or None."""
    given = request.output_dtypes
    if given is None:
        return [None] * count
    dtypes = [np.dtype(one) for one in (given if isinstance(given, list | tuple) else [given])]
    if len(dtypes) != count:
        raise ValueError(f"output_dtypes has {len(dtypes)} dtype(s), but func gives {count} result(s)")
    return dtypes
