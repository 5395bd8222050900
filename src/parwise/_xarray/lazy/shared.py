"""What all Dask tasks of a map need: part of each while it is small, else one value in the graph."""

from __future__ import annotations

import contextlib
import io
import pickle
from typing import Any

import cloudpickle
from dask.base import tokenize
from dask.delayed import delayed

# Dask sends what is part of a task with each: a function with an array of 100 MB made a scheduler 2 GB larger, and as
# one value 146 MB. A value of its own is not free either: Dask's optimizer does not fuse a task that needs two others.
SHARED_BYTES = 2**16


def shared(value: Any, name: str) -> Any:
    """`value` for an argument of Dask tasks: itself, or a delayed one if it is large."""
    if not _is_large(value):
        return value
    return delayed(value, name=f"{name}-shared-{tokenize(value)}", traverse=False)


class _LargeError(Exception):
    """More bytes were counted than a small value has."""


class _Counter(io.RawIOBase):
    """A file that counts bytes; raises `_LargeError` above the limit."""

    def __init__(self) -> None:
        self._count = 0

    def write(self, data: Any) -> int:
        self.add(len(data))
        return len(data)

    def add(self, count: int) -> None:
        self._count += count
        if self._count > SHARED_BYTES:
            raise _LargeError

    def add_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """Count the memory of an array, which is then not copied."""
        self.add(buffer.raw().nbytes)
        return False


def _is_large(value: Any) -> bool:
    """Tell whether a pickle of `value` has more than `SHARED_BYTES`."""
    counter = _Counter()
    # What cannot be pickled can only be used in threads, which share it.
    with contextlib.suppress(Exception):
        try:
            cloudpickle.Pickler(counter, protocol=5, buffer_callback=counter.add_buffer).dump(value)
        except _LargeError:
            return True
    return False
