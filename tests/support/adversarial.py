"""Cases of hostile functions, arrays and surroundings, each over every way that a call can take.

A case is a function, its arrays and, if need be, a context. The plain loop over it, run once in the main thread, tells
what every way has to give: the same bytes, or an exception of the same type and text.
"""

from __future__ import annotations

import functools
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pytest

from parwise import parallel_apply

from .oracle import assert_same, blocks, loop

#: By where the function runs: options of each call.
WAYS = {
    "caller": [{"workers": 1}, {"executor": "serial"}],
    "threads": [{"executor": "threads", "workers": workers} for workers in (2, 3)],
    "isolated": [{"isolate": True, "workers": workers} for workers in (2, 3)],
    "eager": [{"workers": workers} for workers in (2, 3)],
}
buffers = {}


@dataclass(frozen=True, eq=False)
class Case:
    """`plain`, if given, stands in for `func` in the loop, where that one spoils what it gets or gave."""

    func: Callable
    arrays: tuple
    context: Callable[[], AbstractContextManager]
    plain: Callable | None
    options: dict


def case(func, *arrays, context=nullcontext, plain=None, **options):
    return Case(func, arrays, context, plain, options)


def blockwise(func, array, chunk=4, **options):
    return case(func, array, vectorized=True, chunk=chunk, **options)


def reused(x):
    """Return the same memory each time in one thread."""
    buffer = buffers.setdefault((threading.get_ident(), x.shape), np.empty(x.shape))
    return np.multiply(x, 3, out=buffer)


def here(call):
    return call()


def in_thread(call):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call).result()


def bounds(length, chunk):
    starts = list(range(0, length, chunk))
    if chunk > 1 and length - starts[-1] == 1:
        starts.pop()
    return list(pairwise([*starts, length]))


@functools.cache
def expected(one):
    """Return the plain loop's result, or the exception that it raises."""
    func, given = one.plain or one.func, dict(one.options)
    try:
        with one.context():
            if not given.pop("vectorized", False):
                return loop(func, *one.arrays, **given)
            chunk, axis = given.pop("chunk"), given.get("axis", 0)
            return blocks(func, one.arrays[0], bounds(one.arrays[0].shape[axis], chunk), axis)
    except Exception as error:
        return error


def calls(name, way, request):
    """The calls of a case: each options and each place once, and over all cases each with each, as the mark `pairs`."""
    places = (here, in_thread)
    if request.config.option.every_case:
        return product(way, places)
    return zip(way, places if zlib.crc32(name.encode()) % 2 else places[::-1], strict=True)


def check(one, run, options):
    want = expected(one)
    before = [array.tobytes() for array in one.arrays]

    def call():
        with one.context():
            return parallel_apply(one.func, *one.arrays, **one.options, **options)

    if isinstance(want, Exception):
        with pytest.raises(type(want)) as caught:
            run(call)
        text = str(caught.value)
        assert type(caught.value) is type(want)
        assert text == str(want) or "cannot be stacked" in text or text.startswith("func returned"), text
    else:
        assert_same(run(call), want)
    assert [array.tobytes() for array in one.arrays] == before
