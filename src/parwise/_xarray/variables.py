"""Variables of xarray: made of data as it is, copied, and compared to the bit."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._core.inputs.arrays import InputArray
from .._core.results import same, same_array


class ItsOwn:
    """The name of a DataArray's own variable beside its coordinates, whose names may be any value, None too."""


def variables_of(obj: Any) -> dict[Hashable, xr.Variable]:
    """Variables by name of a Dataset; or of a DataArray, whose own variable is named `ItsOwn`."""
    if isinstance(obj, xr.Dataset):
        return dict(obj.variables)
    return {**obj.coords.variables, ItsOwn: obj.variable}


def variable_of(dims: Sequence[Hashable], data: Any, attrs: Any = None, encoding: Any = None) -> xr.Variable:
    """A variable of this very array, which xarray takes over unchanged wherever it takes data.

    A bare array of NumPy it converts: dates and None among objects become datetime64 and NaN, by the other values that
    are there, and datetime64 a contiguous copy. A slice or a group would not be what `isel` gives.
    """
    return xr.Variable(dims, data, attrs, encoding, fastpath=isinstance(data, np.ndarray))


def labelled(variable: xr.Variable, coords: Any, name: Hashable) -> xr.DataArray:
    """A DataArray over a variable, with its encoding, which xarray leaves out."""
    array = xr.DataArray(variable, coords, name=name)
    array.encoding = variable.encoding
    return array


def private(variable: xr.Variable) -> xr.Variable:
    """The variable in memory of its own, with its own attributes. Indexes and arrays of pandas are shared."""
    held = variable._data
    if isinstance(held, np.ndarray):
        # `copied` takes 60 us, for each coordinate of each element.
        held = held.copy(order="K") if held.flags.forc else copied(held)
    return variable._replace(data=held)


def gaps_like(result: Any) -> Any:
    """A DataArray or Dataset of gaps, with the dimensions of a result: `where` of xarray, with None for objects."""
    gaps = result.where(False)
    if isinstance(gaps, xr.Dataset):
        return gaps.assign({name: _none_for_objects(one) for name, one in gaps.data_vars.items()})
    return _none_for_objects(gaps)


def _none_for_objects(gaps: xr.DataArray) -> xr.DataArray:
    return gaps.copy(data=np.full(gaps.shape, None)) if gaps.dtype == object else gaps


def copied(array: Any) -> Any:
    """A copy with the same memory layout."""
    if not isinstance(array, np.ndarray):
        return copy.deepcopy(array)
    return InputArray(array[None], (0,), False).private(0, 1)[0] if array.ndim else array.copy()


def same_variable(one: xr.Variable, other: xr.Variable) -> bool:
    """True if two variables in memory have the same dimensions, attributes, dtype and bits.

    `Variable.identical` takes no account of the dtype and the sign of zero.
    """
    if type(one) is not type(other) or one.dims != other.dims or not _same_attrs(one.attrs, other.attrs):
        return False
    held, other_held = one._data, other._data
    if isinstance(held, np.ndarray) and isinstance(other_held, np.ndarray):
        return same_array(held, other_held)
    if held is other_held:  # an index, or an extension array of pandas
        return True
    if one.dtype != other.dtype:
        return False
    if isinstance(one, xr.IndexVariable):
        return _index_of(held) == _index_of(other_held) or same_array(one.to_numpy(), other.to_numpy())
    # To convert or compare an extension array of no dimensions may overflow the stack (pandas 3.1).
    return bool(one.equals(other))


def _same_attrs(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    if not (one or other):
        return True
    # Mostly the values are the same objects, and to compare strings by `same` takes 2 us each.
    return one.keys() == other.keys() and all(
        value is other[name] or same(value, other[name]) for name, value in one.items()
    )


def _index_of(held: Any) -> tuple[int, Any]:
    """What tells whether the data of two index variables is the same pandas index, or the same level of one."""
    return id(getattr(held, "array", held)), getattr(held, "level", None)
