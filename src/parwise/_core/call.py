"""`Call`, the checked description of one call, and how errors name its elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .indexing import Halo
from .inputs.arrays import InputArray
from .inputs.block_grid import BlockGrid
from .inputs.items import ENDLESS, ItemSequence, ItemStream
from .inputs.source import MAX_READ_BYTES
from .kernel import Kernel
from .layout import ALIGNMENT, PAGE
from .options.settings import Settings
from .results import Form

if TYPE_CHECKING:
    from .inputs.random import RandomStreams

# Calls of fewer bytes are not worth a proof that the function only reads: to copy so many takes 0.1 to 0.4 ms, as the
# proof of a new function does.
PROOF_BYTES = 10**6


class Block(NamedTuple):
    """One block of a block function.

    Attributes
    ----------
    start, stop : int or tuple of int
        The block's result is that of the elements ``start:stop``. Along several
        axes these are tuples, with one int per axis.
    first, last : int or tuple of int
        The function sees the elements ``first:last``, which include the halo.
        With a boundary they may lie beyond the array.
    """

    start: Any
    stop: Any
    first: Any
    last: Any


class Naming:
    """Names of elements in errors; `remedy` is advice on an element that ends its worker."""

    remedy = "With workers=1 the same element can be run in this process"
    #: Name of the variable of a Dataset that is mapped.
    variable: Hashable = None

    def name(self, call: Call, index: int, stop: int | None = None) -> str:
        """Name an element, or the block ``index:stop``."""
        axis = call.axis[0] if len(call.axis) == 1 else call.axis
        where = f"along {'axis' if len(call.axis) == 1 else 'axes'} {axis}"
        if call.block_grid is not None:
            return f"in block {', '.join(f'{lo}:{hi}' for lo, hi in call.block_grid.box(index, index))} {where}"
        if call.vectorized:
            return f"in block {index}:{stop} {where}"
        return f"in element {self.public_index(call, index)} {where}"

    def mapped(self, call: Call) -> str:
        """What is mapped over, in words; empty if the function gets something else than parts of the arrays."""
        axis = call.axis[0] if len(call.axis) == 1 else call.axis
        return f"blocks are cut along axis={axis}" if call.vectorized else f"axis={axis} is what is mapped over"

    def public_index(self, call: Call, index: int) -> int | tuple[int, ...]:
        """The flat index in the user's terms: an int, or a tuple for a tuple of axes."""
        if len(call.grid) == 1:
            return index
        if call.block_grid is not None:
            return call.block_grid.position(index)
        return tuple(int(i) for i in np.unravel_index(index, call.grid))

    def public_indices(self, call: Call, indices: np.ndarray) -> list[Any]:
        """Many flat indices in the user's terms."""
        if len(call.grid) == 1:
            return indices.tolist()  # type: ignore[no-any-return]
        return list(zip(*(one.tolist() for one in call.places(indices)), strict=True))

    def labels(self, call: Call, indices: np.ndarray) -> dict[Hashable, np.ndarray]:
        """The labels of some elements along each mapped dimension that has labels."""
        return {}

    def along(self, number: int) -> Naming:
        """The naming of a call along one of the mapped axes."""
        return self

    def option(self, values: Sequence[Any]) -> Any:
        """An option with one value for each of several mapped axes, as the user may write it."""
        return tuple(values)


class ItemNaming(Naming):
    """Names of items of lists and iterators in errors."""

    remedy = "With workers=1 the same item can be run in this process"

    def name(self, call: Call, index: int, stop: int | None = None) -> str:
        """Name an item."""
        return f"in item {index}"

    def mapped(self, call: Call) -> str:
        """Nothing: items are shown themselves."""
        return ""


BY_INDEX, BY_ITEM = Naming(), ItemNaming()


class Told(NamedTuple):
    """What is known of results before the function is called. It holds if no element has a result.

    Attributes
    ----------
    shapes : list of tuple of int
        Shape of one result, for each output.
    dtypes : list of dtype or None
        Dtype of each output; None is float64.
    in_tuple : bool
        True if the function returns a tuple.
    """

    shapes: list[tuple[int, ...]]
    dtypes: list[Any]
    in_tuple: bool


@dataclass(frozen=True, slots=True)
class Call:
    """The checked description of one call.

    Attributes
    ----------
    axis : tuple of int
        The mapped axes as given, after checking: all non-negative, or all negative.
    grid : tuple of int
        Lengths of the mapped axes.
    bounds : list of (int, int), optional
        The blocks of a block function; None for an element function.
    halo : Halo or BlockGrid, optional
        What blocks see of their neighbours, if anything; and how blocks lie along several axes.
    streams : RandomStreams, optional
        The generators of random numbers that the function gets.
    feed : ItemSequence or ItemStream, optional
        The source of items, if elements are items.
    form : {"arrays", "raw", "list"}
        The form in which results are returned.
    transfer_seconds : callable
        Returns the estimated seconds to send one element to a worker and its
        result back; 0 where only arrays are copied.
    told : callable, optional
        Returns what is `Told` of results; called if no element has one.
    held_bytes : int
        The most bytes of results that are held until chunks of a file are complete.
    """

    func: Callable[..., Any]
    inputs: tuple[InputArray, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    vectorized: bool
    axis: tuple[int, ...]
    grid: tuple[int, ...]
    bounds: list[tuple[int, int]] | None
    halo: Halo | BlockGrid | None
    streams: RandomStreams | None
    out: tuple[Any, ...] | None
    settings: Settings
    feed: ItemSequence | ItemStream | None = None
    form: Form = "arrays"
    naming: Naming = BY_INDEX
    transfer_seconds: Callable[[], float] = float
    told: Callable[[], Told] | None = None
    held_bytes: int = MAX_READ_BYTES

    @property
    def count(self) -> int:
        """Number of elements along the mapped axes; of items, `ENDLESS` until it is known."""
        return math.prod(self.grid) if self.feed is None else self.feed.count

    @property
    def expected(self) -> int:
        """The number of elements to plan for: that of items may be a guess, `ENDLESS` without one."""
        return self.count if self.feed is None or self.feed.count < ENDLESS else self.feed.expected

    @property
    def stream(self) -> ItemStream | None:
        """The source of items, if these must be read one after another."""
        return self.feed if isinstance(self.feed, ItemStream) else None

    @property
    def tasks(self) -> int:
        """Number of calls of the function: of blocks, or of elements."""
        return self.count if self.bounds is None else len(self.bounds)

    def kernel(self) -> Kernel:
        """Make what calls the function for the elements of a task."""
        settings = self.settings
        stride = self.bounds[0][1] if self.bounds else 1
        how = settings.ignore, settings.timeout is not None, self.halo, self.streams, stride, self.form
        first_task = None
        if settings.isolate and settings.verify is not False:
            from .effects.isolated import FirstTask  # most calls do without

            first_task = FirstTask()
        return Kernel(self.func, self.args, self.kwargs, self.vectorized, *how, first_task)

    def only_reads(self) -> bool:
        """Tell whether it is proved that the function only reads its arguments, where copies would take longer."""
        inputs = self.inputs
        if self.streams is not None or self.count * sum(one.row_bytes for one in inputs) < PROOF_BYTES:
            return False
        from .inputs.reading.proof import only_reads  # 1 ms, and most calls do without

        elements = [value for one in inputs if (value := one.element) is not None]
        return len(elements) == len(inputs) and only_reads(self.func, elements, self.args, self.kwargs)

    def needs_no_copies(self, reads_only: bool) -> bool:
        """Tell whether the function can get the user's own elements, also if it is not known to read only."""
        if self.feed is not None or self.vectorized:
            return False
        return reads_only or all(one.loaded and one.scalar_run(0, 1) is not None for one in self.inputs)

    def elements_that_fit(self, slot_bytes: int) -> int:
        """Elements whose arguments fit a slot, at least one."""
        inputs = self.inputs
        room = slot_bytes - PAGE * len(inputs)  # each array keeps its offset within a page
        capacity = max(1, min(self.count, room // sum(max(8, one.row_bytes) for one in inputs)))
        if all(one.scalars for one in inputs):
            # The distance of elements is at most this; to make layouts would cost a small call 10 us.
            apart = sum(ALIGNMENT + one.row_bytes for one in inputs)
            return max(1, min(capacity, room // apart))
        while capacity > 1:
            layouts = [one.layout(capacity) for one in inputs]
            taken = sum(layout.below + layout.above for layout in layouts)
            if taken <= room:
                break
            capacity = max(1, min(capacity - 1, capacity * room // taken))
        return capacity

    def serial_reason(self, nested: bool) -> str | None:
        """The reason why the call can only be a plain loop, if its settings and size tell."""
        return self.settings.serial_reason(self.tasks, nested, "element" if self.bounds is None else "block")

    @property
    def block_grid(self) -> BlockGrid | None:
        """The blocks of a block function along several axes."""
        return self.halo if isinstance(self.halo, BlockGrid) else None

    def places(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Indices of elements along each mapped axis."""
        if self.block_grid is None:
            return np.unravel_index(indices, self.grid)
        return self.block_grid.positions(indices)

    @property
    def blocks(self) -> list[Block]:
        """The blocks of a block function, in order."""
        halo, bounds = self.halo, self.bounds or ()
        if not isinstance(halo, BlockGrid):
            return [Block(lo, hi, *(halo.extent(lo, hi) if halo else (lo, hi))) for lo, hi in bounds]
        spans = [(halo.box(lo, hi), halo.extents(lo, hi)) for lo, hi in bounds]
        return [Block(*zip(*box, strict=True), *zip(*extents, strict=True)) for box, extents in spans]

    def result_axes(self, ndim: int) -> tuple[int, ...]:
        """Positions of the mapped axes in a result of `ndim` dimensions."""
        return tuple(range(len(self.grid))) if self.form == "raw" else result_axes(self.axis, ndim)

    def name(self, index: int, stop: int | None = None) -> str:
        """Name an element, or the block ``index:stop``, for an error."""
        return self.naming.name(self, index, stop)

    def public_index(self, index: int) -> int | tuple[int, ...]:
        """The flat index in the user's terms: an int, or a tuple for a tuple of axes."""
        return self.naming.public_index(self, index)


def result_axes(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Positions of the mapped axes in a result of `ndim` dimensions.

    The axes keep their positions. If the result has too few dimensions, they
    become its last dimensions (axes counted from the end: its first), in order.

    Examples
    --------
    >>> result_axes((1, 2), 3), result_axes((1, 2), 2), result_axes((-1,), 2)
    ((1, 2), (0, 1), (1,))
    """
    axis_of = [0] * len(axes)
    order = sorted(range(len(axes)), key=lambda k: axes[k])
    if axes[0] >= 0:
        limit = ndim - 1
        for k in reversed(order):
            axis_of[k] = limit = min(axes[k], limit)
            limit -= 1
    else:
        limit = 0
        for k in order:
            axis_of[k] = limit = max(ndim + axes[k], limit)
            limit += 1
    return tuple(axis_of)
