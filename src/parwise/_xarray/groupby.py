"""The loop in ``groupby(...).map(func)``."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from xarray.core.groupby import GroupBy

from .group_transfer import Group, GroupedData, loaded, wheres_of
from .labels import Labels, coords_within, listed
from .request import Request, run
from .slices import Boxed


def map_groups(whole: Any, group: Any, request: Request) -> Any:
    """Map over the groups of a DataArray or Dataset.

    xarray makes the groups and combines the results; only the calls are done
    otherwise, in between.
    """
    _check(request)
    by = group if isinstance(group, GroupBy) else _grouped(whole, group)
    wheres = wheres_of(by)
    labels = functools.partial(_labels, by, group, len(wheres))
    variables = whole.variables.values() if isinstance(whole, xr.Dataset) else [whole]
    if any(one.chunks is not None for one in variables):
        from .dask import lazy_results

        return _combined(by, lazy_results([by._obj.isel(where) for where in wheres], labels(), request))
    if not wheres:  # xarray says what it thinks of that
        return by.map(request.func)
    parts = GroupedData(by._obj, wheres)
    return _combined(by, _with_gaps(_results(parts, len(wheres), labels, request), parts), parts)


def _check(request: Request) -> None:
    """Refuse what is about slices and blocks."""
    given = {"vectorized": False, "chunk": None, "depth": 0, "boundary": None, "keep_attrs": True}
    if wrong := [name for name, default in given.items() if getattr(request, name) != default]:
        raise ValueError(
            f"{listed(wrong)}: each group is given to func whole, and what that returns is kept as it is; "
            "leave them out, or use .par.map"
        )


def _grouped(whole: Any, group: Any) -> Any:
    try:
        return whole.groupby(group)
    except KeyError as error:
        known = [*whole.coords, *whole.dims, *(whole.data_vars if isinstance(whole, xr.Dataset) else [])]
        raise KeyError(f"no group {group!r}; there are {listed(dict.fromkeys(known))}") from error


def _labels(by: Any, group: Any, count: int) -> Labels:
    """What errors name groups by."""
    name = getattr(by, "_name", None) or (group if isinstance(group, str) else "group")
    keys = np.empty(count, object)
    found = [key for key, indices in by.groups.items() if not (isinstance(indices, list) and not indices)]
    if len(found) == count:
        keys[:] = found
    return Labels((name,), (count,), (keys if len(found) == count else None,), (0,), "group")


def _results(parts: GroupedData, count: int, labels: Callable[[], Labels], request: Request) -> list[Any]:
    groups = np.empty(count, object)
    groups[:] = [Group(parts, number) for number in range(count)]
    func = _OnGroup(request.func, parts)
    found = run(request, [groups], (0,), labels, func=func, transfer_seconds=parts.transfer_seconds, form="raw")
    return [box.value if isinstance(box, Boxed) else None for box in found.values()]


class _OnGroup:
    """A function of labelled arrays, as one of parts."""

    def __init__(self, func: Callable[..., Any], whole: Any) -> None:
        self.__wrapped__ = func  # has the signature
        self._whole = whole

    def __call__(self, part: Any, *args: Any, **named: Any) -> Boxed:
        result = self.__wrapped__(part.materialize(self._whole), *args, **named)
        return Boxed(loaded(result) if _is_labelled(result) else result)


def _is_labelled(result: Any) -> bool:
    return isinstance(result, xr.DataArray | xr.Dataset)


def _combined(by: Any, results: list[Any], parts: GroupedData | None = None) -> Any:
    """The results put together by xarray's own loop, and none of them kept meanwhile."""
    # To make the groups again takes as long as many a function: only what is not labelled is given the labels of its.
    given = [None if parts is None or _is_labelled(one) else parts.part(number) for number, one in enumerate(results)]
    results.reverse()
    known = copy.copy(by)
    # Its class has slots, so that the method cannot be the object's own.
    known.__class__ = type(type(by).__name__, (type(by),), {"__slots__": (), "_iter_grouped": lambda self: iter(given)})
    return known.map(lambda part: results.pop())


def _with_gaps(results: list[Any], parts: GroupedData) -> list[Any]:
    """NaN in place of results that are not there."""
    gaps = [number for number, one in enumerate(results) if one is None]
    if not gaps:
        return results
    good = next((number for number, one in enumerate(results) if one is not None), None)
    like = None if good is None else results[good]
    if good is None or not _is_labelled(like):
        raise ValueError(
            "errors='ignore' needs the labelled result of one group at least, as nothing else tells of what shape gaps "
            f"are; {'no group has one' if good is None else f'func returned {type(like).__name__}'}"
        )
    return [_gap(like, parts, good, number) if one is None else one for number, one in enumerate(results)]


def _gap(like: Any, parts: GroupedData, good: int, number: int) -> Any:
    """NaN for a group, of the shape that its result would have if it were like that of another group."""
    dim = parts.dim
    if dim not in like.dims:
        return like.where(False)
    part, lengths = parts.part(number), (like.sizes[dim], parts.part(good).sizes[dim])
    if lengths[0] != lengths[1]:
        raise ValueError(
            f"the result of group {good} has length {lengths[0]} along {dim!r}, and the group {lengths[1]}: nothing "
            f"tells what length a gap for group {number} would have; leave out errors='ignore'"
        )
    gap = like.isel({dim: [0] * part.sizes[dim]}).where(False)
    theirs = [name for name, one in part.coords.items() if dim in one.dims and name in like.coords]
    return gap.assign_coords(coords_within(part, part.dims, set(part.coords) - set(theirs)))
