"""Groups of a DataArray or Dataset: made one by one, and sent to workers without the data of all others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from .._clock import perf_counter
from .._workers.pickling.payload import BufferTable, load, private_copy
from .._workers.pickling.picklers import dump
from .variables import ItsOwn, copied, labelled, variable_of, variables_of

# Estimated seconds to send a group to a worker and its result back, on both sides together. Measured: 0.3 ms for 10
# rows; 25 ms for 10 MB, and half as much again for a result of that size. To make the group here took 0.1 ms and 8 ms.
TRANSFER_SECONDS = 0.3e-3
TRANSFER_SECONDS_PER_BYTE = 3e-9
TRANSFER_PER_SELECTION = 3
# Seconds in which a worker imports xarray for its first group.
IMPORT_SECONDS = 0.5

#: Where a group lies: by dimension, a list of indices or a slice, as for `isel`.
Indexers: TypeAlias = Mapping[Hashable, Any]


def group_indexers(groupby: Any) -> list[Indexers]:
    """The indexers of all groups of a groupby, in the order of xarray's own loop."""
    groupby = copy.copy(groupby)
    groupby._obj = _IndexerSource()
    return list(groupby._iter_grouped())


class _IndexerSource:
    """Takes the place of the object that is grouped; `isel` returns the indexers themselves."""

    def isel(self, indexers: Indexers) -> Indexers:
        return indexers


class GroupedData:
    """A DataArray or Dataset and its groups, to which a function may write.

    There is at least one group. All groups lie along the same dimension, `dim`.
    """

    def __init__(self, obj: Any, indexers: Sequence[Indexers]) -> None:
        self._obj, self._indexers = obj, indexers
        # Number of groups made in this process, and seconds for all of them.
        self._made, self._seconds = 0, 0.0
        (self.dim,) = indexers[0]
        variables = obj.data_vars if isinstance(obj, xr.Dataset) else {ItsOwn: obj}
        # True if all data is in memory and has the dimension: selection by a list of indices then copies all of it.
        self._selection_copies = all(
            one._in_memory and (self.dim in one.dims or isinstance(one, xr.IndexVariable))
            for one in variables_of(obj).values()
        )
        # Variables of which each group has a part. All others are sent once, in the `CommonData`.
        self._selected: dict[Hashable, xr.Variable] = {
            name: one.variable for name, one in variables.items() if self.dim in one.dims
        }

    def group(self, number: int) -> Any:
        """Make one group, in memory of its own."""
        start = perf_counter()
        indexers = self._indexers[number]
        group = self._obj.isel(indexers)
        if not self._selection_copies or isinstance(indexers[self.dim], slice):
            group = _unshared(loaded(group), self._obj, indexers)
        self._made += 1
        self._seconds += perf_counter() - start
        return group

    def transfer_seconds(self) -> float:
        """Estimated seconds to send a group and return its result; they grow with the seconds to make a group here."""
        nbytes = sum(one.nbytes for one in self._selected.values())
        once = TRANSFER_SECONDS_PER_BYTE * nbytes + (0.0 if CommonData.was_sent else IMPORT_SECONDS)
        mean = self._seconds / max(1, self._made)
        return max(TRANSFER_SECONDS + once / len(self._indexers), TRANSFER_PER_SELECTION * mean)

    def pack(self, number: int) -> tuple[Indexers, list[Any]]:
        """Indexers of a group and the data that is sent with it, in the order of the `CommonData`."""
        indexers = self._indexers[number]
        parts = [one.isel(indexers) for one in self._selected.values()]
        return indexers, [(one if one._in_memory else one.compute()).data for one in parts]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        obj = self._obj
        CommonData.was_sent = True
        selected = [(name, one.dims, one.attrs, one.encoding) for name, one in self._selected.items()]
        if isinstance(obj, xr.Dataset):
            return CommonData, (obj.drop_vars(list(self._selected)).compute(), selected, list(obj.data_vars), None)
        return CommonData, (obj.coords.to_dataset().compute(), selected, None, obj.name)


class Group:
    """A reference to one group, which is made in the process that uses it."""

    __slots__ = ("_grouped", "_number")

    def __init__(self, grouped: GroupedData, number: int) -> None:
        self._grouped, self._number = grouped, number

    def materialize(self, grouped: GroupedData) -> Any:
        """Make the DataArray or Dataset."""
        return grouped.group(self._number)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        indexers, data = self._grouped.pack(self._number)
        payload = dump(None, data)
        return SentGroup, (indexers, payload.to_bytes(), payload.table)


class SentGroup:
    """A group in a worker, without the data that all groups have in common; `data` and `table` are from `dump`."""

    __slots__ = ("_data", "_indexers", "_table")

    def __init__(self, indexers: Indexers, data: bytes, table: BufferTable) -> None:
        self._indexers, self._data, self._table = indexers, data, table

    def materialize(self, common: CommonData) -> Any:
        """Make the DataArray or Dataset, with the memory layout that it has in the caller."""
        data = load(private_copy(self._data), self._table, lambda _: None)
        return common.group(self._indexers, data)


class CommonData:
    """All data of a DataArray or Dataset that is not sent with single groups.

    Parameters
    ----------
    common : Dataset
        Coordinates, and variables that do not have the groups' dimension.
    selected : list of (name, dims, attrs, encoding)
        The other variables, without data. For a DataArray one, named `ItsOwn`.
    names : list of hashable or None
        Names of all data variables, in order. None for a DataArray.
    """

    was_sent = False  # True once this process has sent common data to a worker

    def __init__(
        self, common: xr.Dataset, selected: list[tuple[Any, ...]], names: list[Hashable] | None, name: Hashable
    ) -> None:
        self._common, self._selected, self._names, self._name = common, selected, names, name

    def group(self, indexers: Indexers, data: list[np.ndarray]) -> Any:
        """Make the group of these indexers, with its data."""
        # The dimension may have no coordinate, and no other variable that is not sent.
        common = _unshared(self._common.isel(indexers, missing_dims="ignore"), self._common, indexers)
        selected = {
            name: variable_of(dims, one, attrs, encoding)
            for (name, dims, attrs, encoding), one in zip(self._selected, data, strict=True)
        }
        if self._names is None:
            return labelled(selected[ItsOwn], common.coords, self._name)
        dataset = xr.Dataset(
            {name: selected[name] if name in selected else common.variables[name] for name in self._names},
            common.coords,
        )
        dataset.attrs, dataset.encoding = common.attrs, common.encoding
        return dataset


def loaded(obj: Any) -> Any:
    """A DataArray or Dataset with all data and coordinates in memory: `obj` itself if they are."""
    # `compute` takes 0.1 ms even if everything is in memory.
    return obj if all(one._in_memory for one in variables_of(obj).values()) else obj.compute()


def _unshared(group: Any, obj: Any, indexers: Indexers) -> Any:
    """The group ``obj.isel(indexers)``, with copies of variables that share memory with `obj`."""
    originals = variables_of(obj)
    selected = {dim for dim, indexer in indexers.items() if not isinstance(indexer, slice)}
    copies = {
        name: copied(one.data)
        for name, one in variables_of(group).items()
        if not (isinstance(one, xr.IndexVariable) or selected.intersection(one.dims) or not originals[name]._in_memory)
        and _may_share_memory(one.data, originals[name].data)
    }
    if not copies:
        return group
    # Not `assign`, which gives a dimension without an index one.
    group = group.copy(deep=False)
    variables = variables_of(group)
    for name, data in copies.items():
        variables[name].data = variable_of(variables[name].dims, data)
    return group


def _may_share_memory(one: Any, other: Any) -> bool:
    both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
    return np.may_share_memory(one, other) if both else True
