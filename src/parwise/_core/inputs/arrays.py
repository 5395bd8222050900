"""One mapped array: addresses of its elements or blocks, and copies of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..indexing import Halo, boxes
from ..layout import ALIGNMENT, Layout, address_of, block_layout, element_layout, offsets_for, private_memory
from .block_grid import BlockGrid, copy_block
from .foreign import READS
from .place import Place

if TYPE_CHECKING:
    from .reading.values import Value


class InputArray:
    """An array that is mapped over.

    Parameters
    ----------
    source : ndarray or array-like
        The user's array, or a `ReadAhead` of one that is not in memory.
    axes : tuple of int
        The mapped axes, non-negative.
    vectorized : bool
        True if the function takes blocks, with `axes` in place; False if elements.

    Attributes
    ----------
    lengths : tuple of int
        Lengths of the mapped axes.
    like : Layout
        Layout of one element (for blocks, of the whole array) in the source.
    element_shape : tuple of int
        Shape of one element.
    elements : ndarray
        For an element function over an ndarray: the array with its mapped axes
        first, made one axis where that needs no copy.
    step : int
        Stride from one element to the next, in bytes.
    run_end : int or None
        Number of elements after which the address no longer follows `step`
        modulo the alignment. A copied run must end there.
    """

    def __init__(self, source: Any, axes: tuple[int, ...], vectorized: bool) -> None:
        self.source = source
        self.axes = axes
        self.vectorized = vectorized
        self.loaded = isinstance(source, np.ndarray)
        shape = source.shape if self.loaded else tuple(int(n) for n in source.shape)
        if axes == (0,):
            self.lengths, self.element_shape = shape[:1], shape[1:]
        else:
            self.lengths = tuple(shape[axis] for axis in axes)
            self.element_shape = tuple(n for d, n in enumerate(shape) if d not in axes)
        self.run_end: int | None = None
        self.step = 0
        self.halo: Halo | BlockGrid | None = None
        self._padded: tuple[int, ...] = ()
        # True if a file tells strides of its own.
        self._has_strides = False
        if self.loaded:
            self._describe_array(shape)
        else:
            self._describe_file(shape)
        self.as_object = self.like.dtype.hasobject
        # Indexing a 1-d array makes a scalar, which is a copy already; only a
        # record is a view of the array.
        self.scalars = not vectorized and not self.element_shape and self.like.dtype.kind != "V"

    def _describe_array(self, shape: tuple[int, ...]) -> None:
        source = self.source
        kind, writeable = type(source).__name__, bool(source.flags.writeable)
        if self.vectorized:
            self.like = Layout(kind, source.dtype, writeable, shape, source.strides)
            return
        plain = source.view(np.ndarray) if kind != "ndarray" else source
        depth = len(self.axes)
        lead = plain if self.axes == tuple(range(depth)) else np.moveaxis(plain, self.axes, range(depth))
        steps, strides = lead.strides[:depth], lead.strides[depth:]
        self.grid = self.lengths
        self.step = steps[-1]
        self.elements = self._merge(lead, steps) if depth > 1 else lead
        self.like = Layout(kind, source.dtype, writeable, self.element_shape, strides)

    def _merge(self, lead: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
        """Make one axis of several mapped ones, or note where runs must end."""
        live = [(n, step) for n, step in zip(self.lengths, steps, strict=True) if n > 1]
        self.step = live[-1][1] if live else 0
        gaps = [outer - inner * n for (_, outer), (n, inner) in pairwise(live)]
        if not any(gaps):
            self.grid = (math.prod(self.lengths),)
            return lead.reshape(*self.grid, *self.element_shape)
        if any(gap % ALIGNMENT for gap in gaps):
            self.run_end = live[-1][0]
        return lead

    def _describe_file(self, shape: tuple[int, ...]) -> None:
        """Describe elements read from a file: contiguous and writable, unless the source tells its own strides."""
        dtype = self.source.dtype
        strides = getattr(self.source, "memory_strides", None)
        if strides is not None:
            self._has_strides = True
            own = strides if self.vectorized else tuple(n for d, n in enumerate(strides) if d not in self.axes)
            self.like = Layout("ndarray", dtype, False, shape if self.vectorized else self.element_shape, own)
            self.step = strides[self.axes[-1]]
            return
        if self.vectorized:
            self.like = Layout("ndarray", dtype, True, shape, _contiguous(shape, dtype))
            return
        strides = _contiguous(self.element_shape, dtype)
        self.like = Layout("ndarray", dtype, True, self.element_shape, strides)
        self.step = math.prod(self.element_shape) * dtype.itemsize

    def set_halo(self, halo: Halo | BlockGrid) -> None:
        """Extend blocks by a halo.

        With a boundary, blocks have the memory layout of slices of
        ``numpy.pad(source)``.
        """
        self.halo = halo
        if all(side.boundary is None for side in halo.sides):
            return
        shape = list(self.like.shape)
        for axis, side in zip(self.axes, halo.sides, strict=True):
            shape[axis] += 0 if side.boundary is None else 2 * side.depth
        fortran = self.loaded and self.source.flags.fnc
        order = shape[::-1] if fortran else shape
        strides = _contiguous(tuple(order), self.like.dtype)
        self._padded = strides[::-1] if fortran else strides
        self.like = Layout("ndarray", self.like.dtype, True, tuple(shape), self._padded)

    @property
    def row_bytes(self) -> int:
        """Bytes of one element's items."""
        return math.prod(self.element_shape) * int(self.like.dtype.itemsize)

    def layout(self, count: int) -> Layout:
        """Layout of a copy of `count` elements, or of a block of that length."""
        if not self.vectorized:
            return element_layout(self.like, self.step, count)
        return self._layout_of((count,))

    def _layout_of(self, lengths: Sequence[int]) -> Layout:
        """Layout of a copy of a block of these lengths."""
        sizes = list(self.like.shape)
        for axis, length in zip(self.axes, lengths, strict=True):
            sizes[axis] = length
        shape = tuple(sizes)
        strides = (
            self.like.strides
            if self.loaded or self._has_strides or self._padded
            else _contiguous(shape, self.like.dtype)
        )
        return block_layout(Layout(self.like.kind, self.like.dtype, self.like.writeable, shape, strides))

    def _extents(self, lo: int, hi: int) -> tuple[tuple[int, int], ...]:
        """Start and stop of a block along each mapped axis, halo included."""
        return self.halo.extents(lo, hi) if self.halo else ((lo, hi),)

    def block_layout(self, lo: int, hi: int) -> Layout:
        """Layout of a copy of the block ``lo:hi``, halo included."""
        return self._layout_of([stop - start for start, stop in self._extents(lo, hi)])

    def address(self, lo: int) -> int:
        """Address of element `lo` (or of a block from `lo` on) in the caller's memory."""
        if not (self.loaded or self._padded):
            return 0
        if self.vectorized:
            return self._address_of_block(self._extents(lo, lo))
        first, steps = address_of(self.elements), self.elements.strides
        if len(self.grid) == 1:
            return first + lo * int(steps[0])
        index = np.unravel_index(lo, self.grid)
        return first + sum(int(i) * int(step) for i, step in zip(index, steps, strict=False))

    def _address_of_block(self, extents: Sequence[tuple[int, int]]) -> int:
        strides = self._padded or self.source.strides
        address = 0 if self._padded else address_of(self.source)
        for number, (axis, (start, _)) in enumerate(zip(self.axes, extents, strict=True)):
            side = self.halo.sides[number] if self.halo else None
            ahead = side.depth if side is not None and side.boundary is not None else 0
            address += (start + ahead) * int(strides[axis])
        return address

    @property
    def place(self) -> Place | None:
        """Where the array lies, if what the function gets is a plain copy of parts of it."""
        if not self.loaded or self.as_object or self._padded:
            return None
        itemsize = int(self.like.dtype.itemsize)
        if self.vectorized:
            return Place(address_of(self.source), (), (), self.source.strides, itemsize, self.axes)
        steps = self.elements.strides[: len(self.grid)]
        return Place(address_of(self.elements), self.grid, steps, self.like.strides, itemsize)

    def copy_to(self, run: np.ndarray, lo: int, hi: int) -> None:
        """Copy the elements ``lo:hi``, or that block, to `run`."""
        if self.vectorized and self.halo:
            copy_block(run, self.halo.sides, self.halo.box(lo, hi), self.axes, self._block)
        elif self.vectorized:
            run[...] = self._block([(lo, hi)])
        elif not self.loaded:
            run[...] = self._read(lo, hi)
        elif len(self.grid) == 1:
            run[...] = self.elements[lo:hi]
        else:
            at = 0
            for index, count in boxes(lo, hi, self.grid):
                part = self.elements[index]
                run[at : at + count].reshape(part.shape)[...] = part
                at += count

    def private(
        self,
        lo: int,
        hi: int,
        layout: Layout | None = None,
        take: Callable[[int], tuple[np.ndarray, int]] = private_memory,
    ) -> np.ndarray:
        """The elements ``lo:hi``, or that block, for a call in this process, which may write to them.

        `layout` is one from `layout`, if it is at hand: it is used if it has room for so many elements. `take` returns
        memory, and the offset of the first page in it.
        """
        run = self.scalar_run(lo, hi)
        if run is not None:
            return run
        if layout is None or not (self.vectorized or hi - lo <= layout.shape[0]):
            layout = self.block_layout(lo, hi) if self.vectorized else self.layout(hi - lo)
        if self.as_object:
            return layout.as_given(self.objects(lo, hi, layout))
        (offset,), nbytes = offsets_for([layout], [self.address(lo)])
        memory, start = take(nbytes)
        run = layout.view(memory, start + offset, None if self.vectorized else hi - lo)
        self.copy_to(run, lo, hi)
        return layout.as_given(run)

    def objects(self, lo: int, hi: int, layout: Layout) -> np.ndarray:
        """A copy of the elements ``lo:hi`` of an array of Python objects, in the given layout.

        Sums of objects round by the order of axes: of 9 x 11 floats a copy in C order had the loop's sum in 1 of
        12 cases.
        """
        run = layout.empty(None if self.vectorized else hi - lo)
        self.copy_to(run, lo, hi)
        return run

    @property
    def element(self) -> Value | None:
        """What is known of an argument that `views` gives; None if it cannot give any that are the plain loop's."""
        if not self.loaded or self.like.kind != "ndarray" or self._padded:
            return None
        from .reading.proof import element_value

        if self.vectorized:
            return element_value(self.like.dtype, self.source.ndim)
        return element_value(self.like.dtype, len(self.element_shape)) if len(self.grid) == 1 else None

    def views(self, lo: int, hi: int) -> np.ndarray:
        """The elements ``lo:hi``, or that block, in the caller's own memory, for a function that only reads them."""
        if not self.vectorized:
            return self.elements[lo:hi]
        return self._block(self._extents(lo, hi))

    def scalar_run(self, lo: int, hi: int) -> np.ndarray | None:
        """The elements in the caller's own memory, if the function cannot write to them; otherwise None."""
        if self.scalars and self.loaded and len(self.grid) == 1:
            return self.elements[lo:hi]
        return None

    def _block(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """A part of the array, by start and stop along each mapped axis."""
        block = self.source[_region(self.axes, spans)]
        return block if self.loaded else np.asarray(block)

    def _read(self, lo: int, hi: int) -> np.ndarray:
        """The elements ``lo:hi`` of a file, with the mapped axes first."""
        parts = []
        for index, count in boxes(lo, hi, self.lengths):
            full: list[slice] = [slice(None)] * len(self.source.shape)
            for axis, part in zip(self.axes, index, strict=True):
                full[axis] = part
            block = np.moveaxis(np.asarray(self.source[tuple(full)]), self.axes, range(len(self.axes)))
            parts.append(block.reshape(count, *self.element_shape))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class MaskedInput:
    """An array that reads as masked arrays, as an input of a call: it has the methods of `InputArray`.

    Each element, or block, is what the user's own indexing gives, as in the plain loop: the mask of an element
    without masked values may be one for all, for which numpy.ma has other loops. It is sent as an object.
    """

    as_object = True
    scalars = loaded = False
    run_end: int | None = None
    element: Value | None = None

    def __init__(self, source: Any, axes: tuple[int, ...], vectorized: bool) -> None:
        self.source, self.axes, self.vectorized = source, axes, vectorized
        shape = tuple(int(n) for n in source.shape)
        self.lengths = tuple(shape[axis] for axis in axes)
        self.element_shape = tuple(n for d, n in enumerate(shape) if d not in axes)
        self.like = Layout("ndarray", np.dtype(object), True, self.element_shape, (8,) * len(self.element_shape))
        self._halo: Halo | BlockGrid | None = None

    def set_halo(self, halo: Halo | BlockGrid) -> None:
        """Extend blocks by a halo, which ends with the array."""
        boundary = next((side.boundary for side in halo.sides if side.boundary is not None), None)
        if boundary is not None:
            raise TypeError(
                f"boundary={boundary!r} has no masks for values beyond the ends of an array that reads "
                "as masked arrays; leave boundary out, or pass filled values"
            )
        self._halo = halo

    @property
    def row_bytes(self) -> int:
        """Bytes of one element's items and of their mask."""
        return 9 * math.prod(self.element_shape)

    def layout(self, count: int) -> Layout:
        """Layout of a run of elements."""
        return Layout("ndarray", np.dtype(object), True, (count,), (8,))

    def block_layout(self, lo: int, hi: int) -> Layout:
        """Layout of a block, which is an object of its own."""
        return self.layout(1)

    def address(self, lo: int) -> int:
        """No address matters to objects."""
        return 0

    def objects(self, lo: int, hi: int, layout: Layout) -> Any:
        """The elements ``lo:hi`` in an array of objects, or that block."""
        if self.vectorized:
            spans = self._halo.extents(lo, hi) if self._halo else ((lo, hi),)
            with READS:
                return self.source[_region(self.axes, spans)]
        with READS:
            return np.fromiter(map(self._element, range(lo, hi)), object, hi - lo)

    def private(self, lo: int, hi: int, layout: Layout | None = None) -> Any:
        """The elements ``lo:hi``, or that block: each read is an array of its own."""
        return self.objects(lo, hi, layout or self.layout(hi - lo))

    def _element(self, number: int) -> Any:
        if self.axes == (0,):
            return self.source[number]
        index: list[Any] = [slice(None)] * len(self.source.shape)
        for axis, at in zip(self.axes, np.unravel_index(number, self.lengths), strict=True):
            index[axis] = int(at)
        return self.source[tuple(index)]


def _region(axes: Sequence[int], spans: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    """An index with start and stop along some axes, as short as it can be."""
    index = [slice(None)] * (max(axes) + 1)
    for axis, span in zip(axes, spans, strict=True):
        index[axis] = slice(*span)
    return tuple(index)


def _contiguous(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    strides = [0] * len(shape)
    size = int(dtype.itemsize)
    for d in reversed(range(len(shape))):
        strides[d] = size
        size *= max(1, shape[d])
    return tuple(strides)
