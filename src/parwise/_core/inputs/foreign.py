"""Arrays of other libraries: what they tell of themselves, and what of it is believed."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..results import is_masked

#: Libraries that read into new memory each time.
FRESH = {"zarr", "h5py", "netCDF4"}

#: Attributes by which netCDF4 makes other numbers of those in a file.
SCALING = {"scale_factor", "add_offset", "_Unsigned"}

#: Held while an array in a file is read or written: the libraries below netCDF4 are not made for several threads.
READS = threading.RLock()


class UnreadableError(Exception):
    """An array in a file cannot be opened or read in this process; the caller does it."""


def sure_dtype(source: Any) -> np.dtype[Any] | None:
    """The declared dtype, where the library surely reads numbers as they are declared: no chunk is read to find out."""
    library, dtype = library_of(source), source.dtype
    if library == "netCDF4":
        plain = not (source.mask or (source.scale and SCALING & set(source.ncattrs())))
    else:
        plain = library in ("zarr", "h5py")
    return dtype if plain and isinstance(dtype, np.dtype) and dtype.kind in "?biufc" and dtype.isnative else None


def is_read_only(out: Any) -> bool:
    """True for an ndarray, or an array of zarr or h5py, that surely cannot be written to."""
    if isinstance(out, np.ndarray):
        return not out.flags.writeable
    library = library_of(out)
    mode = getattr(getattr(out, "file", None), "mode", None) if library == "h5py" else None
    return mode == "r" or (library == "zarr" and getattr(out, "read_only", False) is True)


def chunk_ends(source: Any, axis: int, shards: bool = False) -> list[int] | None:
    """Where chunks of an array in a file, or Dask's, end along an axis; None if it has no chunks or does not tell.

    With `shards`, where the shards of zarr end, if there are: several chunks, which are written together.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> chunk_ends(SimpleNamespace(shape=(7, 5), chunks=(3, 5)), 0)
    [3, 6, 7]
    """
    chunks = (getattr(source, "shards", None) if shards else None) or getattr(source, "chunks", None)
    if chunks is None and callable(chunking := getattr(source, "chunking", None)):  # netCDF4
        chunks = chunking()
    if not isinstance(chunks, list | tuple) or len(chunks) != len(source.shape):
        return None
    length, whole = chunks[axis], int(source.shape[axis])
    if isinstance(length, tuple):  # Dask
        return list(accumulate(length))
    if not isinstance(length, int | np.integer) or length < 1:
        return None
    return [*range(int(length), whole, int(length)), whole]


def access(array: Any) -> contextlib.AbstractContextManager[object]:
    """Held while an array in a file is read or written; Dask's and zarr's may be by several threads at a time."""
    several = is_lazy(array) or library_of(array) == "zarr"
    return contextlib.nullcontext() if several else READS


def library_of(array: Any) -> str:
    """The library that an array comes from, which need not be imported to ask."""
    return type(array).__module__.partition(".")[0]


def is_duck(array: Any) -> bool:
    """True for an array of another library, which NumPy would make one of its own of: its unit or zeros would be lost.

    Dask's arrays are computed first.
    """
    if isinstance(array, np.ndarray | np.generic) or is_lazy(array):
        return False
    return hasattr(array, "__array_function__") or hasattr(array, "__array_namespace__")


def check_no_frame(iterable: Any, number: int) -> None:
    """Raise a TypeError for a DataFrame of pandas among items: the loop over one gives the names of its columns."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(iterable, pandas.DataFrame):
        raise TypeError(
            f"iterable {number} is a DataFrame, and a loop over it gives the names of its columns; for its rows write "
            "parallel_map(func, df.itertuples(index=False)), or parallel_apply(func, df.to_numpy()) if one dtype "
            "holds them; for its columns parallel_map(func, [df[name] for name in df])"
        )


def labelled_remedy(array: Any) -> str:
    """What to write in place of an array that is indexed by label."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(array, pandas.DataFrame):
        return (
            "for rows as arrays pass df.to_numpy(); for rows with names write "
            "parallel_map(func, df.itertuples(index=False))"
        )
    if pandas is not None and isinstance(array, pandas.Series):
        return "pass its values, s.to_numpy(); for a Series again write pd.Series(parallel_map(func, s), index=s.index)"
    if library_of(array) == "xarray":
        one = "x" if hasattr(array, "to_numpy") else "x['name']"  # a variable of a Dataset
        return f"pass its values, {one}.to_numpy(); .par.map keeps the labels, after import parwise.xarray"
    return "pass its values, as in x.to_numpy()"


def unlabelled_remedy(array: Any) -> str:
    """What to write in place of something that is not an array."""
    if isinstance(array, Sequence) or any(hasattr(array, name) for name in ("__array__", "__array_interface__")):
        return (
            "pass np.asarray(x) (its elements are then NumPy scalars or arrays), or use parallel_map(func, x), which "
            "takes a list of anything"
        )
    if isinstance(array, Iterable):  # a set, a dict, an iterator: np.asarray makes one object of it
        return "use parallel_map(func, x), which takes any iterable"
    return "pass it in args=(...,) if every call is to get it"


def is_lazy(array: Any) -> bool:
    """True for an array of Dask."""
    return hasattr(type(array), "__dask_graph__") and array.__dask_graph__() is not None


def plain_array(part: Any, name: str, declared: Any) -> np.ndarray:
    """What was read as an ndarray; raise a TypeError if it has more than values: a mask, a unit, or zeros left out."""
    if type(part) is np.ndarray:
        return part
    part = part.compute() if is_lazy(part) else part
    kind = f"{type(part).__module__}.{type(part).__name__}"
    if is_masked(type(part)):
        raise TypeError(
            f"{name} reads as masked arrays, whose masks would be lost; pass filled values, x[...].filled(value), "
            "or map the data and np.ma.getmaskarray(x[...]) together"
        )
    plain = isinstance(part, np.ndarray) and type(part) in (np.ndarray, np.memmap, np.recarray)
    if is_duck(part) or (isinstance(part, np.ndarray) and not plain):
        raise TypeError(f"{name} reads as {kind}, which would lose what makes it one; pass np.asarray(x) of its values")
    array = np.asarray(part)
    if array.dtype.kind == "O" and np.dtype(declared).kind != "O":  # NumPy knows nothing of it
        raise TypeError(
            f"{name} reads as {kind}, which NumPy cannot make an array of numbers of; pass a NumPy array of its values"
        )
    return array
