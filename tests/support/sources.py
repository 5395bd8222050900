"""Arrays that are not in memory: they count what is read of them, and may read otherwise than they declare."""

from __future__ import annotations

import collections
import itertools
import threading

import numpy as np


class Stored:
    """An array in a file of which slices are read; `chunks` are its chunks, and `reads` the regions that were read.

    `dtype` is what it declares, and `convert` makes what it reads.
    """

    def __init__(self, array, chunks=None, dtype=None, convert=np.copy):
        self._array, self.shape, self.dtype = array, array.shape, np.dtype(dtype or array.dtype)
        self._convert, self._lock = convert, threading.Lock()
        self.chunks, self.reads = chunks, []

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        with self._lock:
            self.reads.append(key)
        return self._convert(self._array[key])

    @property
    def most_bytes(self):
        """Bytes of the largest read."""
        return max(self._array[key].nbytes for key in self.reads)

    def reads_of_chunks(self):
        """How often each chunk was read."""
        found = collections.Counter()
        for key in self.reads:
            touched = []
            for part, n, length in zip(key, self.shape, self.chunks, strict=True):
                indices = range(*part.indices(n))
                touched.append(range(indices[0] // length, indices[-1] // length + 1) if len(indices) else ())
            found.update(itertools.product(*touched))
        return found


class Sunk:
    """An array in a file that is written by slices: it notes how often each chunk, or shard, was written, and how much.

    `array` is what has been written, -1 elsewhere.
    """

    def __init__(self, shape, chunks, dtype="f8", shards=None):
        self.array = np.full(shape, -1, dtype)
        self.shape, self.dtype, self.chunks = shape, np.dtype(dtype), chunks
        self._unit = shards or chunks
        if shards is not None:
            self.shards = shards
        self.writes = []

    def __setitem__(self, key, value):
        self.writes.append((slice(None),) * len(self.shape) if key is ... else key)
        self.array[key] = value

    def __getitem__(self, key):
        return self.array[key].copy()

    def writes_of_chunks(self):
        """How often each chunk was written, wholly or in part."""
        found = collections.Counter()
        for key in self.writes:
            spans = [part.indices(n)[:2] for part, n in zip(key, self.shape, strict=True)]
            touched = [range(a // c, -(-b // c)) for (a, b), c in zip(spans, self._unit, strict=True)]
            found.update(itertools.product(*touched))
        return found


def masked(part):
    """Masked where it is negative."""
    return np.ma.masked_less(part, 0)


class Meters(np.ndarray):
    """An array with a unit."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = [np.asarray(one) for one in inputs]
        return getattr(ufunc, method)(*plain, **kwargs).view(Meters)


class Duck:
    """An array of another library, with a unit."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

    def __getitem__(self, key):
        return Duck(self.array[key])

    def __setitem__(self, key, value):
        self.array[key] = value

    def __array__(self, dtype=None, copy=None):
        return self.array

    def __array_function__(self, func, types, args, kwargs):
        return NotImplemented
