"""From results as the function gave them to the arrays that NumPy's own loops make of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._api.run import compute
from .._core.arguments import make_call
from .._core.call import BY_INDEX, Call, Naming
from .._core.kernel import is_nested
from .._core.output import RawResults
from .._core.output_column import gap_value
from .._core.settings import Settings


@dataclass(frozen=True)
class IterationOrder:
    """The elements of an array in some order, and where a run of them lies.

    Attributes
    ----------
    shape : tuple of int
        The array's.
    order : tuple of int
        Its axes, outermost first.
    start : int
        Elements before the run.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    start: int = 0

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of the axes in this order."""
        return tuple(self.shape[k] for k in self.order)

    def back(self, array: np.ndarray) -> np.ndarray:
        """An array of `lengths` with its axes in their places."""
        if len(self.order) < 2:
            return array
        return array.transpose(tuple(np.argsort(self.order)))

    def public_index(self, index: int) -> int | tuple[int, ...]:
        """Where the array has the run's element `index`."""
        found = [int(k) for k in np.unravel_index(index + self.start, self.lengths or (1,))]
        return found[0] if len(found) == 1 else tuple(found[self.order.index(k)] for k in range(len(found)))

    def name(self, index: int) -> str:
        """How an error names that element."""
        axes = f"axes {tuple(range(len(self.shape)))}" if len(self.shape) > 1 else "axis 0"
        return f"in element {self.public_index(index)} along {axes}"


class RunNaming(Naming):
    """How errors name the elements of a run: by their places in the array."""

    def __init__(self, walk: IterationOrder) -> None:
        self._walk = walk

    def name(self, call: Call, index: int, stop: int | None = None) -> str:
        """Name an element."""
        return self._walk.name(index)

    def public_index(self, call: Call, index: int) -> int | tuple[int, ...]:
        """Where the array has an element of the run."""
        return self._walk.public_index(index)


def collect(
    func: Callable[..., Any],
    arrays: Iterable[Any],
    axis: tuple[int, ...],
    settings: Settings,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    walk: IterationOrder | None = None,
) -> RawResults:
    """Map as `parallel_apply` does, and have the results as they came.

    Elements are those that `walk` is over, if there is one.
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
        naming=BY_INDEX if walk is None else RunNaming(walk),
    )
    found: RawResults = compute(call)
    return found


def loop_suffices(settings: Settings, count: int = 2) -> bool:
    """True if NumPy's own loop does all that is asked for."""
    return not settings.needs_runner and (count < 2 or settings.serial_reason(count, is_nested()) is not None)


def refuse_options(settings: Settings, what: str) -> None:
    """Complain of options that NumPy's own loop cannot heed."""
    if settings.isolate or settings.ignore:
        names = "isolate and timeout" if settings.isolate else "errors='ignore'"
        raise TypeError(
            f"{what} can only be mapped by NumPy's own loop in this process, which knows nothing of the options "
            f"{names}; leave them out, or pass np.asarray(x)"
        )


def is_plain(array: np.ndarray) -> bool:
    """Whether workers can be given an array's elements as NumPy's loop gives them."""
    return type(array) in (np.ndarray, np.memmap)


def loop_shape(shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """What shapes are broadcast to; None if they do not fit."""
    if len({*shapes}) == 1:
        return shapes[0]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def iteration_order(objects: list[np.ndarray], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes, outermost first, in the order in which a ufunc walks through arrays: that of memory."""
    every = tuple(range(len(shape)))
    if len(shape) < 2 or all(one.flags.c_contiguous and one.shape == shape for one in objects):
        return every
    operands: Any = [*objects, None]
    modes: Any = [["readonly"]] * len(objects) + [["writeonly", "allocate"]]
    walk = np.nditer(operands, ["refs_ok"], modes)
    strides = walk.operands[-1].strides
    return tuple(sorted(every, key=lambda k: -strides[k]))


class Outputs:
    """What becomes of a collection.

    Parameters
    ----------
    found : RawResults
    shape : tuple of int
        Lengths of the mapped axes, in the order in which they were mapped.
    """

    def __init__(self, found: RawResults, shape: tuple[int, ...]) -> None:
        self._found = found
        self._shape = shape
        self.empty = len(found.gaps) == math.prod(shape)

    def uniform(self) -> np.ndarray | None:
        """All results in one array, if they are of one kind and there are no gaps."""
        found = self._found
        if found.kind is None or len(found.gaps):
            return None
        return found.array.reshape((*self._shape, *found.array.shape[found.mapped :]))

    def values(self) -> list[Any]:
        """The results; for gaps, the first one that is there."""
        values = self._found.values()
        gaps = self._found.gaps.tolist()
        if gaps:
            missing = set(gaps)
            first = next(value for k, value in enumerate(values) if k not in missing)
            for k in gaps:
                values[k] = first
        return values

    def objects(self) -> np.ndarray:
        """The results as an array of Python objects."""
        found = self._found
        if found.kind is None and not len(found.gaps):
            return found.array.reshape(self._shape)
        return objects_of(self.values(), self._shape)

    def with_gaps(self, array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        """An array of results, with gaps where there are none; `axes` are the mapped ones."""
        gaps = self._found.gaps
        if not len(gaps):
            return array
        dtype, value = gap_value(array.dtype)
        array = array.astype(dtype)
        np.moveaxis(array, axes, range(len(axes)))[np.unravel_index(gaps, self._shape)] = value
        return array

    def nothing(self) -> np.ndarray:
        """For results of which not one is there."""
        return np.full(self._shape, np.nan)


def objects_of(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Values as they are, sequences too, in an array of objects."""
    return np.fromiter(values, object, len(values)).reshape(shape)
