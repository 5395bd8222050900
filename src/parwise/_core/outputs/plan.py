"""How much of arrays in files must be held so that each chunk is read and written once; said before the run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import user_level
from ..call import result_axes
from ..indexing import Runs
from ..inputs.source import MAX_READ_BYTES
from .sink import runs_of

#: This part of the memory available may be held for files; of more, chunks are read or written several times.
HELD_SHARE = 0.25
#: Bytes of the chunks that a warning suggests.
GOOD_CHUNK_BYTES = 2**24


class _Held(NamedTuple):
    """An array in a file, its mapped axes, and the bytes to hold so that each of its chunks is read or written once."""

    name: str
    array: Any
    axes: Sequence[int]
    nbytes: int


def plan_files(
    inputs: Sequence[Any], targets: Sequence[Any], axis: tuple[int, ...], grid: tuple[int, ...], available: int
) -> int:
    """Let each reader hold its part of the available memory, and warn of arrays that would need more.

    Returns
    -------
    int
        Bytes that may be held of each array in `out`.
    """
    readers = [reader for one in inputs if (reader := getattr(one.source, "reader", None)) is not None]
    held = [_Held(one.name, one.source, one.axes, one.once_bytes) for one in readers]
    held += _outputs(targets, axis, grid)
    most = max(MAX_READ_BYTES, int(HELD_SHARE * available / max(1, len(held))))
    for reader in readers:
        reader.most_bytes = most
    for one in held:
        if one.nbytes > most:
            warnings.warn(_text(one, most), RuntimeWarning, stacklevel=user_level())
    return most


def _outputs(targets: Sequence[Any], axis: tuple[int, ...], grid: tuple[int, ...]) -> Iterator[_Held]:
    for number, out in enumerate(targets):
        axes = result_axes(axis, len(out.shape))
        same = tuple(out.shape[one] for one in axes) == grid
        runs = None if isinstance(out, np.ndarray) or not same else runs_of(out, axes, grid)
        if runs is not None:
            name = "out" if len(targets) == 1 else f"array {number} of out"
            yield _Held(name, out, axes, _run_bytes(out, axes, runs))


def _run_bytes(out: Any, axes: Sequence[int], runs: Runs) -> int:
    rest = math.prod(int(n) for k, n in enumerate(out.shape) if k not in axes)
    return runs.longest * rest * int(getattr(out.dtype, "itemsize", 8))


def _text(one: _Held, most: int) -> str:
    axes = tuple(one.axes) if len(one.axes) > 1 else one.axes[0]
    verb = "written" if one.name.endswith("out") else "read"
    return (
        f"{one.name} of shape {tuple(one.array.shape)} has chunks that reach across "
        f"{one.nbytes / 1e9:.3g} GB of consecutive elements along axis {axes}, and only "
        f"{most / 1e9:.3g} GB are held in memory at a time, so each chunk is {verb} about "
        f"{-(-one.nbytes // most)} times; in chunks of shape {_good_chunks(one)} it would be {verb} "
        "once"
    )


def _good_chunks(one: _Held) -> tuple[int, ...]:
    """A shape of chunks of which each is needed by consecutive elements alone."""
    shape = [int(n) for n in one.array.shape]
    good = [1 if axis in one.axes else n for axis, n in enumerate(shape)]
    for axis in reversed(one.axes):
        row_bytes = math.prod(good) * int(one.array.dtype.itemsize)
        good[axis] = max(1, min(shape[axis], GOOD_CHUNK_BYTES // max(1, row_bytes)))
        if good[axis] < shape[axis]:
            break
    return tuple(good)
