"""Functions, items and options of calls that several test files share."""

from __future__ import annotations

import os
import time
from itertools import pairwise

import numpy as np

from parwise import parallel_apply

#: Options by which two workers compute every element.
ISOLATED = {"isolate": True, "workers": 2}

rng = np.random.default_rng(8)
IMAGES = [rng.standard_normal((k % 7 + 1, k % 5 + 2)) for k in range(60)]
FUNCTIONS = {
    "images": (lambda image: np.sort(image, axis=0), IMAGES),
    "fortran": (lambda image: np.asfortranarray(image), IMAGES),
    "numbers": (lambda x: x * 0.5, list(range(200))),
    "text": (str.upper, [f"file {k}" for k in range(100)]),
    "tuples": (lambda pair: (pair[1], pair[0]), [(k, str(k)) for k in range(50)]),
    "mixed": (lambda x: [x, None, {"x": x}][int(x) % 3], [float(k) for k in range(50)]),
    "scalars": (np.float32, list(range(30))),
    "masked": (lambda x: np.ma.masked_less([1, 2, x], 2).sum(), list(range(20))),
    "dicts": (lambda d: sorted(d.items()), [{"a": k, "b": np.float64(k)} for k in range(30)]),
    "sets": (len, [set(range(k)) for k in range(30)]),
    "empty": (str.upper, []),
}


def slowly(x):
    """Compute for 30 ms in pure Python, long enough for workers to start meanwhile."""
    end = time.perf_counter() + 0.03
    while time.perf_counter() < end:
        x = x * 1.0
    return x


def describe(x):
    """Describe the memory of an argument as a function sees it: type, strides, flags, alignment."""
    flags = x.flags
    strides = [(s > 0) - (s < 0) if n > 1 else 9 for n, s in zip(x.shape, x.strides, strict=True)]
    flush = [n > 1 and abs(s) == x.itemsize for n, s in zip(x.shape, x.strides, strict=True)]
    remainder = [s % x.itemsize if n > 1 and x.itemsize else 0 for n, s in zip(x.shape, x.strides, strict=True)]
    live = sorted((abs(s), n) for n, s in zip(x.shape, x.strides, strict=True) if n > 1 and s)
    joined = [outer == inner * n for (inner, n), (outer, _) in pairwise(live)]
    return repr(
        (
            type(x).__name__,
            x.dtype.str,
            x.shape,
            flags.c_contiguous,
            flags.f_contiguous,
            flags.aligned,
            flags.writeable,
            strides if x.size else 0,
            flush if x.size else 0,
            remainder if x.size else 0,
            joined if x.size else 0,
            x.__array_interface__["data"][0] % 64 if x.size else 0,
        )
    )


def worker_pids(**options):
    """Return the sorted ids of the processes that compute 60 elements of 5 ms."""
    return sorted(set(parallel_apply(lambda x: (time.sleep(0.005), os.getpid())[1], np.arange(60), **options).tolist()))
