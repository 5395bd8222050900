"""Maps over rolling windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr

from ._labelled import map_array, map_dataset
from ._labels import checked_dims, listed
from ._requests import HOW, make_request


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
    sizes = {**(windows or {}), **{name: value for name, value in more.items() if name not in HOW}}
    if not sizes:
        raise TypeError("no window: give the dimension to roll along and its length, as in time=30")
    how = {name: value for name, value in more.items() if name in HOW}
    others = () if dim is None else checked_dims(dim)
    request = make_request(func, (*sizes, *others), **how)
    view = _windows_of(whole, sizes, center, fill_value)
    result = map_dataset(view, (), request, "copy") if isinstance(view, xr.Dataset) else map_array(view, (), request)
    return result if min_periods is None else _with_periods(result, whole, sizes, center, min_periods)


def _windows_of(whole: Any, windows: Mapping[Any, int], center: Any, fill_value: Any) -> Any:
    """The rolling windows of a DataArray or Dataset, along dimensions of their own."""
    for dim in windows:
        if dim not in whole.dims:
            raise ValueError(f"no dimension {dim!r} to roll along; there are {listed(whole.dims)}")
    names = {dim: "window" if len(windows) == 1 else f"{dim}_window" for dim in windows}
    given = {} if fill_value is ... else {"fill_value": fill_value}
    return whole.rolling(windows, center=center).construct(names, keep_attrs=True, **given)


def _with_periods(result: Any, whole: Any, windows: Mapping[Any, int], center: Any, min_periods: int) -> Any:
    """NaN where a window holds fewer values than `min_periods`."""
    if isinstance(result, tuple):
        items = [_with_periods(one, whole, windows, center, min_periods) for one in result]
        return getattr(type(result), "_make", type(result))(items)
    if isinstance(result, xr.Dataset):
        made = {
            name: _with_periods(one, whole[name], windows, center, min_periods)
            for name, one in result.data_vars.items()
            if set(windows) <= set(whole[name].dims)
        }
        return result.assign(made)
    found = whole.rolling(windows, min_periods=1, center=center).count().fillna(0)
    gone = [dim for dim in found.dims if dim not in result.dims]
    kept = result.where((found.min(gone) if gone else found) >= min_periods)
    return kept.transpose(*result.dims, transpose_coords=False)
