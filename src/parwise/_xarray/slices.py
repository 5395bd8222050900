"""Functions of DataArrays: slices with their coordinates go in, labelled results come out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .._core.results import Results, same_results, tuple_of
from .variables import labelled, private, same_variable, variable_of, variables_of


class Boxed:
    """A result of any type, which NumPy stores as one object."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Return True if both values have the same labels and bits."""
        if not isinstance(other, Boxed) or type(self.value) is not type(other.value):
            return False
        if not isinstance(self.value, xr.DataArray | xr.Dataset):
            return same_results(Results([[self.value]]), Results([[other.value]]))
        others = variables_of(other.value)
        return bool(self.value.identical(other.value)) and all(
            same_variable(one, others[name]) for name, one in variables_of(self.value).items()
        )

    __hash__ = None  # type: ignore[assignment]


class BareResult(NamedTuple):
    """A labelled result without its coordinates, all of which are its slice's and need not be sent."""

    data: np.ndarray
    dims: tuple[Hashable, ...]
    name: Hashable
    attrs: dict[Any, Any]
    encoding: dict[Any, Any]
    coord_names: tuple[Hashable, ...]

    @property
    def form(self) -> tuple[Any, ...]:
        """Dtype, shape, dims and names: results that agree in them can be stacked."""
        return self.data.dtype, self.data.shape, self.dims, self.name, self.coord_names

    def to_dataarray(self, like: xr.DataArray) -> xr.DataArray:
        """The result with its coordinates, which are taken from its slice `like`."""
        coords = like.coords.to_dataset().drop_vars([name for name in like.coords if name not in self.coord_names])
        return labelled(variable_of(self.dims, self.data, self.attrs, self.encoding), coords.coords, self.name)


def boxed(result: Any, like: xr.DataArray | None = None) -> Any:
    """Box a labelled result, or each of a tuple of them.

    The slice that the function got was `like`; a result whose coordinates are all its is boxed as a `BareResult`.
    """
    if isinstance(result, tuple):
        return tuple_of(type(result), [boxed(one, like) for one in result])
    if not isinstance(result, xr.DataArray):
        raise TypeError(
            "with as_xarray=True func must return a DataArray, or a tuple of them, but it returned "
            f"{type(result).__name__}; return a DataArray, or leave out as_xarray"
        )
    if not all(one._in_memory for one in (result.variable, *result.coords.variables.values())):
        result = result.compute()
    if like is None:
        return Boxed(result)
    variables, slice_variables = result.coords.variables, like.coords.variables
    same = all(name in slice_variables and same_variable(one, slice_variables[name]) for name, one in variables.items())
    if not (same and set(result.xindexes) == set(like.xindexes).intersection(variables)):
        return Boxed(result)
    data = result.data if isinstance(result.data, np.ndarray) else result.to_numpy()
    names = tuple(name for name in slice_variables if name in variables)
    return Boxed(BareResult(data, result.dims, result.name, dict(result.attrs), dict(result.encoding), names))


class SliceTemplate:
    """Labels of all slices of one DataArray, without its data."""

    def __init__(self, array: xr.DataArray) -> None:
        # The data is sent separately. Coordinates are computed, since they may be in files.
        self._coords = array.coords.to_dataset().compute()
        self._dims, self._shape, self._dtype = array.dims, array.shape, array.dtype
        self._name, self._attrs, self._encoding = array.name, dict(array.attrs), dict(array.encoding)

    @functools.cached_property
    def _template(self) -> xr.DataArray:
        """The array, over data that takes no memory."""
        data = np.broadcast_to(np.empty((), self._dtype), self._shape)
        variable = variable_of(self._dims, data, self._attrs, self._encoding)
        return labelled(variable, self._coords.coords, self._name)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_template"}

    def isel(self, indexers: Mapping[Hashable, Any]) -> xr.DataArray:
        """The slice ``array.isel(indexers)`` over data without meaning."""
        return self._template.isel(indexers)

    def slice(self, data: Any, like: xr.DataArray) -> xr.DataArray:
        """The slice with the labels of `like`, made of its data. All is its own: a function may change any of it."""
        if not isinstance(data, np.ndarray):
            # A NumPy scalar has native byte order, and any other object might be a list.
            scalar = np.empty((), self._dtype)
            scalar[()] = data
            data = scalar
        variable = like.variable._replace(data=data)
        coords = {name: private(one) for name, one in like.coords.variables.items()}
        return like._replace(variable, coords, indexes=dict(like._indexes))


class LabelledFunction:
    """A function of labelled slices, called with unlabelled slices and the number of the element."""

    def __init__(
        self,
        func: Callable[..., Any],
        templates: Sequence[SliceTemplate],
        dims: tuple[Hashable, ...],
        grid: tuple[int, ...],
    ) -> None:
        self.__wrapped__ = func  # has the signature
        self._templates, self._dims, self._grid = templates, dims, grid

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with a slice of each array; the number of the element follows the slices.

        A block has an array of numbers, and its results are boxed in object arrays of one element.
        """
        count = len(self._templates)
        number = args[count]
        if isinstance(number, np.ndarray):  # a block
            first = int(number.flat[0]) if number.size else 0
            indexers: dict[Hashable, Any] = {self._dims[0]: slice(first, first + number.size)}
        else:
            indexers = element_indexers(int(number), self._grid, self._dims)
        labels = [one.isel(indexers) for one in self._templates]
        slices = [one.slice(*pair) for one, *pair in zip(self._templates, args[:count], labels, strict=True)]
        result = self.__wrapped__(*slices, *args[count + 1 :], **kwargs)
        if not isinstance(number, np.ndarray):
            return boxed(result, labels[0])
        if isinstance(result, tuple):
            return tuple_of(type(result), [_as_block(boxed(one), number.ndim) for one in result])
        return _as_block(boxed(result), number.ndim)


class ConvertingFunction:
    """The user's function, whose results it converts in the worker; errors name the user's."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self.__wrapped__ = func  # has the signature


class ObjectsFunction(ConvertingFunction):
    """A function whose results are kept as the objects that they are, where `dtypes` say so.

    Of a number and a text NumPy would make two texts, and of NumPy's scalars Python's.
    """

    def __init__(self, func: Callable[..., Any], dtypes: Sequence[np.dtype[Any]]) -> None:
        super().__init__(func)
        self._are_objects = [one.kind == "O" for one in dtypes]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.__wrapped__(*args, **kwargs)
        if not isinstance(result, tuple):
            return _as_objects(result) if len(self._are_objects) == 1 else result
        if len(result) != len(self._are_objects):
            return result
        pairs = zip(result, self._are_objects, strict=True)
        return tuple_of(type(result), [_as_objects(one) if is_object else one for one, is_object in pairs])


def _as_objects(result: Any) -> Any:
    """A number or text, boxed; of an array or list, the array of its objects; any other result as it is."""
    if isinstance(result, str | bytes | int | float | complex | np.generic):
        return Boxed(result)
    if type(result) not in (np.ndarray, list):
        return result
    objects = np.asarray(result, object)
    return objects if objects.ndim else Boxed(objects[()])


def unboxed(column: np.ndarray) -> np.ndarray:
    """Results with the objects that were boxed."""
    if column.dtype == object:
        for place, one in enumerate(column.flat):
            if isinstance(one, Boxed):
                column.flat[place] = one.value
    return column


def _as_block(box: Boxed, ndim: int) -> np.ndarray:
    """An object array of one element, which is the result of a block."""
    block = np.empty((1,) * ndim, object)
    block.flat[0] = box
    return block


def element_indexers(number: int, grid: tuple[int, ...], dims: tuple[Hashable, ...]) -> dict[Hashable, int]:
    """Index of an element along each mapped dimension."""
    return dict(zip(dims, map(int, np.unravel_index(number, grid)), strict=True))


def element_numbers(grid: tuple[int, ...], axes: Sequence[int]) -> np.ndarray:
    """The number of each element, as an array with the mapped axes at `axes` and length 1 along all others."""
    shape = [1] * (max(axes) + 1)
    for axis, length in zip(axes, grid, strict=True):
        shape[axis] = length
    return np.arange(math.prod(grid)).reshape(grid).transpose(np.argsort(axes)).reshape(shape)
