"""Arrays in files that results are written to: which elements may count, and how these get on the disk."""

from __future__ import annotations

import itertools
import os
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..._core.call import Call, result_axes
from ..._core.indexing import boxes
from ..._core.outputs.gaps import gap_value
from .digest import Digester
from .files import is_hdf5, is_zarr, mapping, zarr_folder
from .journal import sync_file, sync_folder

# Bytes of out that are read back at a time.
READ_BYTES = 2**24


class Target(ABC):
    """One array of `out`.

    Attributes
    ----------
    cuts : list of int or None
        Where runs of elements may begin and end that count; None for anywhere.
    """

    cuts: list[int] | None = None

    def __init__(self, call: Call, array: Any) -> None:
        self.array = array
        self._grid = call.grid
        self._axes = result_axes(call.axis, len(array.shape))
        rest = [n for axis, n in enumerate(array.shape) if axis not in self._axes]
        self._step = max(1, READ_BYTES // max(1, array.dtype.itemsize * int(np.prod(rest))))

    def _regions(self, lo: int, hi: int) -> Iterator[tuple[slice, ...]]:
        """Yield the parts of the array that hold some elements."""
        for index, _ in boxes(lo, hi, self._grid):
            full = [slice(None)] * len(self.array.shape)
            for axis, part in zip(self._axes, index, strict=True):
                full[axis] = part
            yield tuple(full)

    def checksum(self, lo: int, hi: int) -> int:
        """The checksum of what the array holds for elements ``lo:hi``, read from it."""
        found = 0
        for at in range(lo, hi, self._step):
            for region in self._regions(at, min(at + self._step, hi)):
                part = np.ascontiguousarray(self.array[region])
                plain = part.dtype.kind in "?biufcmMSUV" and not part.dtype.hasobject
                data = part.reshape(-1).view(np.uint8).data if plain else Digester().digest(part.tolist()).encode()
                found = zlib.crc32(data, found)
        return found

    def fill(self, gaps: np.ndarray) -> None:
        """Write the value of gaps to some elements."""
        value = gap_value(self.array.dtype)[1]
        for index in gaps.tolist():
            for region in self._regions(index, index + 1):
                self.array[region] = value

    @abstractmethod
    def sync(self, runs: Sequence[tuple[int, int]]) -> None:
        """Wait until the results of some runs are on the disk."""


class MappedTarget(Target):
    """An ndarray in a file that is mapped to memory."""

    def __init__(self, call: Call, array: np.ndarray) -> None:
        super().__init__(call, array)
        found = mapping(array)
        if found is None:
            raise ValueError(
                "resume needs an out in a file that keeps results: np.memmap (mode 'r+' or 'w+'), zarr or "
                f"h5py; got an {type(array).__name__} in memory"
            )
        self._path = os.fsdecode(found.path)

    def sync(self, runs: Sequence[tuple[int, int]]) -> None:
        """Wait until the file is on the disk: Linux writes pages of a mapping with it."""
        sync_file(self._path)


class HDF5Target(Target):
    """A dataset of h5py."""

    def __init__(self, call: Call, array: Any) -> None:
        super().__init__(call, array)
        if array.file.driver != "sec2":
            raise ValueError(
                f"resume needs an out in a plain file; that of out has the h5py driver {array.file.driver!r}. "
                "Open it without driver=, or use zarr"
            )
        plist = array.id.get_create_plist()
        # HDF5 moves such chunks as they grow: a process that is killed meanwhile leaves a file that cannot be opened.
        if plist.get_nfilters() or array.dtype.hasobject:
            what = "compressed or filtered" if plist.get_nfilters() else f"of dtype {array.dtype}"
            raise ValueError(
                f"resume needs an out whose bytes have a fixed place in the file, but this dataset of h5py is {what}; "
                "leave that out, or use zarr"
            )
        if array.chunks is not None and not _is_allocated(array):
            for region in array.iter_chunks():
                array[region] = array[region]
        elif array.size:
            first = (0,) * len(array.shape)
            array[first] = array[first]
        array.file.flush()

    def sync(self, runs: Sequence[tuple[int, int]]) -> None:
        """Wait until the file is on the disk."""
        self.array.file.flush()
        # Its name may be relative to another working directory by now.
        os.fsync(self.array.file.id.get_vfd_handle())


def _is_allocated(dataset: Any) -> bool:
    """True if all chunks of a dataset have their place in the file."""
    return bool(dataset.id.get_space_status() == sys.modules["h5py"].h5d.SPACE_STATUS_ALLOCATED)


class ZarrTarget(Target):
    """An array of zarr in a folder, whose chunks, or shards, are files."""

    def __init__(self, call: Call, array: Any) -> None:
        super().__init__(call, array)
        folder = zarr_folder(array)
        if folder is None:
            raise ValueError(
                f"resume needs an out in files, but out is in a {type(array.store).__name__} of zarr; open it "
                "by its path"
            )
        self._folder = folder
        self._chunks = getattr(array, "shards", None) or array.chunks
        axis, rows = self._axes[0], int(np.prod(self._grid[1:]))
        length, chunk = self._grid[0], self._chunks[self._axes[0]]
        if chunk >= length > 1:
            raise ValueError(
                f"resume could keep nothing before the end: one chunk of out has all of its axis {axis} "
                f"(chunks or shards {self._chunks}, shape {tuple(array.shape)}); make out with several chunks "
                "along that axis"
            )
        self.cuts = [row * rows for row in (*range(0, length, chunk), length)]

    def sync(self, runs: Sequence[tuple[int, int]]) -> None:
        """Wait until the chunks are on the disk, and the names of their files."""
        folders: set[str] = set()
        for path in {path for run in runs for path in self._files(*run)}:
            if os.path.exists(path):  # there is none for a chunk that has only the fill value
                sync_file(path)
            folder = os.path.dirname(path)
            while folder not in folders:
                folders.add(folder)
                folder = folder if folder == self._folder else os.path.dirname(folder)
        for folder in sorted(folders, reverse=True):
            if os.path.isdir(folder):
                sync_folder(folder)

    def _files(self, lo: int, hi: int) -> Iterator[str]:
        """Yield the files of the chunks that hold some elements."""
        for region in self._regions(lo, hi):
            ranges = []
            for part, length, chunk in zip(region, self.array.shape, self._chunks, strict=True):
                start, stop, _ = part.indices(length)
                ranges.append(range(start // chunk, -(-stop // chunk)))
            for coordinates in itertools.product(*ranges):
                yield os.path.join(self._folder, self.array.metadata.encode_chunk_key(coordinates))


def make_target(call: Call, array: Any) -> Target:
    """The target for one array of `out`; raise an error if it cannot keep results."""
    if isinstance(array, np.ndarray):
        return MappedTarget(call, array)
    if is_zarr(array):
        return ZarrTarget(call, array)
    if is_hdf5(array):
        return HDF5Target(call, array)
    raise TypeError(
        f"resume needs an out of np.memmap, zarr or h5py, which keep results in files, got {type(array).__module__}."
        f"{type(array).__name__}"
    )
