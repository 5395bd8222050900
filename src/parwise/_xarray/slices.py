"""Functions of DataArrays: slices with their coordinates go in, labelled results come out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .._core.results import Results, same_results, tuple_of


class Boxed:
    """A result of any type, which NumPy takes as one object."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Whether both have the same labels and bits."""
        if not isinstance(other, Boxed) or type(self.value) is not type(other.value):
            return False
        if not isinstance(self.value, xr.DataArray | xr.Dataset):
            return same_results(Results([[self.value]]), Results([[other.value]]))
        return bool(self.value.identical(other.value)) and _bits(self.value) == _bits(other.value)

    __hash__ = None  # type: ignore[assignment]


def _bits(value: Any) -> dict[Hashable, Any]:
    # By name: the order among coordinates and data is no part of a Dataset.
    arrays = value.variables if isinstance(value, xr.Dataset) else {None: value.variable}
    return {n: x.to_numpy().tolist() if x.dtype.hasobject else x.to_numpy().tobytes() for n, x in arrays.items()}


class BareResult(NamedTuple):
    """A labelled result whose coordinates are all those of its slice, which need not travel.

    Attributes
    ----------
    data : ndarray
    dims, name, attrs, encoding
        As of the DataArray.
    names : tuple of hashable
        The coordinates that it has.
    """

    data: np.ndarray
    dims: tuple[Hashable, ...]
    name: Hashable
    attrs: dict[Any, Any]
    encoding: dict[Any, Any]
    names: tuple[Hashable, ...]

    @property
    def look(self) -> tuple[Any, ...]:
        """What results agree in that can be stacked."""
        return self.data.dtype, self.data.shape, self.dims, self.name, self.names

    def opened(self, like: xr.DataArray) -> xr.DataArray:
        """The DataArray, whose slice this is `like`."""
        coords = like.coords.to_dataset().drop_vars([name for name in like.coords if name not in self.names]).coords
        whole = xr.DataArray(self.data, coords=coords, dims=self.dims, name=self.name, attrs=self.attrs)
        whole.encoding = self.encoding
        return whole


def boxed(result: Any, like: xr.DataArray | None = None) -> Any:
    """A labelled result, or tuple of such, in boxes; `like` is the slice that it came from."""
    if isinstance(result, tuple):
        return tuple_of(type(result), [boxed(one, like) for one in result])
    if not isinstance(result, xr.DataArray):
        raise TypeError(
            "with as_xarray=True func must return a DataArray, or a tuple of them, "
            f"but it returned {type(result).__name__}"
        )
    if not all(one._in_memory for one in (result.variable, *result.coords.variables.values())):
        result = result.compute()
    if like is None:
        return Boxed(result)
    variables, own = result.coords.variables, like.coords.variables
    same = all(name in own and _unchanged(one, own[name]) for name, one in variables.items())
    if not (same and set(result.xindexes) == set(like.xindexes).intersection(variables)):
        return Boxed(result)
    data = result.data if isinstance(result.data, np.ndarray) else result.to_numpy()
    names = tuple(name for name in own if name in variables)
    return Boxed(BareResult(data, result.dims, result.name, dict(result.attrs), dict(result.encoding), names))


def _unchanged(one: xr.Variable, other: xr.Variable) -> bool:
    return one is other or (type(one) is type(other) and bool(one.identical(other)))


class SliceTemplate:
    """How slices of one DataArray are labelled.

    Parameters
    ----------
    array : DataArray
    """

    def __init__(self, array: xr.DataArray) -> None:
        # Not the data: it travels on its own. Coordinates may lie in files.
        self._coords = array.coords.to_dataset().compute()
        self._dims, self._shape, self._dtype = array.dims, array.shape, array.dtype
        self._name, self._attrs, self._encoding = array.name, dict(array.attrs), dict(array.encoding)

    @functools.cached_property
    def _like(self) -> xr.DataArray:
        """The array, with data that takes no memory."""
        data = np.broadcast_to(np.empty((), self._dtype), self._shape)
        like = xr.DataArray(data, self._coords.coords, self._dims, name=self._name, attrs=self._attrs)
        like.encoding = self._encoding
        return like

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_like"}

    def slice(self, data: Any, where: Mapping[Hashable, Any]) -> xr.DataArray:
        """What ``array.isel(where)`` gives, of which this is the data."""
        if not isinstance(data, np.ndarray):
            # NumPy's scalars are of native byte order; what else there is might be a list.
            scalar = np.empty((), self._dtype)
            scalar[()] = data
            data = scalar
        view = self._like.isel(where)
        view.data = data
        return view


class LabelledFunction:
    """A function of labelled slices, as one of plain slices and an index.

    Parameters
    ----------
    func : callable
    views : sequence of SliceTemplate
        One per mapped array.
    dims : tuple of hashable
        The mapped dimensions.
    grid : tuple of int
        Their lengths.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        views: Sequence[SliceTemplate],
        dims: tuple[Hashable, ...],
        grid: tuple[int, ...],
    ) -> None:
        self.__wrapped__ = func  # has the signature
        self._views = views
        self._dims = dims
        self._grid = grid

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Take slices, their index, and what every call gets."""
        count = len(self._views)
        if isinstance(given[count], np.ndarray):  # a block
            lo, hi = int(given[count].min()), int(given[count].max()) + 1
            where: dict[Hashable, Any] = {self._dims[0]: slice(lo, hi)}
        else:
            index = np.unravel_index(int(given[count]), self._grid)
            where = dict(zip(self._dims, map(int, index), strict=True))
        slices = [view.slice(data, where) for view, data in zip(self._views, given[:count], strict=True)]
        result = self.__wrapped__(*slices, *given[count + 1 :], **named)
        if not isinstance(given[count], np.ndarray):
            return boxed(result, slices[0])
        ndim = given[count].ndim
        if isinstance(result, tuple):
            return tuple(_block(boxed(one), ndim) for one in result)
        return _block(boxed(result), ndim)


def _block(box: Boxed, ndim: int) -> np.ndarray:
    """A box as a block of one element."""
    block = np.empty((1,) * ndim, object)
    block.flat[0] = box
    return block


def positions(grid: tuple[int, ...], places: Sequence[int]) -> np.ndarray:
    """The number of each element, with the mapped axes at `places`."""
    shape = [1] * (max(places) + 1)
    for place, length in zip(places, grid, strict=True):
        shape[place] = length
    return np.arange(math.prod(grid)).reshape(grid).transpose(np.argsort(places)).reshape(shape)
