"""The loop in ``groupby(...).map(func)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from xarray.core.groupby import GroupBy

from ._labels import Frame, Labels, listed
from ._options import resolve
from ._payload import dump, load, private_copy
from ._requests import Request, dtypes_of, names_of_columns, run
from ._views import Box


def map_groups(whole: Any, group: Any, request: Request) -> Any:
    """Map over the groups of a DataArray or Dataset.

    xarray makes the groups and combines the results; only the calls are done
    otherwise, in between.
    """
    by = group if isinstance(group, GroupBy) else whole.groupby(group)
    parts = [part for _, part in by]
    if resolve(request.options).ignore:
        raise ValueError("groups have no gaps, as nothing tells what shape they would be; leave out errors='ignore'")
    variables = whole.variables.values() if isinstance(whole, xr.Dataset) else [whole]
    if any(one.chunks is not None for one in variables):
        results = _lazy_results(parts, request)
    else:
        results = _results(parts, _labels(by, group, len(parts)), request)
    made = iter(results)
    return by.map(lambda part: next(made))


def _labels(by: Any, group: Any, count: int) -> Labels:
    """What errors name groups by."""
    name = getattr(by, "_name", None) or (group if isinstance(group, str) else "group")
    keys = np.empty(count, object)
    found = [key for key, indices in by.groups.items() if not (isinstance(indices, list) and not indices)]
    if len(found) == count:
        keys[:] = found
    return Labels((name,), (count,), (keys if len(found) == count else None,), (0,), "group")


def _results(parts: list[Any], labels: Labels, request: Request) -> list[Any]:
    groups = np.empty(len(parts), object)
    groups[:] = list(map(Group, parts))
    boxes = run(request, [groups], (0,), lambda: labels, func=_OnGroup(request.func))
    return [box.value for box in boxes.tolist()]


class Group:
    """One group of a groupby, which travels in the layout that it has in the caller.

    Parameters
    ----------
    part : DataArray or Dataset
    """

    def __init__(self, part: Any) -> None:
        self._part = part

    def take(self) -> Any:
        """The group, in memory of the taker's own."""
        make, arguments = self.__reduce__()
        return make(*arguments).take()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        payload = dump(None, self._part.compute())
        return _opened, (payload.to_bytes(), payload.index)


class _Opened:
    """A group that has come to where it is used."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def take(self) -> Any:
        return self._part


def _opened(data: bytes, index: list[tuple[int, int, bool]]) -> _Opened:
    return _Opened(load(private_copy(data), index, lambda _: None))


class _OnGroup:
    """A function of labelled arrays, as one of groups."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self.__wrapped__ = func  # has the signature

    def __call__(self, group: Any, *args: Any, **named: Any) -> Box:
        result = self.__wrapped__(group.take(), *args, **named)
        return Box(result.compute() if isinstance(result, xr.DataArray | xr.Dataset) else result)


def _lazy_results(parts: list[Any], request: Request) -> list[xr.DataArray]:
    """One task of Dask's for each group."""
    import dask.array as da
    from dask.delayed import delayed

    if request.output_dtypes is None or not all(isinstance(one, xr.DataArray) for one in parts):
        raise ValueError(
            "the data is in Dask's blocks, and results are not known before they are computed; for a DataArray pass "
            "output_dtypes=[...] (and output_core_dims, if func does not keep the dimensions), or load() it first"
        )
    (dtype,), (names,) = dtypes_of(request, 1), names_of_columns(request, 1)
    made = []
    for part in parts:
        dims = list(part.dims) if names is None else names
        known = {**part.sizes, **(request.output_sizes or {})}
        if missing := [dim for dim in dims if dim not in known]:
            raise ValueError(f"the length of dimension(s) {listed(missing)} is not known; pass output_sizes={{...}}")
        like = (part.coords.to_dataset(), part.dims, part.name, part.attrs)
        task = delayed(_lazy_group)(request, *like, part.data, dims, dtype)
        data = da.from_delayed(task, tuple(known[dim] for dim in dims), dtype)
        made.append(Frame([part], ()).wrap(data, dims, keep_attrs=True))
    return made


def _lazy_group(
    request: Request, coords: xr.Dataset, dims: Any, name: Any, attrs: Any, data: Any, core: list[Any], dtype: Any
) -> np.ndarray:
    part = xr.DataArray(data, coords=coords.coords, dims=dims, name=name, attrs=attrs)
    result = request.func(part, *request.args, **(request.kwargs or {}))
    if not isinstance(result, xr.DataArray) or set(result.dims) != set(core):
        got = listed(result.dims) if isinstance(result, xr.DataArray) else type(result).__name__
        raise ValueError(f"func was to return a DataArray with dimensions {listed(core)}, but it returned {got}")
    return result.transpose(*core).to_numpy().astype(dtype, casting="same_kind", copy=False)
