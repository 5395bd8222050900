"""Hostile objects: Python objects in arrays, arrays in objects, closures and results; the interpreter's own limits."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import namedtuple
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest

from parwise import parallel_apply

from ..support.adversarial import WAYS, blockwise, calls, case, check, here, in_thread, reused
from ..support.scripts import run_script
from ..support.strategies import make_array

pytestmark = pytest.mark.usefixtures("small_tasks")
rng = np.random.default_rng(0)
N = np.arange(24.0)
CUBE = rng.standard_normal((12, 9, 11)) * 10.0 ** rng.integers(-3, 4, (12, 9, 11))
OBJECTS = CUBE.astype(object)
SWAPPED = OBJECTS.transpose(0, 2, 1)
FIELDS = np.empty((5, 12, 9), [("f", object), ("x", ">i2")], order="F").transpose(1, 2, 0)
FIELDS["f"], FIELDS["x"] = OBJECTS[:, :, :5], np.arange(5)
THREES = np.empty((12, 7), [("x", "i1"), ("f", object, (3, 2))])
THREES["f"] = OBJECTS[:, :7, :6].reshape(12, 7, 3, 2)
WINDOWS = np.lib.stride_tricks.sliding_window_view(OBJECTS[:, 0], 4, axis=1)
SPREAD = np.broadcast_to(OBJECTS[:, 0, None], (12, 9, 11))
READ_ONLY = OBJECTS[:, :, 0].copy()
READ_ONLY.flags.writeable = False
TEXT = np.array([["a", "", "x" * 60, "é", "y"]] * 9, "T")
MISSING = np.dtypes.StringDType(na_object=None)
TEXTS = np.array([[[f"{i}{'é' * 9 * j}{k}" for k in range(4)] for j in range(4)] for i in range(7)], MISSING)
TEXTS[1:3, 2] = None
B = np.asfortranarray(rng.standard_normal((24, 333)))
ROWS, LOOPED = np.empty((2, 24), object)
ROWS[:] = [B[i] if i % 2 else B[i, ::-3].astype(">f4")[::2] for i in range(24)]
LOOPED[:] = [[LOOPED, B[i]] for i in range(24)]
W = rng.standard_normal((40, 100))
SORTED = np.sort(CUBE[:, 0], axis=0)


def memmap(dtype, shape):
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, dtype, "w+", shape=shape)
    mapped[:] = rng.standard_normal(shape)
    return mapped


MAPPED = memmap("f8", (300, 300))
MAPPED_F4 = memmap(">f4", (24, 40))
FROZEN = MAPPED_F4[:9].view()
FROZEN.flags.writeable = False
RECORDS = np.zeros(300, [("x", ">f8"), ("y", "f4")]).view(np.recarray)
RECORDS["x"], RECORDS["y"] = rng.standard_normal((2, 300))
HELD = {
    "memmap": MAPPED,
    "memmap in steps": MAPPED[::2, ::3],
    "memmap, unaligned rows": MAPPED[3:, 5:200],
    "memmap of >f4": MAPPED_F4[::-1, 3::2],
    "memmap, read-only": FROZEN,
    "memmap, read-only, in steps": FROZEN[:, ::2],
    "memmap without length": MAPPED[:0],
    "matrix": W.view(np.matrix)[:, ::2],
    "recarray": RECORDS,
    "recarray in steps": RECORDS[10::-1],
    "dates": make_array((9, 5), ">M8[s]", "stepped"),
    "f4": make_array((9, 5), ">f4", "stepped"),
    "unaligned": make_array((9, 5), ">f4", "unaligned"),
    "objects": SWAPPED[::-2],
    "object fields": FIELDS[:, ::3],
    "objects, read-only": READ_ONLY,
    "strings": TEXT[:, ::2],
    "strings, some missing": TEXTS.T[::-1],
    "strings on a diagonal": TEXTS.diagonal(axis1=1, axis2=2),
    "strings, broadcast": np.broadcast_to(TEXT[:, None, ::2], (9, 2, 3)),
}
BUFFERS = {}
Pair = namedtuple("Pair", "whole part")


def seen(v):
    """Describe an array's memory as a function sees it."""
    flags = v.flags.forc, v.flags.c_contiguous, v.flags.aligned, v.flags.writeable
    address = None if v.dtype.hasobject else v.__array_interface__["data"][0] % 64
    return {v.dtype.str: (type(v).__name__, v.shape, flags, np.sign(v.strides).tolist(), address)}


def order(v):
    """Sort the axes from the longest stride to the shortest."""
    return np.argsort(v.strides)[::-1]


def sums(v):
    return v.sum(), v.sum(0), v @ v.T, [str(seen(v))]


def kept(x):
    return reused(x), float(x[0]), reused(x[:2]), x


def named(x):
    return Pair(reused(x), x[0])


def late(x):
    """Return a different dtype at first, then the same memory each time."""
    return x.astype("f4") if x[0] < 1 else reused(x)


def rewrite(v):
    v[:2] = "z" * 50
    return v


def in_objects(x):
    """Return the same object array each time."""
    buffer = BUFFERS.setdefault(threading.get_ident(), np.empty(2, object))
    buffer[:] = x, None
    return buffer


def dig(depth):
    return 0 if depth == 0 else 1 + dig(depth - 1)


def deepest(x):
    """Return how deep a function may call itself, in thousands: the exact depth depends on the caller's."""
    for thousands in range(1, 9):
        try:
            dig(1000 * thousands)
        except RecursionError:
            return thousands
    return 9


@contextmanager
def recursion(limit):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@contextmanager
def digits(limit):
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(limit)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


CASES = {
    "objects, axes swapped": case(np.sum, SWAPPED),
    "objects, axes swapped, all": case(sums, SWAPPED),
    "objects, F order": case(sums, np.asfortranarray(OBJECTS)),
    "objects in steps": case(sums, OBJECTS[::-2, ::-1, ::3]),
    "objects, other axis": case(sums, OBJECTS, axis=2),
    "objects, other axis, reversed": case(sums, SWAPPED[:, ::-1, ::2], axis=1),
    "objects, pixels": case(lambda v: (v.sum(), str(seen(v))), OBJECTS, axis=(2, 0)),
    "objects, windows": case(sums, WINDOWS),
    "objects, broadcast": case(lambda v: (v.sum(), str(seen(v)), v.strides[0]), SPREAD),
    "objects, read-only": case(seen, READ_ONLY),
    "objects of length 0": case(seen, OBJECTS[:, :0, ::2]),
    "objects in place": case(lambda v: np.add(v, 1, out=v), SWAPPED, plain=lambda v: v + 1),
    "object fields": case(lambda r: (r["f"].sum(), r["f"].sum(0), order(r), str(seen(r))), FIELDS),
    "object fields, one by one": case(lambda v: (v.sum(), v.sum(0), order(v), np.sign(v.strides)), FIELDS["f"]),
    "arrays in object fields": case(lambda r: (r["f"].sum(), r["f"].T.sum(0), order(r["f"])), THREES),
    "arrays in an object field": case(lambda v: (v.sum(), v.T.sum(0), order(v)), THREES["f"]),
    "strings that lie otherwise": case(lambda v: (v, str(seen(v))), TEXT.T),
    "strings in steps": case(lambda v: (v, str(seen(v))), TEXT[:, ::-2]),
    "strings, some missing": case(lambda v: (v, v[0, ::-1], str(seen(v))), TEXTS, axis=1),
    "strings, pixels": case(lambda v: (v, v[-1], str(seen(v))), TEXTS[:, ::-1], axis=(2, 0)),
    "strings, all axes": case(lambda x: (x, x and len(x)), TEXTS, axis=(0, 1, 2)),
    "strings on a diagonal": case(lambda v: (v, str(seen(v))), TEXTS.diagonal(axis1=1, axis2=2)),
    "strings, broadcast": case(lambda v: (v, str(seen(v)), v.strides[0]), np.broadcast_to(TEXT, (4, 9, 5))),
    "strings of length 0": case(lambda v: str(seen(v)), TEXTS[:, :0, ::2]),
    "strings in place": case(rewrite, TEXT.T, plain=lambda v: rewrite(v.copy())),
    "strings returned for numbers": case(lambda x: TEXTS[int(x) % 7, ::-2].T, N),
    "string blocks": blockwise(lambda b: b[:, ::-1], TEXTS, 3),
    "string blocks, F order": blockwise(lambda b: np.strings.add(b, str(len(b))), np.asfortranarray(TEXT), 3, axis=1),
    "object blocks": blockwise(lambda b: b.sum(axis=(0, 2))[None] + b[:, :, 0], SWAPPED[:, ::-1], 5),
    "object blocks, F order": blockwise(lambda b: b + b.sum(), np.asfortranarray(OBJECTS[:, :, 1]), 5, axis=1),
    "arrays of arrays": case(lambda x: (x @ x, x.sum(), str(x.dtype), x.flags.forc), ROWS),
    "arrays of arrays of arrays": case(lambda x: [v @ v + v.sum() for v in x], np.tile(ROWS, (6, 1))),
    "an array in itself": case(lambda x: (len(x[0]), x[0][3][1] @ x[1]), LOOPED),
    "closure, arrays of arrays": case(lambda x: [v @ v + x for v in ROWS], N),
    "closure, reversed arrays of arrays": case(lambda x, vs: [v @ v + x for v in vs], N, args=(ROWS[::-1],)),
    "closure, memmap": case(lambda x: x @ MAPPED[::2, ::3].T[:100], W),
    "closure, memmap in steps": case(lambda x: x @ HELD["memmap in steps"].T[:100, :9], W),
    "closure, >f4 in steps": case(lambda x: HELD["memmap of >f4"].sum() + HELD["f4"].mean() * x, N),
    "closure, unaligned": case(lambda x: HELD["memmap, unaligned rows"].sum(1) * x, N),
    "closure, matrix": case(lambda x: np.asarray(x[:50] * HELD["matrix"].T)[0], W),
    "closure, recarray": case(lambda x: RECORDS.x @ RECORDS.x + HELD["recarray in steps"].y.sum() * x, N),
    "closure, objects": case(lambda x: SWAPPED.sum(0).sum() + HELD["object fields"]["f"].sum() + x, N),
    "memmap returned": case(lambda x: x, MAPPED_F4[:1]),
    "memmap returned, more": case(lambda x: x, MAPPED_F4[:, ::-2]),
    "memmap returned, ragged": case(lambda x: {"x": x[: int(abs(x[0]) * 9)]}, MAPPED_F4[:, ::-2]),
    "arrays in dicts": case(lambda x: {"a": np.array([x, 1], ">f4")[::-1]}, N),
    "reused memory in tuples": case(kept, CUBE[:, 0], plain=lambda x: (x * 3, float(x[0]), x[:2] * 3, x)),
    "reused memory in named tuples": case(named, CUBE[:, 0], plain=lambda x: Pair(x * 3, x[0])),
    "reused memory, late": case(late, SORTED, plain=lambda x: x.astype("f4") if x[0] < 1 else x * 3),
    "reused memory of objects": case(in_objects, N, plain=lambda x: np.array([x, None])),
    "0-d arrays and None": case(lambda x: np.array(x) if x % 7 else None, N),
    "0-d arrays, then None": case(lambda x: np.array(x) if x < 20 else None, N),
    "0-d arrays and None in tuples": case(lambda x: (np.array(x), np.array(x) if x < 20 else None), N),
    "recursion limit": case(deepest, N[:3], context=lambda: recursion(4500)),
    "digits of ints": case(lambda x: len(str(10 ** int(900 * x))), N, context=lambda: digits(9000)),
    "too many digits": case(lambda x: len(str(10 ** int(50 * x))), N, context=lambda: digits(800)),
}
CASES |= {f"seen, {name}": case(lambda x, v=held: {x: seen(v)}, N) for name, held in HELD.items()}
CASES |= {f"argument, {name}": case(lambda x, v: {x: seen(v)}, N, args=(held,)) for name, held in HELD.items()}


@pytest.mark.parametrize(("name", "way"), list(product(CASES, WAYS)), indirect=["way"])
def test_case(name, way, request):
    for options, run in calls(name, way, request):
        check(CASES[name], run, options)


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_reused_memory_where_errors_are_ignored(way):
    def func(x):
        if x % 5 == 3:
            raise ValueError(x)
        return reused(x + np.zeros(2)), x

    for options, run in product(way, (here, in_thread)):
        with pytest.warns(RuntimeWarning):
            whole, part = run(lambda given=options: parallel_apply(func, N, errors="ignore", **given))
        expected = np.where(N % 5 == 3, np.nan, N)
        assert part.tobytes() == expected.tobytes()
        assert whole.tobytes() == np.repeat(expected * 3, 2).tobytes()


@pytest.mark.parametrize("name", HELD)
def test_arrays_in_results_lie_as_they_did(name):
    held = HELD[name]
    got = parallel_apply(lambda x: {"v": held}, N[:3], isolate=True, workers=2)
    for one in got:
        for lay, other in zip(seen(one["v"]).values(), seen(held).values(), strict=True):
            assert lay[:-1] == other[:-1]  # the address is free
        assert one["v"].dtype == held.dtype
        assert repr(one["v"].tolist()) == repr(held.tolist())


@pytest.mark.parametrize("kept", ["R", "R[::2]", "[R]", "{'r': R[1:]}", "np.recarray, R"])
def test_recarrays_travel_where_numpy_rec_has_not_been_imported(kept):
    done = run_script(f"""
        import numpy as np
        from parwise import parallel_apply
        R = np.zeros(3, [("x", "f8")]).view(np.recarray)
        kept = {kept}
        got = parallel_apply(lambda v: (str(kept), R["x"].sum() + v), np.arange(5.0), isolate=True, workers=2)
        assert got[0].tolist() == [str(kept)] * 5
        assert got[1].tolist() == [0, 1, 2, 3, 4]
    """)
    assert done.returncode == 0, done.stderr
