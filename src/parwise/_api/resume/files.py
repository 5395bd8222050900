"""Arrays in files: which file, and whether it is still the same."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from ..._core.inputs.file_mapping import FileMapping
from ..out_files import mapping_of


def hash_of(data: Any) -> str:
    """The digest of bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def is_zarr(array: Any) -> bool:
    """True for an array of zarr."""
    return _is_a(array, "zarr", "Array")


def is_hdf5(array: Any) -> bool:
    """True for a dataset of h5py."""
    return _is_a(array, "h5py", "Dataset")


def is_netcdf(array: Any) -> bool:
    """True for a variable of netCDF4."""
    return _is_a(array, "netCDF4", "Variable")


def _is_a(value: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)


def mapping(array: Any) -> FileMapping | None:
    """The file that an ndarray lies in."""
    return mapping_of(array, byte_bounds(array)[0]) if isinstance(array, np.ndarray) and array.nbytes else None


def zarr_folder(array: Any) -> str | None:
    """The folder with the chunks of an array of zarr; None if they are not in files of their own."""
    store = array.store
    return os.path.join(store.root, array.path) if type(store).__name__ == "LocalStore" else None


def path_of(array: Any) -> str | None:
    """The file, or folder of zarr, that an array is a part of."""
    found = mapping(array)
    path: Any = None
    if found is not None:
        path = os.fsdecode(found.path)
    elif is_hdf5(array):
        path = array.file.filename
    elif is_zarr(array):
        path = zarr_folder(array)
    elif is_netcdf(array):
        path = array.group().filepath()
    return None if path is None else os.path.realpath(path)


def state_of_file(array: Any) -> str | None:
    """What tells whether an array in a file is the same as before, without reading it: path, sizes and times.

    None if the array lies in no file of this machine.
    """
    path = path_of(array)
    if path is None:
        return None
    where = _place_in(array)
    stats = list(_stats(path)) if os.path.isdir(path) else [_stat(path, os.stat(path))]
    if len(stats) == 1:
        return f"{path} {stats[0].partition(' ')[2]}{where}"
    return f"{path} {len(stats)} files {hash_of(''.join(sorted(stats)).encode())}{where}"


def _place_in(array: Any) -> str:
    """Where in its file an array lies."""
    if not isinstance(array, np.ndarray):
        return f" {getattr(array, 'name', '')}{_switches(array) if is_netcdf(array) else ''}"
    found = mapping(array)
    assert found is not None
    offset = array.__array_interface__["data"][0] - found.start + found.offset
    return f" offset {offset} strides {array.strides}"


def _switches(variable: Any) -> str:
    """The group of a variable of netCDF4, and what decides how its values are read."""
    names = ("scale", "mask", "always_mask", "chartostring")
    return f" in {variable.group().path}, {', '.join(f'{name} {getattr(variable, name)}' for name in names)}"


def _stats(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _stats(entry.path)
            else:
                yield _stat(entry.path, entry.stat())


def _stat(path: str, status: os.stat_result) -> str:
    return f"{path} {status.st_size} bytes, changed at {status.st_mtime_ns}"
