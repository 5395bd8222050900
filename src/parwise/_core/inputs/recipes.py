"""Recipes of arrays in files, by which another process opens them: the library's own, the path, the key, the place.

An array travels by its recipe if the other process surely finds the same: a file that nobody in this process has open
for writing through a library with buffers of its own, or a store that has none. All else is read, or written, by the
caller.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..indexing import Halo
from ..layout import Layout, ReusableMemory, address_of
from .arrays import InputArray
from .block_grid import BlockGrid
from .file_mapping import mapping_at
from .foreign import UnreadableError, access, library_of, plain_array
from .source import Region

#: Name of a file, its inode, its size, and when it was last written, of one that nobody writes to: of another file with
#: that name, as on another machine, one of these differs.
Identity: TypeAlias = tuple[str, int, int, int]


class Recipe(NamedTuple):
    """How to open an array in another process.

    Attributes
    ----------
    kind : str
        Name of a function in `_OPEN`.
    content : tuple
        What it gets.
    identity : Identity or None
        The file that must be there; None for a store that has names of its own.
    """

    kind: str
    content: tuple[Any, ...]
    identity: Identity | None

    def open(self) -> Any:
        """Open the array; raise an `UnreadableError` if that is not possible here, or it is another one."""
        try:
            if self.identity is not None and identity_of(self.identity[0], self.identity[3] > 0) != self.identity:
                raise OSError(f"{self.identity[0]} is another file here")
            return _OPEN[self.kind](*self.content)
        except Exception as error:
            raise UnreadableError(f"{type(error).__name__}: {error}") from error


def recipe_of(array: Any) -> Recipe | None:
    """The recipe of an array; None if it cannot be opened in another process."""
    try:
        find = _FIND.get((library_of(array), type(array).__name__))
        return None if find is None else find(array)
    except Exception:  # whatever the library says of an array that has been closed, or of another version
        return None


def identity_of(path: str, with_time: bool = True) -> Identity:
    """What is known of a file."""
    status = os.stat(path)
    return path, status.st_ino, status.st_size, status.st_mtime_ns if with_time else 0


def _of_memmap(array: Any) -> Recipe | None:
    if array.filename is None or array.mode == "c" or array.base is None or array.dtype.hasobject:
        return None
    path = os.path.realpath(array.filename)
    mapping, below, above = array._mmap, *np.lib.array_utils.byte_bounds(array)
    # A view has the offset of the whole; the mapping begins at a page.
    page = array.offset - array.offset % _granularity()
    begin = below - address_of(np.frombuffer(mapping, np.uint8)) + page
    identity, mapped = identity_of(path, with_time=False), mapping_at(below)
    if begin < page or begin + (above - below) > identity[2]:
        return None
    if mapped is None or os.fsdecode(mapped.path) != path:  # another file has its name now
        return None
    if array.mode != "r":
        mapping.flush()  # for other machines
    content = path, begin, above - below, array.shape, array.strides, address_of(array) - below, array.dtype.str
    return Recipe("memmap", content if array.dtype.names is None else (*content[:-1], array.dtype), identity)


def _granularity() -> int:
    return int(os.sysconf("SC_PAGE_SIZE")) if hasattr(os, "sysconf") else 2**16  # Windows


def _open_memmap(
    path: str, begin: int, nbytes: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, dtype: Any
) -> Any:
    memory = np.memmap(path, np.uint8, "r", begin, (nbytes,))
    return np.ndarray(shape, dtype, memory, offset, strides)


def _of_zarr(array: Any) -> Recipe | None:
    store = array.store
    name, identity = type(store).__name__, None
    metadata = os.path.join(array.path, "zarr.json" if array.metadata.zarr_format == 3 else ".zarray")
    if name == "LocalStore":
        identity = identity_of(os.path.realpath(os.path.join(store.root, metadata)))
    elif name == "FsspecStore":
        protocols = _protocols(store.fs)
        if "memory" in protocols:
            return None
        if "file" in protocols:  # below one folder it is not found here, and the caller reads
            identity = identity_of(os.path.realpath(os.path.join(store.path, metadata)))
    elif name != "ObjectStore" or "Memory" in type(store.store).__name__:
        return None
    return Recipe("zarr", (pickle.dumps(array),), identity)


def _protocols(files: Any) -> set[str]:
    """Names of a file system of fsspec, and of those that it passes on to: a cache, or a folder of another one."""
    found = set[str]()
    while files is not None:
        found.update([files.protocol] if isinstance(files.protocol, str) else files.protocol)
        files = getattr(files, "sync_fs", None) or getattr(files, "fs", None)
    return found


def _open_zarr(pickled: bytes) -> Any:
    """Open an array whose store has it here too: chunks that are missing would read as fill values."""
    import zarr

    array = pickle.loads(pickled)
    zarr.open_array(array.store, path=array.path, mode="r")
    return array


def _of_h5py(array: Any) -> Recipe | None:
    file = array.file
    if file.mode != "r" or file.driver not in ("sec2", "stdio") or file.swmr_mode or not array.name:
        return None
    if array.is_virtual or array.external:  # its data is in other files, which may be open for writing
        return None
    return _of_read_only("h5py", os.path.realpath(file.filename), array.name)


def _of_netcdf4(array: Any) -> Recipe | None:
    group = array.group()
    name = f"{group.path.rstrip('/')}/{array.name}"
    return _of_read_only("netCDF4", os.path.realpath(group.filepath()), name, array.scale, array.chartostring)


def _of_read_only(kind: str, path: str, *content: Any) -> Recipe | None:
    """The recipe of an array in a file that this process has open, and nowhere for writing."""
    identity, modes = identity_of(path), set[int]()
    try:
        opened = os.listdir("/proc/self/fd")
    except OSError:  # only Linux tells
        return None
    for number in opened:
        try:
            if os.stat(f"/proc/self/fd/{number}").st_ino == identity[1]:
                with open(f"/proc/self/fdinfo/{number}") as info:
                    flags = next(line for line in info if line.startswith("flags:"))
                modes.add(int(flags.split()[1], 8) & os.O_ACCMODE)
        except (OSError, StopIteration):
            continue
    return Recipe(kind, (path, *content), identity) if modes == {os.O_RDONLY} else None


def _open_h5py(path: str, name: str) -> Any:
    import h5py

    return h5py.File(path, "r")[name]


def _open_netcdf4(path: str, name: str, scale: bool, chartostring: bool) -> Any:
    import netCDF4

    variable = netCDF4.Dataset(path)[name]
    variable.set_auto_mask(False)
    variable.set_auto_scale(scale)
    variable.set_auto_chartostring(chartostring)
    return variable


_FIND: dict[tuple[str, str], Callable[[Any], Recipe | None]] = {
    ("numpy", "memmap"): _of_memmap,
    ("zarr", "Array"): _of_zarr,
    ("h5py", "Dataset"): _of_h5py,
    ("netCDF4", "Variable"): _of_netcdf4,
}
_OPEN: dict[str, Callable[..., Any]] = {
    "memmap": _open_memmap,
    "zarr": _open_zarr,
    "h5py": _open_h5py,
    "netCDF4": _open_netcdf4,
}


class _Opened:
    """An array that this process has opened: it reads as it did in the caller, or not at all."""

    def __init__(self, source: Any, dtype: np.dtype[Any]) -> None:
        self._source, self.dtype = source, dtype
        self.shape = tuple(int(n) for n in source.shape)

    def __getitem__(self, region: Region) -> np.ndarray:
        with access(self._source):
            part = plain_array(self._source[region], "it", self._source.dtype)
        if part.dtype != self.dtype:
            raise UnreadableError(f"it reads as {part.dtype} here")
        return part


class FileInput:
    """A mapped array that workers read themselves.

    Parameters
    ----------
    given : InputArray
        The caller's.
    """

    def __init__(self, given: InputArray, recipe: Recipe) -> None:
        self._recipe, self._axes, self._vectorized = recipe, given.axes, given.vectorized
        self._halo: Halo | BlockGrid | None = given.halo
        self._like, self._shape = given.like, tuple(given.source.shape)
        self._opened: InputArray | None = None
        self._lock, self._memory = threading.Lock(), ReusableMemory()

    def __reduce__(self) -> tuple[Any, ...]:
        state = {**vars(self), "_opened": None}
        del state["_lock"], state["_memory"]
        return _rebuilt, (state,)

    def read(self, lo: int, hi: int, layout: Layout) -> np.ndarray:
        """The elements ``lo:hi``, or that block, as the caller would send them, in that layout."""
        try:
            with self._lock:
                opened = self._opened = self._opened or self._open()
            return opened.private(lo, hi, layout, self._memory.take)
        except UnreadableError:
            raise
        except Exception as error:  # told by the caller, who reads it again
            raise UnreadableError(f"{type(error).__name__}: {error}") from error

    def _open(self) -> InputArray:
        source = self._recipe.open()
        if tuple(source.shape) != self._shape:
            raise UnreadableError(f"its shape is {tuple(source.shape)} here")
        if not isinstance(source, np.ndarray):
            source = _Opened(source, self._like.dtype)
        opened = InputArray(source, self._axes, self._vectorized)
        if self._halo is not None:
            opened.set_halo(self._halo)
        opened.like = opened.like._replace(kind=self._like.kind, writeable=self._like.writeable)
        opened.scalars = False  # these would be views
        return opened


def _rebuilt(state: dict[str, Any]) -> FileInput:
    new = FileInput.__new__(FileInput)
    vars(new).update(state, _lock=threading.Lock(), _memory=ReusableMemory())
    return new
