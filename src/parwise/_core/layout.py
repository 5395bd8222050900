"""Memory layout of the function's arguments, and of copies that keep it.

NumPy and BLAS choose their inner loops by flags, stride signs, contiguity and
alignment, and those loops round differently: rows of a Fortran-ordered matrix,
copied to contiguous memory, gave ``r @ r`` the loop's bits in only 30 % of
cases. So a copy keeps every property that such a choice depends on, and is as
small as that allows.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

# Wide enough for every SIMD load there is (AVX-512) and a cache line.
ALIGNMENT = 64
PAGE = 4096

# In a thread that is not the first one malloc takes memory for each large array from the system, and returns it: arrays
# of 8 MB then take 3 ms each.
REUSED_BYTES = 2**17
MOST_REUSED_BYTES = 2**25


class Layout(NamedTuple):
    """Memory layout of a run of elements, or of one block.

    Attributes
    ----------
    kind : {"ndarray", "memmap", "recarray", "matrix"}
        The array type that the function gets.
    dtype : numpy.dtype
        Byte order included.
    writeable : bool
        True if the function may write to its argument.
    shape : tuple of int
        Shape of the run; for elements the first axis counts them.
    strides : tuple of int
        Bytes, of the same signs and contiguity as in the caller's array.
    """

    kind: str
    dtype: np.dtype[Any]
    writeable: bool
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def below(self) -> int:
        """Bytes before the first item; more than 0 where strides are negative."""
        return self._reach[0]

    @property
    def above(self) -> int:
        """Bytes from the first item to the end."""
        return self._reach[1]

    @property
    def _reach(self) -> tuple[int, int]:
        """Bytes before the first item, and from it to the end."""
        below, above = 0, self.dtype.itemsize
        for n, stride in zip(self.shape, self.strides, strict=True):  # in no generator: each small call pays for it
            if n and stride < 0:
                below -= stride * (n - 1)
            elif n:
                above += stride * (n - 1)
        return below, above

    @property
    def overlaps(self) -> bool:
        """True if elements may share memory, as windows do; an axis along which all are one does not count."""
        reach = self.dtype.itemsize
        for stride, size in sorted((abs(step), n) for step, n in zip(self.strides, self.shape, strict=True) if step):
            if size > 1 and stride < reach:
                return True
            reach += stride * (size - 1)
        return False

    def view(self, memory: Any, offset: int, count: int | None = None) -> np.ndarray:
        """The run as an array over `memory`, whose first item is at byte `offset`.

        `count`, if given, is the number of elements in use.
        """
        shape = self.shape if count is None else (count, *self.shape[1:])
        return np.ndarray(shape, self.dtype, memory, offset, self.strides)

    def of(self, count: int) -> Layout:
        """The layout of the first `count` elements of the run."""
        return self._replace(shape=(count, *self.shape[1:]))

    def empty(self, count: int | None = None) -> np.ndarray:
        """The run in new memory for Python objects, which a buffer of bytes cannot hold."""
        run = self if count is None else self.of(count)
        if self.dtype.kind not in "OV":
            return _sliced(run)
        memory = np.empty((run.below + run.above) // (self.dtype.itemsize or 1), self.dtype)
        return np.ndarray(run.shape, self.dtype, memory, run.below, run.strides)

    def as_given(self, view: np.ndarray) -> np.ndarray:
        """`view` as the function gets it: of the caller's array type, and read-only if that array is."""
        if self.kind != "ndarray":
            memory, view = view.base, view.view(getattr(np, self.kind))
            if isinstance(view, np.memmap):
                # Without this, indexing it would give plain arrays.
                view._mmap = memory  # type: ignore[attr-defined]
        view.flags.writeable = self.writeable
        return view


def element_layout(like: Layout, step: int, capacity: int) -> Layout:
    """Layout of a copy of up to `capacity` elements laid out as `like`, `step` bytes apart in the caller's array."""
    pitch, strides = _pack(like, step, capacity)
    return Layout(like.kind, like.dtype, like.writeable, (capacity, *like.shape), (pitch, *strides))


def block_layout(like: Layout) -> Layout:
    """Layout of a copy of one block; `like` is the layout of the block."""
    return like._replace(strides=_pack(like, None, 1)[1])


def _pack(like: Layout, step: int | None, capacity: int) -> tuple[int, tuple[int, ...]]:
    """Shrink strides as far as the layout rule allows; return those of the mapped and of the other axes.

    Axes keep their order by stride. A stride that continued the axis inside it
    without a gap still does; one that left a gap still leaves one; windows that
    overlap still do. Beyond the innermost axis strides keep their value modulo
    64, so that each row keeps its alignment. The mapped axis keeps its position
    in the order of strides, so that copying moves long runs, unless that would
    open a gap. Strides of objects are multiples of their size, but keep no
    alignment: no loop over objects depends on addresses.
    """
    itemsize = like.dtype.itemsize
    cell = itemsize if like.dtype.hasobject else 0

    def fit(least: int, value: int, modulus: int) -> int:
        return least if cell else _congruent(least, value, modulus)

    strides = list(like.strides)
    live = [d for d in range(len(strides)) if like.shape[d] > 1 and strides[d] != 0]
    live.sort(key=lambda d: (abs(strides[d]), -d))
    pitch = None
    reach_old = reach_new = flush_old = flush_new = itemsize
    exact = inner = True
    for d in live:
        size, old = like.shape[d], abs(strides[d])
        flush, overlap = old == flush_old, old < reach_old
        if pitch is None and step and capacity > 1 and abs(step) < old and not (flush or overlap):
            pitch = fit(reach_new, abs(step), ALIGNMENT)
            reach_new += pitch * (capacity - 1)
        if flush:
            new = flush_new
        elif overlap and exact:
            new = old
        else:
            modulus = itemsize if inner and itemsize else ALIGNMENT
            new = fit(reach_new, old, modulus)
            if new == flush_new:
                new += cell or modulus
        strides[d] = new if strides[d] > 0 else -new
        reach_old += old * (size - 1)
        reach_new += new * (size - 1)
        flush_old, flush_new = old * size, new * size
        exact, inner = exact and new == old, False
    if pitch is None:
        pitch = fit(reach_new, step or 0, ALIGNMENT)
    elif step is not None and step < 0:
        pitch = -pitch
    return pitch, tuple(strides)


def _sliced(run: Layout) -> np.ndarray:
    """The run in new memory, made by slices alone.

    Items of StringDType refer to memory that the dtype of their own array keeps, so NumPy 2.5 refuses to make such an
    array over a buffer.
    """
    sizes = [max(1, n) for n in run.shape]
    steps = _separate_steps(run, sizes)
    array = np.empty(max([1, *(step * sizes[d] for d, step in steps.items())]), run.dtype)
    for d, step in reversed(steps.items()):
        array = array[..., : sizes[d] * step].reshape(*array.shape[:-1], sizes[d], step)
    array = array[..., 0].transpose(np.argsort([*reversed(steps)]))
    axes = [slice(None, None, 1 if stride > 0 else -1) if stride else None for stride in run.strides]
    array = array[(*axes, ...)]
    if array.shape != tuple(sizes):
        array = np.broadcast_to(array, sizes)
        array.flags.writeable = True
    used: tuple[Any, ...] = (*map(slice, run.shape), ...)
    view: np.ndarray = array[used]
    return view


def _separate_steps(run: Layout, sizes: list[int]) -> dict[int, int]:
    """Steps of the axes in items, from the innermost axis on, such that slices of one array have them.

    Slices cannot overlap: an axis that reached into the next one gets a larger step. One that left a gap still leaves
    one, since NumPy makes one axis of two without.
    """
    steps: dict[int, int] = {}
    extent, flush = 1, run.dtype.itemsize
    moving = [d for d, stride in enumerate(run.strides) if stride]
    for d in sorted(moving, key=lambda d: (sizes[d] == 1, abs(run.strides[d]), -d)):
        old = abs(run.strides[d])
        steps[d] = extent if sizes[d] == 1 or old == flush else max(old // run.dtype.itemsize, extent + 1)
        extent, flush = steps[d] * sizes[d], old * sizes[d]
    return steps


def _congruent(least: int, value: int, modulus: int) -> int:
    """Smallest integer from `least` on that equals `value` modulo `modulus`."""
    return least + (value - least) % modulus


def offsets_for(layouts: list[Layout], addresses: list[int]) -> tuple[list[int], int]:
    """Offsets of runs one after another in page-aligned memory.

    Parameters
    ----------
    addresses : list of int
        Address of the first item of each run in the caller's memory; the offset
        within a page is kept.

    Returns
    -------
    offsets : list of int
        Offset of the first item of each run.
    nbytes : int
        Bytes of memory that the runs take.
    """
    offsets = []
    end = 0
    for layout, address in zip(layouts, addresses, strict=True):
        below, above = layout._reach
        offset = _congruent(end + below, address, PAGE)
        offsets.append(offset)
        end = offset + above
    return offsets, end


def address_of(array: np.ndarray) -> int:
    """Memory address of the first item of `array`.

    ``array.ctypes.data`` is the same number, but imports ctypes.
    """
    address: int = array.__array_interface__["data"][0]
    return address


def private_memory(nbytes: int) -> tuple[np.ndarray, int]:
    """New memory of this process, and the offset of the first page in it."""
    return _with_start(np.empty(nbytes + PAGE, np.uint8))


def _with_start(memory: np.ndarray) -> tuple[np.ndarray, int]:
    return memory, -address_of(memory) % PAGE


class ReusableMemory:
    """One piece of memory at a time, which is used again for arrays once nobody refers to it any more."""

    def __init__(self) -> None:
        self._memory = memoryview(b"")
        # The array that all views of the memory refer to.
        self._root: weakref.ref[np.ndarray] | None = None
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> tuple[np.ndarray, int]:
        """Memory for so many bytes, and the offset of the first page in it."""
        if not REUSED_BYTES <= nbytes <= MOST_REUSED_BYTES:
            return private_memory(nbytes)
        with self._lock:
            in_use = self._root is not None and self._root() is not None
            if in_use or len(self._memory) < nbytes + PAGE:
                self._memory = np.empty(nbytes + PAGE, np.uint8).data
            root = np.frombuffer(self._memory, np.uint8)
            self._root = weakref.ref(root)
        return _with_start(root)

    def allocate(self, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Memory for results, as `Kernel.run` asks for it."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * count * dtype.itemsize
        memory, start = self.take(nbytes)
        return np.ndarray((count, *shape), dtype, memory, start)
