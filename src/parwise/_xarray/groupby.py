"""Maps over groups: ``groupby(...).map(func)``, with the calls of the function in workers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from xarray.core.groupby import GroupBy

from .group_results import as_told_result, check_gap_values, gap_result
from .group_transfer import Group, GroupedData, group_indexers, loaded
from .labels import Labels, coords_within, listed
from .request import Request, check_no_out, run
from .slices import Boxed
from .variables import gaps_like, variables_of


def map_groups(obj: Any, group: Any, request: Request) -> Any:
    """Map over the groups of a DataArray or Dataset.

    xarray makes the groups and combines the results. Only the loop that calls the function is replaced.
    """
    check_no_out(request, "map_groups")
    _check_request(request)
    if isinstance(group, GroupBy):
        _check_grouped(group, obj)
    groupby = group if isinstance(group, GroupBy) else _make_groupby(obj, group)
    indexers = group_indexers(groupby)
    labels = functools.partial(_group_labels, groupby, group, len(indexers))
    variables = obj.variables.values() if isinstance(obj, xr.Dataset) else [obj]
    if any(one.chunks is not None for one in variables):
        from .lazy.groupby import lazy_results

        groups = [groupby._obj.isel(one) for one in indexers]
        return _combine(groupby, lazy_results(groups, labels(), request))
    if not indexers:  # xarray decides about the result, or the error
        return groupby.map(request.func)
    grouped = GroupedData(groupby._obj, indexers)
    results, gaps = _compute_results(grouped, len(indexers), labels, request)
    return _combine(groupby, _fill_gaps(_as_told(results, gaps, labels, request), gaps, grouped, request), grouped)


def _check_request(request: Request) -> None:
    """Raise a ValueError for arguments that are about slices and blocks."""
    defaults = {"vectorized": False, "chunk": None, "depth": 0, "boundary": None, "keep_attrs": True}
    if wrong := [name for name, default in defaults.items() if getattr(request, name) != default]:
        raise ValueError(
            f"{listed(wrong)}: not for groups, which func gets whole, and whose results are kept as they "
            "are; leave them out, or use .par.map"
        )


def _check_grouped(groupby: Any, obj: Any) -> None:
    """Raise a ValueError if a groupby is of other data than `obj`, which alone would be mapped over."""
    grouped = groupby._original_obj
    if grouped is obj:
        return
    variables, others = variables_of(obj), variables_of(grouped)
    if type(grouped) is type(obj) and variables.keys() == others.keys():
        # ``ds["a"]`` is a new object each time, of the same variables.
        if all(one is others[name] for name, one in variables.items()):
            return
        in_memory = all(one._in_memory for one in (*variables.values(), *others.values()))
        same_dtypes = all(one.dtype == others[name].dtype for name, one in variables.items())
        if in_memory and same_dtypes and obj.identical(grouped):
            return
    raise ValueError(
        f"the groups are of another {type(grouped).__name__} than the {type(obj).__name__} that is mapped over; make "
        "them of the same object, x.par.map_groups(func, x.groupby(...))"
    )


def _make_groupby(obj: Any, group: Any) -> Any:
    try:
        return obj.groupby(group)
    except KeyError as error:
        known = [*obj.coords, *obj.dims, *(obj.data_vars if isinstance(obj, xr.Dataset) else [])]
        raise KeyError(f"no group {group!r}; there are {listed(dict.fromkeys(known))}") from error


def _group_labels(groupby: Any, group: Any, count: int) -> Labels:
    """Labels by which errors name groups: their keys, if xarray tells as many as there are groups."""
    name = getattr(groupby, "_name", None) or (group if isinstance(group, str) else "group")
    keys = np.empty(count, object)
    found = [key for key, indices in groupby.groups.items() if not (isinstance(indices, list) and not indices)]
    if len(found) == count:
        keys[:] = found
    return Labels((name,), (count,), (keys if len(found) == count else None,), (0,), "group")


def _compute_results(
    grouped: GroupedData, count: int, labels: Callable[[], Labels], request: Request
) -> tuple[list[Any], list[int]]:
    """Call the function for each group; return the results, and the numbers of groups without one."""
    groups = np.empty(count, object)
    groups[:] = [Group(grouped, number) for number in range(count)]
    func = _GroupFunction(request.func, grouped)
    results = run(request, [groups], (0,), labels, func=func, transfer_seconds=grouped.transfer_seconds, form="raw")
    gaps = results.gaps.tolist()
    missing = set(gaps)
    return [None if k in missing else box.value for k, box in enumerate(results.values())], gaps


def _as_told(results: list[Any], gaps: list[int], labels: Callable[[], Labels], request: Request) -> list[Any]:
    """The results as the request tells them."""
    if request.output_dtypes is None and request.output_core_dims is None and not request.output_sizes:
        return results
    missing, made = set(gaps), list[Any]()
    for number, one in enumerate(results):
        try:
            made.append(one if number in missing else as_told_result(one, request))
        except (TypeError, ValueError) as error:
            error.add_note(labels().name((number,), None))
            raise
    return made


class _GroupFunction:
    """A function of a DataArray or Dataset, called with a `Group`, or in a worker with `SentGroup` and `CommonData`."""

    def __init__(self, func: Callable[..., Any], grouped: Any) -> None:
        self.__wrapped__ = func  # has the signature
        self._grouped = grouped

    def __call__(self, group: Any, *args: Any, **kwargs: Any) -> Boxed:
        result = self.__wrapped__(group.materialize(self._grouped), *args, **kwargs)
        return Boxed(loaded(result) if _is_labelled(result) else result)


def _is_labelled(result: Any) -> bool:
    return isinstance(result, xr.DataArray | xr.Dataset)


def _combine(groupby: Any, results: list[Any], grouped: GroupedData | None = None) -> Any:
    """Combine the results with ``groupby.map`` of xarray, and release each result once it is used."""
    # To make a group again takes as long as many a function. xarray needs the group only if its result has no labels.
    groups = [
        None if grouped is None or _is_labelled(one) else grouped.group(number) for number, one in enumerate(results)
    ]
    results.reverse()
    combiner = copy.copy(groupby)
    # The class has slots, so that an instance cannot have a method of its own.
    combiner.__class__ = type(
        type(groupby).__name__, (type(groupby),), {"__slots__": (), "_iter_grouped": lambda self: iter(groups)}
    )
    return combiner.map(lambda group: results.pop())


def _fill_gaps(results: list[Any], gaps: list[int], grouped: GroupedData, request: Request) -> list[Any]:
    """The results, with NaN in the shape of another result in place of gaps."""
    if not gaps:
        return results
    check_gap_values(request)
    missing = set(gaps)
    first = next((number for number in range(len(results)) if number not in missing), None)
    if first is None and request.output_core_dims is not None:
        return [gap_result(grouped.group(number), request) for number in gaps]
    like = None if first is None else results[first]
    if first is None or not _is_labelled(like):
        raise ValueError(
            "errors='ignore' needs a labelled result of at least one group, as gaps take their shape "
            f"from it; {'no group has one' if first is None else f'func returned {type(like).__name__}'}; "
            "pass output_core_dims (and output_sizes)"
        )
    return [_gap(like, grouped, first, number) if number in missing else one for number, one in enumerate(results)]


def _gap(like: Any, grouped: GroupedData, like_number: int, number: int) -> Any:
    """A result of gaps with the coordinates of group `number`, and the shape of the result `like` of another group."""
    dim = grouped.dim
    if dim not in like.dims:
        return gaps_like(like)
    group, lengths = grouped.group(number), (like.sizes[dim], grouped.group(like_number).sizes[dim])
    if lengths[0] != lengths[1]:
        raise ValueError(
            f"the result of group {like_number} has length {lengths[0]} along {dim!r}, and the group {lengths[1]}: "
            f"the length of a gap for group {number} is not known; leave out errors='ignore'"
        )
    gap = gaps_like(like.isel({dim: [0] * group.sizes[dim]}))
    names = [name for name, one in group.coords.items() if dim in one.dims and name in like.coords]
    return gap.assign_coords(coords_within(group, group.dims, set(group.coords) - set(names)))
