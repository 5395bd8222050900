"""An array that is not in memory: read ahead of the tasks, chunk by chunk, and believed only for what it reads."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ..indexing import chunk_runs
from ..results import is_masked
from .foreign import FRESH, access, chunk_ends, library_of, plain_array, sure_dtype

#: Bytes of one read from a file: half a second of reading and unpacking where that is slow. zarr holds a read twice
#: meanwhile, and malloc keeps both: with reads of 32 MiB a call with 2 workers took 314 MB, with these 185 MB.
READ_BYTES = 2**24
#: A larger read, if chunks of the file would otherwise be read again and again.
MAX_READ_BYTES = 2**28

#: A region of an array: along each axis a slice with non-negative bounds and without a step.
Region: TypeAlias = tuple[slice, ...]


class _Piece:
    """A region that was read, its data, and how many items of it were asked for, and which indices of each axis."""

    __slots__ = ("asked", "data", "indices", "region")

    def __init__(self, region: Region, data: np.ndarray) -> None:
        self.region, self.data, self.asked = region, data, 0
        self.indices = [np.zeros(n, bool) for n in data.shape]

    @property
    def is_wanted(self) -> bool:
        """True if nobody has asked for some of it yet."""
        return self.asked < self.data.size or not all(one.all() for one in self.indices)

    def holds(self, region: Region) -> bool:
        """True if a region lies within this one."""
        return all(a.start <= b.start and b.stop <= a.stop for a, b in zip(self.region, region, strict=True))

    def part(self, region: Region) -> np.ndarray:
        """The data of a region within this one."""
        cut = (slice(b.start - a.start, b.stop - a.start) for a, b in zip(self.region, region, strict=True))
        part: np.ndarray = self.data[tuple(cut)]
        return part

    def ask(self, region: Region) -> np.ndarray:
        """The data of a region within this one, which a task asks for."""
        part = self.part(region)
        self.asked += part.size
        for one, whole, asked in zip(self.indices, self.region, region, strict=True):
            one[asked.start - whole.start : asked.stop - whole.start] = True
        return part


class ReadAhead:
    """Reads an array that is not in memory, more than one task needs, and keeps it for the next tasks.

    Files are often stored and compressed in chunks of which one task needs little: one pixel of each of many maps, say.
    Each task would read all of these chunks again.

    Parameters
    ----------
    source : array_like
        It has `shape` and `dtype`, and is indexed by a tuple of slices.
    axes : sequence of int
        Axes along which consecutive tasks advance, the fastest last.
    name : str
        Words for it in errors, such as "array 0".
    nbytes : int, optional
        Bytes of one read.

    Attributes
    ----------
    source : array_like
    axes : list of int
    name : str
    masked : bool
        True if a masked array was read, which raises an error.
    most_bytes : int
        Bytes of one read at most, also if chunks are then read again.
    bytes_read, most_held : int
        Bytes that were read, and the most that were held at a time.
    """

    memory_strides: tuple[int, ...] | None = None  # functions get contiguous elements
    #: False if a source may fill the same memory again for its next read.
    reads_are_new = False

    def __init__(self, source: Any, axes: Sequence[int], name: str, nbytes: int | None = None) -> None:
        self.source, self.axes, self.name = source, list(axes), name
        self.reads_are_new |= library_of(source) in FRESH
        self.most_bytes = MAX_READ_BYTES
        self.bytes_read = self.most_held = 0
        self.nbytes = READ_BYTES if nbytes is None else nbytes
        self.shape = tuple(int(n) for n in source.shape)
        self._chunk_ends = {axis: chunk_ends(source, axis) for axis in axes}
        self._dtype = sure_dtype(source)
        self.masked = False
        self._lock = threading.Lock()
        # What was read last, and what nobody has asked for yet: threads do not read in the order of their tasks. Each
        # piece continues the one before it along an axis.
        self._pieces: list[_Piece] = []
        self._along = 0
        # Indices of the longest task along that axis.
        self._longest = 0
        # The region of the first task, which is computed again for the handshake.
        self._first_region: Region | None = None
        self._first: _Piece | None = None

    @property
    def reader(self) -> ReadAhead:
        """Itself; arrays that read through another one give that."""
        return self

    @property
    def elements_read(self) -> int:
        """Elements that have been read at most, from the first one on, in C order of `axes`."""
        slowest, *faster = self.axes
        stop = max((piece.region[slowest].stop for piece in self._pieces), default=0)
        return int(stop * math.prod(self.shape[axis] for axis in faster))

    @property
    def once_bytes(self) -> int:
        """Bytes that must be held so that each chunk is read once: a row of chunks along the faster mapped axes."""
        ends = [self._chunk_ends[axis] for axis in self.axes]
        if any(one is None for one in ends) or 0 in self.shape:
            return 0
        lengths = tuple(self.shape[axis] for axis in self.axes)
        longest = chunk_runs(lengths, [one for one in ends if one is not None]).longest
        return longest * math.prod(n for k, n in enumerate(self.shape) if k not in self.axes) * self.dtype.itemsize

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of what is read, for which the first elements are read; of an empty array, the declared one."""
        if self._dtype is None:
            if 0 in self.shape:
                declared: np.dtype[Any] = self.source.dtype
                return declared
            lengths = (1 if axis in self.axes else n for axis, n in enumerate(self.shape))
            with self._lock:
                self._keep(self._extend(tuple(slice(0, n) for n in lengths)))
            assert self._dtype is not None
        return self._dtype

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """Read a region, given by slices; some at the end may be left out."""
        region = [slice(0, n) for n in self.shape]
        for axis, part in enumerate(key):
            start, stop, _ = part.indices(self.shape[axis])
            region[axis] = slice(start, max(start, stop))
        return self.read(tuple(region))

    def read(self, region: Region) -> np.ndarray:
        """Data of a region, perhaps as a view of kept memory: do not write to it."""
        if any(part.start == part.stop for part in region):
            return np.empty([part.stop - part.start for part in region], self.dtype)
        with self._lock:
            again = region == self._first_region
            if self._first_region is None and not any(region[axis].start for axis in self.axes):
                self._first_region = region
            kept = self._kept(region, again)
            if kept is not None:
                return kept
            return self._find(region)

    def _kept(self, region: Region, again: bool) -> np.ndarray | None:
        """Data of a region that was read before; None if some of it was not, or is not kept any more.

        If a task asks `again`, that is no sign that other items of a piece were asked for.
        """
        for piece in (*self._pieces, *([] if self._first is None else [self._first])):
            if piece.holds(region):
                return piece.part(region) if again else piece.ask(region)
        if len(self._pieces) < 2:
            return None
        axis, parts, at = self._along, list[np.ndarray](), region[self._along].start
        for piece in self._pieces:
            part = _replaced(region, axis, start=at, stop=min(piece.region[axis].stop, region[axis].stop))
            if part[axis].start < part[axis].stop and piece.holds(part):
                parts.append(piece.ask(part))
                at = part[axis].stop
        return np.concatenate(parts, axis) if at == region[axis].stop else None

    def _find(self, region: Region) -> np.ndarray:
        """Read a region, and what follows it if it is the next one."""
        last = self._pieces[-1].region if self._pieces else None
        axis = None if last is None else _only_difference(last, self._extend(region))
        if last is None or axis is None:
            ahead = [] if last is None else [last[k].start for k in self.axes]
            if [region[k].start for k in self.axes] < ahead:  # an element that is computed again
                return self._load(region)
            self._forget(self._pieces)
            return self._keep(self._extend(region)).ask(region)
        gap = region[axis].start - last[axis].stop
        if region[axis].start < last[axis].start or gap * self._row_bytes(region, axis) > self.most_bytes:
            return self._load(region)  # wanted once, as by a halo at the other end
        # What lies between will be asked for by another thread.
        start = min(last[axis].stop, region[axis].start)
        return self._continue(_replaced(region, axis, start=start), axis).ask(region)

    def _continue(self, region: Region, axis: int) -> _Piece:
        """Read a region behind the last piece, and what follows it; what overlaps is not read again."""
        last, target = self._pieces[-1], self._extend(region)
        known = last.region[axis].stop
        tail = last.part(_replaced(target, axis, stop=known)) if target[axis].start < known else None
        self._along, self._longest = axis, max(self._longest, region[axis].stop - region[axis].start)
        self._forget(self._surplus())
        del last
        return self._keep(target, axis, tail)

    def _keep(self, region: Region, axis: int = 0, tail: np.ndarray | None = None) -> _Piece:
        """Read a region, whose beginning may be known, and keep it."""
        if tail is None:
            data = self._load(region)
        else:
            start = region[axis].start + tail.shape[axis]
            data = np.concatenate([tail, self._load(_replaced(region, axis, start=start))], axis)
        self._pieces.append(_Piece(region, data))
        self.most_held = max(self.most_held, sum(piece.data.nbytes for piece in self._pieces))
        return self._pieces[-1]

    def _surplus(self) -> list[_Piece]:
        """Old pieces that are not worth their memory.

        If each item was asked for once, nobody will ask again. Halos ask for some items twice, so that others may be
        left. The last piece is kept as long as another thread may want some of it, and the one before a piece as long
        as one may want the beginning of that, and with it the end of this one.
        """
        surplus, nbytes = list[_Piece](), 0
        begun = True
        for piece in reversed(self._pieces):
            nbytes += piece.data.nbytes
            wanted = piece.is_wanted or not begun
            most = MAX_READ_BYTES if wanted else 0 if piece.asked == piece.data.size else 3 * self.nbytes
            if nbytes > most and not (wanted and piece is self._pieces[-1]):
                surplus.append(piece)
            begun = bool(piece.indices[self._along][: self._longest].all())
        return surplus

    def _forget(self, pieces: Sequence[_Piece]) -> None:
        """Release pieces; what the first task needs is copied."""
        for piece in pieces:
            if self._first is None and self._first_region is not None and piece.holds(self._first_region):
                self._first = _Piece(self._first_region, piece.part(self._first_region).copy())
        self._pieces = [piece for piece in self._pieces if piece not in pieces]

    def _row_bytes(self, region: Region, axis: int) -> int:
        """Bytes of one index along an axis of a region."""
        lengths = [part.stop - part.start for part in region]
        itemsize = np.dtype(self._dtype or self.source.dtype).itemsize
        return int(itemsize * math.prod(lengths[:axis] + lengths[axis + 1 :]))

    def _extend(self, region: Region) -> Region:
        """A region of the size of one read: the given one and those that follow it, up to the end of a chunk.

        It is cut along the slowest axis for which all that follows along faster axes fits one read. To the end of a
        chunk a read may be larger: the next one would read all of the chunk again.
        """
        for number, axis in enumerate(self.axes):
            extended = region
            for faster in self.axes[number + 1 :]:
                extended = _replaced(extended, faster, start=0, stop=self.shape[faster])
            row_bytes = max(1, self._row_bytes(extended, axis))
            start, stop = region[axis].start, region[axis].stop
            ends = self._chunk_ends[axis]
            chunk_end = next((end for end in ends or () if end >= stop), stop)
            if ends is None or len(ends) == self.shape[axis]:
                fits = (chunk_end - start) * row_bytes <= self.nbytes
            else:  # of a row of chunks that is too long, a part: less of it would be read again for each index
                fits = row_bytes <= self.most_bytes
            if fits or number == len(self.axes) - 1:
                break
        return _replaced(extended, axis, stop=self._end(axis, start, stop, row_bytes))

    def _end(self, axis: int, start: int, stop: int, row_bytes: int) -> int:
        """Where a read ends that begins at `start` and must reach `stop`."""
        whole = self.shape[axis]
        most = min(whole, max(stop, start + self.nbytes // row_bytes))
        ends = self._chunk_ends[axis]
        if ends is None:
            return most
        inside = [end for end in ends if stop <= end <= most]
        if inside:
            return inside[-1]
        limit = max(stop, start + self.most_bytes // row_bytes)
        return next((end for end in ends if stop <= end <= limit), min(whole, limit))

    def _load(self, region: Region) -> np.ndarray:
        """Read a region; raise an error if it is not of the shape asked for, and of the dtype of those before."""
        with access(self.source):
            part = self.source[region]
        self.masked = self.masked or is_masked(type(part))
        data = plain_array(part, self.name, self.source.dtype)
        self.bytes_read += data.nbytes
        shape = tuple(part.stop - part.start for part in region)
        if data.shape != shape:
            raise ValueError(
                f"{self.name} of shape {self.shape} returns an array of shape {data.shape} for "
                f"{_text(region)}, not {shape}; pass np.asarray(x), or an array that can be indexed by slices"
            )
        if self._dtype is None:
            self._dtype = data.dtype
        elif data.dtype != self._dtype:
            raise TypeError(
                f"{self.name} returns {data.dtype} for {_text(region)}, but {self._dtype} before; pass "
                "x.astype(...), or another array of one dtype"
            )
        return data if self.reads_are_new else data.copy()


def _text(region: Region) -> str:
    return f"[{', '.join(f'{part.start}:{part.stop}' for part in region)}]"


def _replaced(region: Region, axis: int, start: int | None = None, stop: int | None = None) -> Region:
    """A region with another start or stop along one axis."""
    part = region[axis]
    new = slice(part.start if start is None else start, part.stop if stop is None else stop)
    return (*region[:axis], new, *region[axis + 1 :])


def _only_difference(one: Region, other: Region) -> int | None:
    """The only axis along which two regions differ; None if there is none, or several."""
    axes = [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return axes[0] if len(axes) == 1 else None
