"""Maps over rolling windows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._core.checks import check_int, is_int
from .._core.results import tuple_of
from .file_arrays import ReadAhead, RollingView, is_file, rows_at_once
from .labels import check_has, checked_dims, listed
from .map import map_array, map_dataset
from .request import HOW, make_request


def map_windows(
    whole: Any,
    func: Callable[..., Any],
    windows: Mapping[Any, int] | None,
    dim: Any,
    min_periods: int | None,
    center: Any,
    fill_value: Any,
    more: Mapping[str, Any],
) -> Any:
    """Map over the windows of a DataArray or Dataset; `more` has windows and options by keyword."""
    sizes = _sizes(windows, {name: value for name, value in more.items() if name not in HOW})
    if min_periods is not None and (not is_int(min_periods) or min_periods < 1):
        raise ValueError(f"min_periods must be an int from 1 on, or None, got {min_periods!r}")
    how = {name: value for name, value in more.items() if name in HOW}
    others = () if dim is None else checked_dims(dim)
    request = make_request(func, (*sizes, *others), **how)
    for name in sizes:
        if name not in whole.dims:
            raise KeyError(f"no dimension {name!r} to roll along; there are {listed(whole.dims)}")
    if isinstance(whole, xr.DataArray):
        check_has(whole, request.dims)
    view = _windows_of(whole, sizes, request.dims, center, fill_value)
    result = map_dataset(view, (), request, "copy") if isinstance(view, xr.Dataset) else map_array(view, (), request)
    return result if min_periods is None else _with_periods(result, whole, request.dims, sizes, center, min_periods)


def _sizes(windows: Any, named: Mapping[Any, int]) -> dict[Hashable, int]:
    """The windows' lengths, checked."""
    if windows is not None and not isinstance(windows, Mapping):
        raise TypeError(f"windows must be a dict of lengths by dimension, as in time=30, got {type(windows).__name__}")
    if windows and named:
        raise ValueError(f"windows are given as a dict, {dict(windows)}, and by keyword, {dict(named)}; choose one")
    sizes = {**(windows or {}), **named}
    if not sizes:
        raise TypeError("no window: give the dimension to roll along and its length, as in time=30")
    for dim, size in sizes.items():
        check_int(f"the window along {dim!r}", size, 1, unit=" long")
    return sizes


def _windows_of(
    whole: Any, windows: Mapping[Any, int], lead: tuple[Hashable, ...], center: Any, fill_value: Any
) -> Any:
    """The rolling windows of a DataArray or Dataset, along dimensions of their own."""
    if isinstance(whole, xr.Dataset):
        parts = {
            name: _windows_of(one, windows, lead, center, fill_value) if set(lead) <= set(one.dims) else one
            for name, one in whole.data_vars.items()
        }
        return xr.Dataset(parts, whole.coords, whole.attrs)
    rolling = whole.rolling(windows, center=center)
    names = {dim: "window" if len(windows) == 1 else f"{dim}_window" for dim in windows}
    how = {"keep_attrs": True} if fill_value is ... else {"keep_attrs": True, "fill_value": fill_value}
    if not is_file(whole):
        return rolling.construct(names, **how)
    one = xr.DataArray(np.zeros(1, whole.dtype), dims="x").rolling(x=2).construct("window", **how)
    band = ReadAhead(whole.variable, lead, windows.get(lead[0], 1))
    axes = [whole.get_axis_num(dim) for dim in rolling.dim]
    before = [_before(size, mid) for size, mid in zip(rolling.window, rolling.center, strict=True)]
    data: Any = RollingView(band, axes, rolling.window, before, one.to_numpy())
    return xr.DataArray(data, whole.coords, (*whole.dims, *names.values()), whole.name, whole.attrs)


def _before(size: int, center: bool) -> int:
    """Labels that a window has before its own."""
    return size // 2 if center else size - 1


def _with_periods(
    result: Any, whole: Any, mapped: tuple[Hashable, ...], windows: Mapping[Any, int], center: Any, min_periods: int
) -> Any:
    """NaN where a window holds fewer values than `min_periods`."""
    if isinstance(result, tuple):
        items = [_with_periods(one, whole, mapped, windows, center, min_periods) for one in result]
        return tuple_of(type(result), items)
    if isinstance(result, xr.Dataset):
        made = {
            name: _with_periods(one, whole[name], mapped, windows, center, min_periods)
            for name, one in result.data_vars.items()
            if set(mapped) <= set(whole[name].dims)
        }
        return result.assign(made)
    if is_file(whole):
        enough = _enough_of_file(whole, windows, center, min_periods, result.dims)
    else:
        enough = _enough(whole, windows, center, min_periods, result.dims)
    return result.where(enough).transpose(*result.dims, transpose_coords=False)


def _enough(
    whole: xr.DataArray, windows: Mapping[Any, int], center: Any, min_periods: int, dims: Sequence[Hashable]
) -> xr.DataArray:
    """Where windows hold as many values, all along the dimensions that are not in `dims`."""
    found = whole.rolling(windows, min_periods=1, center=center).count().fillna(0)
    gone = [dim for dim in found.dims if dim not in dims]
    return (found.min(gone) if gone else found) >= min_periods


def _enough_of_file(
    whole: xr.DataArray, windows: Mapping[Any, int], center: Any, min_periods: int, dims: Sequence[Hashable]
) -> xr.DataArray:
    """The same, read part by part along the first of the windows' dimensions."""
    dim, size = next(iter(windows.items()))
    count = whole.sizes[dim]
    rows = max(4 * size, rows_at_once(whole, dim))
    parts = []
    for lo in range(0, count, rows):
        first, last = max(0, lo - size), min(count, lo + rows + size)
        part = _enough(whole[{dim: slice(first, last)}].load(), windows, center, min_periods, dims)
        parts.append(part[{dim: slice(lo - first, lo - first + rows)}].variable)
    return xr.DataArray(xr.Variable.concat(parts, dim))
