"""The loop in ``groupby(...).map(func)`` over data in Dask's blocks: one task for each group."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from ._labels import Frame, Labels, listed
from ._lazy import SERIAL, check_options
from ._random import make_streams
from ._requests import Request, dtypes_of, names_of_columns, run
from ._views import Box


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
    streams = None if request.rng is None else make_streams(request.rng, request.func, dict(request.kwargs or {}))
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
        return Frame([part], ()).wrap(arrays[None], column.dims, keep_attrs=True)
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
    (box,) = run(request, [given], (0,), lambda: labels, func=_Boxed(request.func)).tolist()
    if not isinstance(box, Box):
        return [_gap(one) for one in columns]
    return [_data(box.value, one) for one in columns]


class _Boxed:
    """A function whose results are kept whole."""

    def __init__(self, func: Any) -> None:
        self.__wrapped__ = func  # has the signature

    def __call__(self, *given: Any, **named: Any) -> Box:
        return Box(self.__wrapped__(*given, **named))


def _data(result: Any, column: _Column) -> np.ndarray:
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
