"""Raw results of a call, and the arrays that NumPy's own loops make of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._api.run import compute
from .._core.arguments import make_call
from .._core.call import BY_INDEX, Call, Naming
from .._core.nesting import is_nested
from .._core.options.settings import Settings
from .._core.outputs.gaps import gap_value
from .._core.outputs.output import RawResults
from .._workers.shared_globals import set_up_here


@dataclass(frozen=True)
class IterationOrder:
    """The order in which a loop visits the elements of an array of some shape.

    `axes` begin with that of the outermost loop; `start` is the number of elements that the loop has visited before.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    start: int = 0

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of the axes, in the order of `axes`."""
        return tuple(self.shape[k] for k in self.axes)

    def restore_axes(self, array: np.ndarray) -> np.ndarray:
        """Transpose an array of shape `lengths` to the order of axes in `shape`."""
        if len(self.axes) < 2:
            return array
        return array.transpose(tuple(np.argsort(self.axes)))

    def public_index(self, index: int) -> int | tuple[int, ...]:
        """Index in the array of the element visited as number `index` from `start` on."""
        found = [int(k) for k in np.unravel_index(index + self.start, self.lengths or (1,))]
        return found[0] if len(found) == 1 else tuple(found[self.axes.index(k)] for k in range(len(found)))

    def name(self, index: int) -> str:
        """Words by which an error names that element."""
        axes = f"axes {tuple(range(len(self.shape)))}" if len(self.shape) > 1 else "axis 0"
        return f"in element {self.public_index(index)} along {axes}"


class OrderNaming(Naming):
    """Names elements in errors by their indices in the user's array, which the call visits in `order`."""

    def __init__(self, order: IterationOrder) -> None:
        self._order = order

    def name(self, call: Call, index: int, stop: int | None = None) -> str:
        """Name an element."""
        return self._order.name(index)

    def public_index(self, call: Call, index: int) -> int | tuple[int, ...]:
        """Index of an element in the array."""
        return self._order.public_index(index)

    def public_indices(self, call: Call, indices: np.ndarray) -> list[Any]:
        """Indices of elements in the array."""
        return list(map(self._order.public_index, indices.tolist()))


def collect(
    func: Callable[..., Any],
    arrays: Iterable[Any],
    axis: tuple[int, ...],
    settings: Settings,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    order: IterationOrder | None = None,
) -> RawResults:
    """Map as `parallel_apply` does, and return the results as the function returned them.

    `order` is the order in which the call visits the user's array, for errors.
    """
    call = make_call(
        func,
        tuple(arrays),
        axis=axis,
        args=args,
        kwargs=kwargs,
        vectorized=False,
        chunk=None,
        depth=0,
        boundary=None,
        out=None,
        rng=None,
        settings=settings,
        form="raw",
        naming=BY_INDEX if order is None else OrderNaming(order),
    )
    results: RawResults = compute(call)
    return results


def loop_suffices(settings: Settings, count: int = 2) -> bool:
    """Return True if NumPy's own loop does all that the settings ask for."""
    return not settings.needs_runner and (count < 2 or settings.serial_reason(count, is_nested()) is not None)


def use_own_loop(settings: Settings, what: str, remedy: str = ", or pass np.asarray(x)") -> None:
    """Prepare this process for NumPy's own loop; raise a TypeError for settings that it cannot follow.

    `what` names the argument, and `remedy` what else may be done than to leave the settings out.
    """
    if settings.isolate or settings.ignore:
        names = "isolate and timeout" if settings.isolate else "errors='ignore'"
        raise TypeError(
            f"{what} can only be mapped by NumPy's own loop in this process, which cannot follow the "
            f"options {names}; leave them out{remedy}"
        )
    if settings.setup is not None:
        set_up_here(settings.setup)


def is_plain(array: np.ndarray) -> bool:
    """Return True if elements of the array are the same in workers as in NumPy's own loop."""
    return type(array) in (np.ndarray, np.memmap)


def are_plain(arrays: list[np.ndarray], settings: Settings) -> bool:
    """Return True if all arrays are plain; raise a TypeError if one is not and the settings need workers."""
    for one in arrays:
        if not is_plain(one):
            use_own_loop(settings, f"an argument of type {type(one).__name__}")
            return False
    return True


def loop_shape(shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape to which all are broadcast; None if they cannot be."""
    if len({*shapes}) == 1:
        return shapes[0]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def iteration_axes(objects: list[np.ndarray], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of the broadcast shape, outermost first, in the order of memory in which a ufunc visits elements."""
    axes = tuple(range(len(shape)))
    if len(shape) < 2 or all(one.flags.c_contiguous and one.shape == shape for one in objects):
        return axes
    operands: Any = [*objects, None]
    flags: Any = [["readonly"]] * len(objects) + [["writeonly", "allocate"]]
    iterator = np.nditer(operands, ["refs_ok"], flags)
    strides = iterator.operands[-1].strides
    return tuple(sorted(axes, key=lambda k: -strides[k]))


class Outputs:
    """Raw results of all elements, in the forms from which NumPy makes its outputs.

    The lengths in `shape` are in the order in which axes were mapped. `empty` is True if every result is a gap.
    """

    def __init__(self, results: RawResults, shape: tuple[int, ...]) -> None:
        self._results = results
        self._shape = shape
        self.empty = len(results.gaps) == math.prod(shape)

    def uniform(self) -> np.ndarray | None:
        """All results as one array, if they have one type, dtype and shape and none is a gap."""
        results = self._results
        if results.kind is None or len(results.gaps):
            return None
        return results.array.reshape((*self._shape, *results.array.shape[results.mapped :]))

    def values(self) -> list[Any]:
        """The results, with the first one that is not a gap in place of gaps."""
        values = self._results.values()
        gaps = self._results.gaps.tolist()
        if gaps:
            missing = set(gaps)
            first = next(value for k, value in enumerate(values) if k not in missing)
            for k in gaps:
                values[k] = first
        return values

    def objects(self) -> np.ndarray:
        """The results as an array of Python objects."""
        results = self._results
        if results.kind is None and not len(results.gaps):
            return results.array.reshape(self._shape)
        return object_array(self.values(), self._shape)

    def with_gaps(self, array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        """Fill the gaps of an array of results with NaN or the like; `axes` are the mapped axes."""
        gaps = self._results.gaps
        if not len(gaps):
            return array
        dtype, value = gap_value(array.dtype)
        array = array.astype(dtype)
        np.moveaxis(array, axes, range(len(axes)))[np.unravel_index(gaps, self._shape)] = value
        return array

    def all_gaps(self, otype: Any = np.float64, core_shape: tuple[int, ...] = ()) -> np.ndarray:
        """An array of gaps, for a call in which every result is one; `otype` is what was told of results."""
        dtype, value = gap_value(np.dtype(otype))
        return np.full((*self._shape, *core_shape), value, dtype)


def object_array(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """An array whose items are the values themselves, sequences too."""
    return np.fromiter(values, object, len(values)).reshape(shape)
