"""Hostile functions, numbers, arrays and surroundings."""

from __future__ import annotations

import decimal
import fractions
import tempfile
import warnings
from contextlib import contextmanager
from functools import partial
from itertools import product

import numpy as np
import pytest
import threadpoolctl

from ..support.adversarial import WAYS, blockwise, calls, case, check, here, in_thread, reused
from ..support.internals import default_pool
from ..support.strategies import LAYOUTS, make_array

pytestmark = [
    pytest.mark.usefixtures("small_tasks"),
    # Where the machine is busy, calls are long enough for the check of a border, on which some of these depend.
    pytest.mark.filterwarnings("ignore:the function.s results depend on where its blocks"),
]
rng = np.random.default_rng(19)


@contextmanager
def bufsize(size):
    before = np.setbufsize(size)
    try:
        yield
    finally:
        np.setbufsize(before)


@contextmanager
def filtered(action, message=""):
    """Apply `action` to warnings with `message`, and ignore all others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings(action, message)
        yield


errstate = partial(partial, np.errstate)
printoptions = partial(partial, np.printoptions)
places = partial(partial, decimal.localcontext)
quiet = errstate(all="ignore")


def trap(kind, flag):
    raise LookupError(kind, flag)


N = np.arange(24.0)
WIDE = rng.standard_normal((14, 97)) * 10.0 ** rng.integers(-3, 4, (14, 97))
WIDE_F = np.asfortranarray(WIDE)
CUBE = rng.standard_normal((7, 6, 9))
CUBE_F = np.asfortranarray(CUBE)
W = rng.standard_normal((97, 5))
HARD = np.array([1e-3, 0.1, 1 / 3, 0.7, 1, 1.1, np.pi, 9.9, 123.4, 6e4, -1e-5, -3.3])
Z = rng.standard_normal(40) * 1e3 + 1j * rng.standard_normal(40)
Z_ROWS = Z.reshape(8, 5)
ZEROS = np.array([complex(a, b) for a in (0.0, -0.0, 1, -1, np.inf) for b in (0.0, -0.0, 2, -np.inf, np.nan)])
NAN8 = np.array([0x7FF4 << 48 | 5, 0xFFF8 << 48 | 77, 0x7FF0 << 48 | 1, 1 << 63, 1, 0xFFF0 << 48], "u8").view("f8")
NAN4 = np.array([0x7FA00001, 0xFFC00123, 0x7FC00000, 0xFF800001, 0x80000000, 1, 0x7F800000], "u4").view("f4")
NAN2 = np.array([0x7D01, 0xFE22, 0x8000, 1, 0x7C00, 0xFC01], "u2").view("f2")
TINY = np.array([5e-324, -5e-324, 1e-310, 2.2250738585072014e-308, -1e-309, 4e-320, 1.5e-323])
RECORDS = np.zeros(15, [("x", "f4"), ("y", ">i2", (2,)), ("s", "S3")])
RECORDS["x"], RECORDS["y"], RECORDS["s"] = rng.standard_normal(15), rng.integers(0, 99, (15, 2)), b"ab"
STEPPED = make_array((400, 500), "f8", "F")[::3, ::2]
FIXED = {layout: make_array((97, 5), "f8", layout) for layout in ("F", "stepped", "negative", "unaligned", "field")}
KWARGS = {"w": FIXED["unaligned"], "b": np.broadcast_to(W[:, 1].astype(">f8"), (97, 97))[::2, 5]}
STEPS = WIDE_F, WIDE[:, ::-1], make_array((14, 97), ">f4", "unaligned"), np.arange(14, dtype="u1")[::-1]
SQUARE = rng.standard_normal((4, 200, 200))
LONG = rng.standard_normal((6, 20_001))
ODD_OBJECTS = np.array([1, "a", None, 2.5, 3j, (1, 2)] * 3, object)[:17]
TEXT = np.array(["a", "", "x" * 60, "é"] * 6, "T").reshape(3, 8).T
MIXED = [np.int8, np.uint16, np.float16]
with tempfile.TemporaryFile() as file:
    MAPPED = np.memmap(file, dtype=">f4", mode="w+", shape=(9, 40), order="F")
MAPPED[:] = rng.standard_normal((9, 40))


def sums(v):
    """Compute sums whose rounding depends on the loop; the first axis counts items."""
    return v.T @ v, v.T @ W, np.einsum("i...,i...->...", v, v), v.sum(), v.mean(), v.var(), v.cumsum()


def powers(x):
    return x**2, x**3, x**0.5, x**-1.0, np.power(x, 3), x * x * x


def reused_at_first(x):
    return reused(x) if x[0] < 1 else x.astype("c8")


def add_one(x):
    x += 1
    return x


def spoil(x, y):
    x *= y
    y[...] = 0
    return x.sum() + y.sum()


def warn_odd(x):
    warnings.warn(f"odd {x:g}", UserWarning, stacklevel=1)
    return x


def casts(v):
    return np.add.reduce(v, dtype="f8"), v.sum(dtype=">f4"), np.einsum("i,i", v, v, dtype="f8"), np.getbufsize()


CASES = {
    "mixed types in turn": case(lambda x: MIXED[int(x) % 3](x), N),
    "mixed types in runs": case(lambda x: MIXED[int(x) // 8](x), N),
    "mixed types in runs, reversed": case(lambda x: MIXED[2 - int(x) // 8](x), N),
    "last one of another type": case(lambda x: np.int8(x) if x < 23 else np.float16(x), N),
    "Python scalars": case(lambda x: [True, 2, 3.5, 1j][int(x) % 4], N),
    "bools, then ints, then floats": case(lambda x: [bool, int, float][int(x) // 8](x), N),
    "int8 and Python int": case(lambda x: np.int8(x) if x % 5 else 300, N),
    "float32 and Python float": case(lambda x: np.float32(x) if x < 20 else 0.1, N),
    "2**63 late": case(lambda x: 2**63 if x == 21 else int(x), N),
    "2**64 early": case(lambda x: 2**64 if x < 2 else -1, N),
    "uint64 and negative": case(lambda x: np.uint64(2**63) if x < 20 else -1, N),
    "strings grow": case(lambda x: "é" * int(x), N),
    "numbers, then strings": case(lambda x: np.int32(x) if x < 20 else "ab", N),
    "bytes": case(lambda x: b"a\0b" * int(x), N),
    "string arrays": case(lambda x: np.array(["a" * int(x), "b"]), N),
    "dates of two units": case(lambda x: np.datetime64(int(x), "D" if x < 9 else "ms"), N),
    "dates and plain NaT": case(lambda x: np.datetime64("NaT") if x < 9 else np.datetime64(int(x), "h"), N),
    "timedeltas of two units": case(lambda x: np.timedelta64(int(x), "h" if x > 9 else "us"), N),
    "years and days": case(lambda x: np.timedelta64(int(x), "Y" if x > 9 else "D"), N),
    "None among floats": case(lambda x: None if x == 13 else float(x), N),
    "None among float64": case(lambda x: None if x == 13 else x, N),
    "None, then complex": case(lambda x: None if x < 2 else complex(x, -0.0), N),
    "objects": case(lambda x: [fractions.Fraction(int(x), 3), {"x": x}, "s"][int(x) % 3], N),
    "arrays of mixed types": case(lambda x: np.full(3, x, MIXED[int(x) % 3]), N),
    "arrays, then strings": case(lambda x: np.full(2, x, "f4") / 3 if x < 20 else ["a", "bcd"], N),
    "arrays, then objects": case(lambda x: np.full(2, x, ">f4") / 3 if x < 20 else np.array([None, 1]), N),
    "byte orders": case(lambda x: np.full(2, x, "<f4" if x % 2 else ">f4") / 3, N),
    "records promoted": case(lambda x: np.array([(x,)], [("a", "f4" if x < 20 else "f8")]), N),
    "0-d arrays of mixed types": case(lambda x: np.array(x, MIXED[int(x) % 3]), N),
    "ragged at once": case(lambda x: np.zeros(int(x)), N),
    "ragged at last": case(lambda x: np.zeros(2 + int(x) // 23), N),
    "tuple of types": case(lambda x: (int(x), x / 3, str(x), MIXED[int(x) % 3](x), np.full((2, 1), x, "c8"), None), N),
    "tuples of two lengths": case(lambda x: (1,) * (1 + int(x) // 20), N),
    "named tuple": case(np.linalg.slogdet, CUBE[:, :, 3:]),
    "powers of rows": case(powers, WIDE),
    "empty results": case(lambda x: np.zeros((0, 3), "i2"), N),
    "negative power of ints": case(lambda x: x**-1, np.arange(3, 9)),
    "NaN payloads f4": case(lambda x: (x, -x, abs(x), x + 1, x * x, np.float64(x)), NAN4, context=quiet),
    "NaN payloads f8": case(lambda x: (x, -x, float(x), x - 1, np.float32(x), complex(x, x)), NAN8, context=quiet),
    "NaN payloads f2": case(lambda x: (x, -x, np.float32(x), x / x), NAN2, context=quiet),
    "NaN payloads in rows": case(lambda v: v.view("f4")[::-1], np.tile(NAN4, (6, 2)).view("c8")),
    "NaN payloads in sums": case(lambda v: (v.sum(), v @ v, v.max(), np.sort(v)), np.tile(NAN8, (6, 3)), context=quiet),
    "negative zeros": case(lambda x: (x * 1, -x, np.sqrt(x), x + x, x + 0, float(x)), np.array([-0.0, 0.0, -0.0, 3])),
    "negative zeros in rows": case(lambda v: (v.sum(), v * v[0], v.max(), np.cumsum(v)), -np.zeros((6, 9), "f4")),
    "complex signed zeros": case(lambda z: (z, -z, z * 1j, z * z, z.conjugate(), np.sqrt(z)), ZEROS, context=quiet),
    "Python complex zeros": case(lambda z: complex(z) * 1j, ZEROS),
    "subnormals": case(lambda x: (x / 2, x + x, x * 0.75, np.float32(x), np.sqrt(abs(x))), TINY, context=quiet),
    "longdouble": case(lambda x: (x / 3, np.sqrt(x), x**3), HARD.astype("g")),
    "longdouble rows": case(lambda v: (v.sum(), v / 3, v @ v, v.var()), np.asfortranarray(WIDE.astype("g"))),
    "complex scalars": case(lambda z: z * z * z / (z + 2) - 1 / z, Z),
    "complex rows": case(lambda v: (v * v, v / v[::-1], v @ v, np.vdot(v, v), abs(v)), Z_ROWS.T, axis=1),
    "big-endian complex": case(lambda v: (v.sum(), v * v, v.prod()), Z_ROWS.astype(">c16")[:, ::-1]),
    "in place": case(add_one, WIDE, plain=lambda x: x + 1),
    "in place, F order": case(lambda x: add_one(x).sum(0), CUBE_F, plain=lambda x: (x + 1).sum(0)),
    "in place, other strides": case(add_one, CUBE[::2, ::-1, ::3], axis=1, plain=lambda x: x + 1),
    "in place, several arrays": case(spoil, CUBE, -CUBE, plain=lambda x, y: spoil(x.copy(), y.copy())),
    "in place, records": case(lambda r: r["y"].__iadd__(3).sum(), RECORDS, plain=lambda r: (r["y"] + 3).sum()),
    "in place, read-only": case(add_one, make_array((5, 4), "f8", "readonly")),
    "argument": case(lambda v: v, make_array((12, 7), ">f4", "negative")),
    "reversed view": case(lambda v: v.T[::-1, ::-2], CUBE),
    "reused memory": case(reused, WIDE, plain=lambda x: x * 3),
    "reused memory at first": case(reused_at_first, np.sort(WIDE, axis=0), plain=lambda x: reused_at_first(x).copy()),
    "columns": case(sums, WIDE.T.copy(), axis=1),
    "pixels": case(lambda v: (v @ v, v.var(), v[:2]), CUBE_F, axis=(1, 2)),
    "pixels, other order": case(np.cumsum, CUBE[::-1, ::2], axis=(2, 0)),
    "pixels from the end": case(lambda v: (v.mean(), v), CUBE.T.astype(">f4"), axis=(-1, -2)),
    "all axes": case(lambda x: x * x / 3, CUBE.T[::2], axis=(0, 1, 2)),
    "pixels in step": case(lambda v, w: v @ w, CUBE, CUBE_F[:, ::-1], axis=(0, 1)),
    "several layouts": case(lambda v, w, x, k: (v @ w, (w * x).sum(), x.var() * k, x**k), *STEPS),
    "no pixel": case(np.sum, np.ones((2, 0, 3)), axis=(1, 2)),
    "empty elements": case(lambda v: (v.sum(), v, v.shape[0]), np.ones((9, 0, 2), ">f4")),
    "length 1 inside": case(lambda v: (v.sum(), v @ v, v), WIDE_F[:, :1]),
    "length 1 pixels": case(lambda v: (v.sum(), v), CUBE[:, :1, ::2], axis=(1, 2)),
    "records": case(lambda r: (r["x"] * 3, r["y"], r["s"], r["y"] @ r["y"]), RECORDS),
    "records returned": case(lambda r: r, RECORDS[::-2]),
    "record arrays": case(lambda r: (r.x.sum(), r.y.T, type(r).__name__), RECORDS.reshape(5, 3).view(np.recarray)),
    "memmap": case(lambda v: (v.sum(), v.cumsum(), type(v).__name__), MAPPED),
    "object scalars": case(lambda x: x, ODD_OBJECTS),
    "object rows": case(lambda v: (v @ v, v.sum(), v[::-1]), WIDE[:, ::3].astype(object)),
    "timedelta rows": case(lambda v: (v.sum(), v.mean(), v.max(), v / 3), make_array((9, 5), "m8[s]", "negative")),
    "date rows": case(lambda v: (np.diff(v), v.max(), v.astype("M8[D]")), make_array((9, 5), ">M8[s]", "F")),
    "bool rows": case(lambda v: (v.sum(), v.any(), ~v, v.mean()), WIDE.T > 0),
    "strings": case(lambda v: (v, np.char.upper(v), v[0] + "x"), make_array((9, 3), ">U2", "stepped")),
    "StringDType": case(lambda v: (v, np.strings.str_len(v), v[0] * 40), TEXT),
    "closure, large and not contiguous": case(lambda x: (STEPPED[int(x)] @ STEPPED[3], (STEPPED * x).sum()), N),
    "closures of all layouts": case(lambda v: tuple(v @ w + w.sum(0) for w in FIXED.values()), WIDE),
    "args of all layouts": case(lambda v, *ws: [v @ w for w in ws], WIDE, args=tuple(FIXED.values())),
    "kwargs with arrays": case(lambda v, *, w, b: (v @ w, b @ b, b.mean()), WIDE.T, axis=1, kwargs=KWARGS),
    "bufsize": case(lambda v: (v.sum(), v.mean(), v.var()), WIDE.astype(">f8"), context=partial(bufsize, 32)),
    "bufsize and casts": case(casts, np.asfortranarray(WIDE.astype(">f4")), context=partial(bufsize, 48)),
    "errstate ignore": case(lambda x: (1 / x, x / x, np.exp(x * 99)), N, context=quiet),
    "errstate raise for subnormals": case(lambda x: x / 2, TINY, context=errstate(under="raise")),
    "errstate raise for ints": case(lambda x: np.int8(110) + np.int8(x), N, context=errstate(over="raise")),
    "errstate warn": case(np.log, WIDE, context=partial(filtered, "ignore")),
    "errstate warn is an error": case(np.log, WIDE[:, :2] + 99, context=partial(filtered, "error")),
    "errstate call": case(lambda x: 1 / x, N, context=errstate(all="call", call=lambda *given: None)),
    "errstate call raises": case(lambda x: 1 / (x - 20), N, context=errstate(all="call", call=trap)),
    "decimal precision": case(lambda x: str(decimal.Decimal(x) / 7), N, context=places(prec=5, rounding="ROUND_UP")),
    "decimal trap": case(lambda x: str(decimal.Decimal(x) / 8), -N, context=places(prec=2, traps=[decimal.Inexact])),
    "printoptions": case(lambda v: repr(v) + repr(v[0]), WIDE, context=printoptions(precision=3, sign="+")),
    "printoptions with a function": case(str, WIDE, context=printoptions(formatter={"float": "{:.1e}".format})),
    "printoptions of old": case(lambda x: repr(x) + repr(np.array([x])), N / 3, context=printoptions(legacy="1.25")),
    "warning of one index is an error": case(warn_odd, N, context=partial(filtered, "error", "odd 17$")),
    "exceptions from one index on": case(lambda x: {k: k for k in range(15)}[int(x)], N),
    "exceptions of several types": case(lambda x: 1 / (int(x) - 21) + len("a" if x < 9 else 5), N),
}
CASES |= {
    f"rows {dtype} {layout}": case(sums, make_array((14, 97), dtype, layout))
    for dtype, layout in product(("f8", "f4", ">f8"), LAYOUTS)
}
CASES |= {
    f"powers {dtype}": case(powers, HARD.astype(dtype), context=quiet) for dtype in ("f8", "f4", "f2", "i4", "c16")
}
for threads in (1, 2):
    limit = partial(threadpoolctl.threadpool_limits, threads)
    CASES |= {
        f"BLAS {threads} solve": case(lambda m: np.linalg.solve(m, m[0]), SQUARE, context=limit),
        f"BLAS {threads} dot": case(lambda v: v @ v, LONG, context=limit),
        f"BLAS {threads} gemm": case(lambda m: m @ m.T, SQUARE[:, :160, :160], context=limit),
        f"BLAS {threads} svd": case(np.linalg.svd, SQUARE[:, 20:90, 3:50], context=limit),
        f"BLAS {threads} eigh": case(lambda m: np.linalg.eigh(m + m.T), SQUARE[:, :70, :70], context=limit),
        f"BLAS {threads} blocks": blockwise(lambda b: b @ SQUARE[0, :97], SQUARE[3, :, :97], 31, context=limit),
    }

CASES |= {
    "blocks gemm": blockwise(lambda b: b @ W, np.asfortranarray(rng.standard_normal((60, 97))), 7),
    "blocks gemm, columns": blockwise(lambda b: W.T @ b, WIDE.T.astype("f4"), 3, axis=1),
    "blocks cumsum": blockwise(lambda b: np.cumsum(b, axis=0), WIDE[:, ::3]),
    "blocks sort, negative axis": blockwise(lambda b: np.sort(b, axis=-1), CUBE[:, ::-1], 2, axis=-1),
    "blocks of one": blockwise(lambda b: b - b.mean(), WIDE_F, 1),
    "blocks, remainder of one": blockwise(lambda b: b - b.mean(), N[:21].astype("f4"), 5),
    "blocks that filter": blockwise(lambda b: b[b > 0], WIDE[0]),
    "blocks that vanish": blockwise(lambda b: b[:0].astype("i1") if b[0] < 3 else b.astype("f4"), N),
    "blocks that repeat": blockwise(lambda b: np.repeat(b, 2, axis=1), CUBE, 2, axis=1),
    "blocks of mixed types": blockwise(lambda b: b.astype(MIXED[int(b[0]) % 3]), N),
    "blocks of strings": blockwise(lambda b: np.array([str(x) for x in b]), N, 5),
    "blocks of dates": blockwise(lambda b: b.astype("i8").astype("M8[D]" if b[0] < 9 else "M8[s]"), N),
    "blocks of records": blockwise(lambda b: np.sort(b, order="x"), RECORDS),
    "blocks in place": blockwise(add_one, CUBE[:, ::-1], 3, axis=2, plain=lambda b: b + 1),
    "blocks in reused memory": blockwise(reused, WIDE[:12], 3, plain=lambda b: b * 3),
    "blocks, reversed": blockwise(lambda b: b[::-1, ::2], make_array((22, 9), "c16", "F"), 5),
}

ALL = list(product(CASES, WAYS))
COLD = ["mixed types in turn", "rows >f8 stepped", "BLAS 1 solve", "errstate call raises", "StringDType", "blocks gemm"]


@pytest.mark.parametrize(("name", "way"), ALL, indirect=["way"])
def test_case(name, way, request):
    for options, run in calls(name, way, request):
        check(CASES[name], run, options)


@pytest.mark.pairs
@pytest.mark.parametrize("run", [here, in_thread])
@pytest.mark.parametrize("way", ["isolated", "eager"], indirect=True)
@pytest.mark.parametrize("name", COLD)
def test_case_when_no_worker_is_up(name, way, run):
    default_pool().stop()
    check(CASES[name], run, way[1])
    check(CASES[name], here, way[1])  # the fork server outlives the thread that started it
