"""Maps over rolling windows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .._core.messages.unknown_options import meant
from .._core.options.number_checks import check_int, is_int
from .._core.results import tuple_of
from .file_arrays import RollingView, VariableReader, is_dask, is_file, rows_per_read
from .labels import check_has_dims, checked_dims, listed
from .map import map_array, map_dataset
from .request import HOW, check_no_out, make_request


def map_windows(
    obj: Any,
    func: Callable[..., Any],
    windows: Mapping[Any, int] | None,
    dim: Any,
    min_periods: int | None,
    center: Any,
    fill_value: Any,
    stride: Any,
    more: Mapping[str, Any],
) -> Any:
    """Map over the rolling windows of a DataArray or Dataset; `more` holds windows and arguments of `How` by name."""
    own = {"dim": dim, "min_periods": min_periods, "center": center, "fill_value": fill_value, "stride": stride}
    if windows is None:
        _check_ambiguous(obj, {**own, **{name: value for name, value in more.items() if name in HOW}})
    named = {name: value for name, value in more.items() if name not in HOW}
    for one, value in named.items():
        _check_rolls_along(obj, one, value, (*obj.dims, *own, *HOW))
    sizes = _sizes(windows, named)
    strides = _strides(stride, sizes)
    if not isinstance(center, bool | np.bool_ | Mapping):
        raise TypeError(f"center must be a bool, or a dict of bool by dimension, got {center!r}")
    for name in center if isinstance(center, Mapping) else ():
        if name not in sizes:
            raise ValueError(f"center has a value for {name!r}; there are windows along {listed(sizes)}")
    if min_periods is not None and (not is_int(min_periods) or min_periods < 1):
        raise ValueError(f"min_periods must be an int from 1 on, or None, got {min_periods!r}")
    how = {name: value for name, value in more.items() if name in HOW}
    others = () if dim is None else checked_dims(dim)
    request = make_request(func, (*sizes, *others), **how)
    check_no_out(request, "map_windows")
    for name in sizes:
        _check_rolls_along(obj, name)
    window_dims = {name: "window" if len(sizes) == 1 else f"{name}_window" for name in sizes}
    for name in window_dims.values():
        if name in obj.dims or name in obj.coords or (isinstance(obj, xr.Dataset) and name in obj.data_vars):
            raise ValueError(f"windows have the dimension {name!r}, which the array has already; rename that one first")
    if isinstance(obj, xr.DataArray):
        check_has_dims(obj, request.dims)
    view = _construct(obj, _Windows(sizes, strides, window_dims, request.dims, center, fill_value))
    result = map_dataset(view, (), request, "copy") if isinstance(view, xr.Dataset) else map_array(view, (), request)
    if min_periods is None:
        return result
    return _apply_min_periods(result, obj, request.dims, sizes, strides, center, min_periods)


def _check_rolls_along(obj: Any, name: Hashable, value: Any = None, names: Sequence[Hashable] = ()) -> None:
    """Raise a KeyError if there is no dimension `name`, which may be meant for one of `names`, if these are given."""
    if name not in obj.dims:
        hint = meant(str(name), value, [one for one in names if isinstance(one, str)])
        raise KeyError(f"no dimension {name!r} to roll along; there are {listed(obj.dims)}{hint and f'; {hint}'}")


def _check_ambiguous(obj: Any, arguments: Mapping[str, Any]) -> None:
    """Raise a TypeError for an argument of `map_windows` that seems to be the window along a dimension of its name."""
    for name, value in arguments.items():
        if name in obj.dims and is_int(value):
            raise TypeError(
                f"{name}={value} is an argument of map_windows, and also the name of a dimension; for windows along "
                f"it pass a dict, map_windows(func, {{{name!r}: {value}}}), with which {name}= is the argument"
            )


def _sizes(windows: Any, named: Mapping[Any, int]) -> dict[Hashable, int]:
    """Lengths of windows by dimension; raise an error if one is no positive int."""
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


def _strides(stride: Any, sizes: Mapping[Hashable, int]) -> dict[Hashable, int]:
    """Distances of windows by dimension, those of 1 left out; raise an error if one is no positive int."""
    given = stride if isinstance(stride, Mapping) else dict.fromkeys(sizes, stride)
    for dim, one in given.items():
        if dim not in sizes:
            raise ValueError(f"stride has a value for {dim!r}; there are windows along {listed(sizes)}")
        check_int("stride" if given is not stride else f"the stride along {dim!r}", one, 1)
    return {dim: int(one) for dim, one in given.items() if one != 1}


def _every(strides: Mapping[Hashable, int]) -> dict[Hashable, slice]:
    """Indexers that keep the labels of windows."""
    return {dim: slice(None, None, one) for dim, one in strides.items()}


class _Windows(NamedTuple):
    """What windows there are: lengths, distances and new dimensions by dimension; and how they are made."""

    sizes: Mapping[Any, int]
    strides: Mapping[Any, int]
    dims: Mapping[Any, Hashable]
    mapped_dims: tuple[Hashable, ...]
    center: Any
    fill_value: Any


def _construct(obj: Any, windows: _Windows) -> Any:
    """A view of all rolling windows, with new dimensions for them: `construct` of xarray, for files too."""
    sizes, strides = windows.sizes, windows.strides
    if isinstance(obj, xr.Dataset):
        rest = obj.isel(_every(strides))
        variables = {
            name: _construct(one, windows) if set(windows.mapped_dims) <= set(one.dims) else rest[name]
            for name, one in obj.data_vars.items()
        }
        dataset = xr.Dataset(variables, rest.coords, obj.attrs)
        dataset.encoding = obj.encoding
        return dataset
    rolling = obj.rolling(sizes, center=windows.center)
    how: dict[str, Any] = {"keep_attrs": True}
    if windows.fill_value is not ...:
        how["fill_value"] = windows.fill_value
    if not is_file(obj):
        if obj.size:
            made = rolling.construct(windows.dims, stride={dim: strides.get(dim, 1) for dim in rolling.dim}, **how)
        else:
            made = _no_windows(obj.isel(_every(strides)), windows, how)
        # Dask cuts all other dimensions to keep chunks as small as they were, and slices would be in several.
        return made.chunk({d: obj.chunksizes[d] for d in obj.dims if d not in sizes}) if is_dask(obj) else made
    first = windows.mapped_dims[0]
    reader = VariableReader(obj.variable, windows.mapped_dims, obj.name, sizes.get(first, 1))
    example = _example(reader.dtype, how)
    axes = [obj.get_axis_num(dim) for dim in rolling.dim]
    # Number of labels that a window has before its own.
    offsets = [n // 2 if centered else n - 1 for n, centered in zip(rolling.window, rolling.center, strict=True)]
    steps = [strides.get(dim, 1) for dim in rolling.dim]
    data: Any = RollingView(reader, axes, rolling.window, offsets, steps, example.to_numpy())
    coords = obj.coords.to_dataset().isel(_every(strides), missing_dims="ignore").coords
    return xr.DataArray(data, coords, (*obj.dims, *windows.dims.values()), obj.name, obj.attrs)


def _example(dtype: Any, how: Mapping[str, Any]) -> xr.DataArray:
    """A window with one value of that dtype and one fill value."""
    return xr.DataArray(np.zeros(1, dtype), dims="x").rolling(x=2).construct("window", **how)


def _no_windows(obj: xr.DataArray, windows: _Windows, how: Mapping[str, Any]) -> xr.DataArray:
    """The windows of an array without values, for which `construct` of xarray raises, or Dask."""
    dims = (*obj.dims, *windows.dims.values())
    data = np.empty((*obj.shape, *windows.sizes.values()), _example(obj.dtype, how).dtype)
    return xr.DataArray(data, obj.coords, dims, obj.name, obj.attrs)


def _apply_min_periods(
    result: Any,
    obj: Any,
    mapped_dims: tuple[Hashable, ...],
    windows: Mapping[Any, int],
    strides: Mapping[Any, int],
    center: Any,
    min_periods: int,
) -> Any:
    """Results with NaN where a window of `obj` has fewer than `min_periods` values."""
    if isinstance(result, tuple):
        items = [_apply_min_periods(one, obj, mapped_dims, windows, strides, center, min_periods) for one in result]
        return tuple_of(type(result), items)
    if isinstance(result, xr.Dataset):
        made = {
            name: _apply_min_periods(one, obj[name], mapped_dims, windows, strides, center, min_periods)
            for name, one in result.data_vars.items()
            if set(mapped_dims) <= set(obj[name].dims)
        }
        return result.assign(made)
    has_periods = _has_periods_in_file if is_file(obj) else _has_periods
    valid = has_periods(obj, windows, center, min_periods, result.dims).isel(_every(strides), missing_dims="ignore")
    return result.where(valid).transpose(*result.dims, transpose_coords=False)


def _has_periods(
    array: xr.DataArray, windows: Mapping[Any, int], center: Any, min_periods: int, dims: Sequence[Hashable]
) -> xr.DataArray:
    """True where a window has at least `min_periods` values, and so has each one along dimensions not in `dims`."""
    reduced = [dim for dim in array.dims if dim not in dims]
    if not array.size:  # xarray raises
        return xr.zeros_like(array, bool).all(reduced)
    counts = array.rolling(windows, min_periods=1, center=center).count().fillna(0)
    return (counts.min(reduced) if reduced else counts) >= min_periods


def _has_periods_in_file(
    array: xr.DataArray, windows: Mapping[Any, int], center: Any, min_periods: int, dims: Sequence[Hashable]
) -> xr.DataArray:
    """As `_has_periods`, read piece by piece along the first dimension that has windows."""
    dim, size = next(iter(windows.items()))
    length = array.sizes[dim]
    rows = max(4 * size, rows_per_read(array, dim))
    pieces = []
    for lo in range(0, max(1, length), rows):
        first, last = max(0, lo - size), min(length, lo + rows + size)
        piece = _has_periods(array[{dim: slice(first, last)}].load(), windows, center, min_periods, dims)
        pieces.append(piece[{dim: slice(lo - first, lo - first + rows)}].variable)
    return xr.DataArray(xr.Variable.concat(pieces, dim))
