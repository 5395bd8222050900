"""The parts of a whole that a groupby makes, one by one, and how they travel."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._core.input_array import InputArray
from .._workers.serialization import dump, load, private_copy

# What it takes on both sides to hand a part to a worker, and a result back. For 10 rows that was 0.3 ms, for 10 MB
# 25 ms and half as much again for a result of that size; and to make the part here 0.1 ms and 8 ms.
GROUP_SECONDS = 0.3e-3
GROUP_BYTE_SECONDS = 3e-9
GROUPS_OF_TIME = 3
# What a worker takes to import xarray for its first part.
IMPORT_SECONDS = 0.5

#: Where a part lies: along one dimension, a list of indices or a slice.
Where = Mapping[Hashable, Any]


def wheres_of(by: Any) -> list[Where]:
    """Where the groups of a groupby lie, in the order in which xarray's own loop takes them."""
    shadow = copy.copy(by)
    shadow._obj = _Asked()
    return list(shadow._iter_grouped())


class _Asked:
    """Gives what it is asked for."""

    def isel(self, where: Where) -> Where:
        return where


class GroupedData:
    """A DataArray or Dataset, and its parts, which a function may write to.

    Parameters
    ----------
    whole : DataArray or Dataset
    wheres : sequence of dict
        One at least, all along the same dimension.

    Attributes
    ----------
    dim : hashable
        That dimension.
    """

    def __init__(self, whole: Any, wheres: Sequence[Where]) -> None:
        self._whole, self._wheres = whole, wheres
        self._taken, self._seconds = 0, 0.0
        (self.dim,) = wheres[0]
        data = whole.data_vars if isinstance(whole, xr.Dataset) else {None: whole}
        # Whether all is in memory and cut by each group: a list of indices makes a copy of that by itself.
        self._plain = all(
            one._in_memory and (self.dim in one.dims or isinstance(one, xr.IndexVariable))
            for one in _variables(whole).values()
        )
        self._moving: dict[Hashable, xr.Variable] = {n: x.variable for n, x in data.items() if self.dim in x.dims}

    def part(self, number: int) -> Any:
        """One part, in memory of its own."""
        start = time.perf_counter()
        where = self._wheres[number]
        part = self._whole.isel(where)
        if not self._plain or isinstance(where[self.dim], slice):
            part = _private(loaded(part), self._whole, where)
        self._taken += 1
        self._seconds += time.perf_counter() - start
        return part

    def transfer_seconds(self) -> float:
        """Seconds that it takes to hand a part to a worker: a guess, and then by what it takes to make one here."""
        nbytes = sum(one.nbytes for one in self._moving.values())
        once = GROUP_BYTE_SECONDS * nbytes + (0.0 if CommonData.sent else IMPORT_SECONDS)
        return max(GROUP_SECONDS + once / len(self._wheres), GROUPS_OF_TIME * self._seconds / max(1, self._taken))

    def sent(self, number: int) -> tuple[Where, list[Any]]:
        """Where a part lies, and what travels with it; what all parts have in common is in the `CommonData`."""
        where = self._wheres[number]
        return where, [(one if one._in_memory else one.compute()).data for one in self._cut(where)]

    def _cut(self, where: Where) -> list[xr.Variable]:
        return [one.isel(where) for one in self._moving.values()]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        whole = self._whole
        CommonData.sent = True
        moving = [(name, one.dims, one.attrs, one.encoding) for name, one in self._moving.items()]
        if isinstance(whole, xr.Dataset):
            return CommonData, (whole.drop_vars(list(self._moving)).compute(), moving, list(whole.data_vars), None)
        return CommonData, (whole.coords.to_dataset().compute(), moving, None, whole.name)


class Group:
    """One part of a whole, which is made where it is used.

    Parameters
    ----------
    whole : GroupedData
    number : int
    """

    __slots__ = ("_number", "_whole")

    def __init__(self, whole: GroupedData, number: int) -> None:
        self._whole, self._number = whole, number

    def materialize(self, whole: GroupedData) -> Any:
        """The DataArray or Dataset."""
        return whole.part(self._number)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        where, moving = self._whole.sent(self._number)
        payload = dump(None, moving)
        return SentGroup, (where, payload.to_bytes(), payload.table)


class SentGroup:
    """A part that has come to where it is used, but for what all parts have in common."""

    __slots__ = ("_data", "_index", "_where")

    def __init__(self, where: Where, data: bytes, index: list[tuple[int, int, bool]]) -> None:
        self._where, self._data, self._index = where, data, index

    def materialize(self, skeleton: CommonData) -> Any:
        """The DataArray or Dataset, in the layout that it has in the caller."""
        moving = load(private_copy(self._data), self._index, lambda _: None)
        return skeleton.part(self._where, moving)


class CommonData:
    """All of a whole but the data that travels with its parts.

    Parameters
    ----------
    still : Dataset
        Coordinates, and the variables that every part has whole.
    moving : list of (name, dims, attrs, encoding)
        The others; one without a name if the whole is a DataArray.
    order : list of hashable or None
        All variables of a Dataset.
    name : hashable
        Of the DataArray.

    Attributes
    ----------
    sent : bool
        Whether this process has sent any to a worker.
    """

    sent = False

    def __init__(
        self, still: xr.Dataset, moving: list[tuple[Any, ...]], order: list[Hashable] | None, name: Hashable
    ) -> None:
        self._still, self._moving, self._order, self._name = still, moving, order, name

    def part(self, where: Where, data: list[np.ndarray]) -> Any:
        """The part that lies at `where`."""
        still = _private(self._still.isel(where), self._still, where)
        made = {
            name: xr.Variable(dims, one, attrs, encoding)
            for (name, dims, attrs, encoding), one in zip(self._moving, data, strict=True)
        }
        if self._order is None:
            part = xr.DataArray(made[None], still.coords, name=self._name)
            part.encoding = made[None].encoding
            return part
        whole = xr.Dataset(
            {name: made[name] if name in made else still.variables[name] for name in self._order}, still.coords
        )
        whole.attrs, whole.encoding = still.attrs, still.encoding
        return whole


def _variables(whole: Any) -> dict[Hashable, xr.Variable]:
    """All variables of a Dataset, or the coordinates of a DataArray and itself, without a name."""
    if isinstance(whole, xr.Dataset):
        return dict(whole.variables)
    return {**whole.coords.variables, None: whole.variable}


def loaded(labelled: Any) -> Any:
    """A DataArray or Dataset with all of its data and coordinates in memory."""
    # xarray's own `compute` takes 0.1 ms where there is nothing to do.
    return labelled if all(one._in_memory for one in _variables(labelled).values()) else labelled.compute()


def _private(part: Any, whole: Any, where: Where) -> Any:
    """The part that lies at `where`, without memory that it shares with the whole."""
    theirs = _variables(whole)
    copied = {dim for dim, index in where.items() if not isinstance(index, slice)}
    copies = {
        name: one.copy(deep=False, data=_copy(one.data))
        for name, one in _variables(part).items()
        if not (isinstance(one, xr.IndexVariable) or copied.intersection(one.dims) or not theirs[name]._in_memory)
        and _shared(one.data, theirs[name].data)
    }
    if None in copies and not isinstance(part, xr.Dataset):
        part.data = copies.pop(None).data
    if not copies:
        return part
    return part.assign(copies) if isinstance(part, xr.Dataset) else part.assign_coords(copies)


def _shared(one: Any, other: Any) -> bool:
    both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
    return np.may_share_memory(one, other) if both else True


def _copy(array: Any) -> Any:
    """A copy in the same layout."""
    if not isinstance(array, np.ndarray):
        return copy.deepcopy(array)
    return InputArray(array[None], (0,), False).private(0, 1)[0] if array.ndim else array.copy()
