"""Results have the bytes, dtype and shape of the plain loop."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.ndimage
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

from parwise import parallel_apply

from ..support.examples import examples
from ..support.functions import describe
from ..support.oracle import assert_same, blocks, loop
from ..support.strategies import LAYOUTS, arrays, axes, make_array

rng = np.random.default_rng(11)


OPTIONS = [
    {"isolate": True, "workers": 2},
    {"isolate": True, "workers": 1},
    {"workers": 1},
    {"executor": "threads", "workers": 2},
]


@pytest.mark.pairs
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 9), (9, 2), (5, 1), (1, 5), (33, 4, 3), (4, 33, 5), (3, 2, 1), (2, 3, 40)])
def test_function_cannot_tell_where_it_runs(layout, shape, options):
    for dtype in ("f8", ">f4", "c16"):
        a = make_array(shape, dtype, layout)
        for axis in range(a.ndim):
            assert_same(parallel_apply(describe, a, axis=axis, **options), loop(describe, a, axis=axis))
        grid = tuple(range(a.ndim - 1))
        got = parallel_apply(describe, a, axis=grid, **options)
        assert_same(got, loop(describe, a, axis=grid))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_block_function_cannot_tell_where_it_runs(layout, options):
    def tell(block):
        return np.array([describe(block)])

    for shape in ((7, 3), (3, 7), (8, 1), (6, 5, 4)):
        a = make_array(shape, "f8", layout)
        for axis in range(a.ndim):
            n = a.shape[axis]
            bounds = [(0, 2), (2, 4), (4, n)] if n > 4 else [(0, n)]
            got = parallel_apply(
                lambda b, axis=axis: tell(b).reshape([1] * b.ndim),
                a,
                axis=axis,
                vectorized=True,
                chunk=2 if n > 4 else max(1, n),
                **options,
            )
            bounds = [(k, min(k + 2, n)) for k in range(0, n, 2)] if n > 4 else [(0, n)]
            if n > 4 and n % 2:
                bounds[-2:] = [(bounds[-2][0], n)]
            want = blocks(lambda b: tell(b).reshape([1] * b.ndim), a, bounds, axis)
            assert_same(got, want)


FUNCTIONS = {
    "identity": lambda x: x,
    "sum": lambda x: x.sum() if x.dtype.kind in "?iufc" else x,
    "dot": lambda x: np.ravel(x) @ np.ravel(x) if x.dtype.kind in "iufc" else x,
    "square": lambda x: x * x if x.dtype.kind in "iufc" else x,
    "reverse": lambda x: x[..., ::-1] if np.ndim(x) else x,
    "branch": lambda x: x if np.size(x) and np.ravel(x).tolist()[0] else 0,
    "pair": lambda x: (np.size(x), x),
}


@examples(150)
@given(
    data=st.data(),
    array=arrays(),
    name=st.sampled_from(sorted(FUNCTIONS)),
    options=st.sampled_from([*OPTIONS, {"workers": 3, "isolate": True}, {"executor": "threads", "workers": 3}]),
)
def test_bits_of_the_loop(data, array, name, options):
    axis = data.draw(axes(array.ndim))
    func = FUNCTIONS[name]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            want = loop(func, array, axis=axis)
    except ValueError:  # ragged results
        with pytest.raises(ValueError, match="stacked"), np.errstate(all="ignore"):
            parallel_apply(func, array, axis=axis, **options)
        return
    if isinstance(want, np.ndarray) and name == "pair":  # nothing to map
        want = np.zeros(want.shape)
    with np.errstate(all="ignore"):
        assert_same(parallel_apply(func, array, axis=axis, **options), want)


@examples(60)
@given(
    array=arrays(dtypes=("f8", ">f4", "i4"), max_side=12),
    data=st.data(),
    options=st.sampled_from(OPTIONS),
)
def test_bits_of_the_block_loop(array, data, options):
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    n = array.shape[axis]
    chunk = data.draw(st.integers(1, max(1, n)))
    bounds = [(lo, min(lo + chunk, n)) for lo in range(0, n, chunk)] or [(0, 0)]
    if len(bounds) > 1 and chunk > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], n)]

    def center(block):
        return block - (block.sum() if block.size else 0)

    # It depends on its block, which the default check may find.
    got = parallel_apply(center, array, axis=axis, vectorized=True, chunk=chunk, verify=False, **options)
    assert_same(got, blocks(center, array, bounds, axis))


@pytest.fixture(params=[1, 2])
def blas(request):
    """The caller's BLAS runs one thread, or two."""
    with threadpoolctl.threadpool_limits(request.param):
        yield request.param


@pytest.fixture(params=["isolated", "eager", "threads", "one", "process_executor", "dask"])
def way(request):
    if request.param == "eager":
        request.getfixturevalue("eager")
        return {"workers": 2}
    if request.param == "process_executor":
        return {"executor": request.getfixturevalue("process_executor")}
    if request.param == "dask":
        return {"executor": request.getfixturevalue("dask_client")}
    return {"isolated": {"isolate": True}, "threads": {"executor": "threads"}, "one": {"workers": 1}}[request.param]


W = rng.standard_normal((301, 301))


@pytest.mark.pairs
@pytest.mark.parametrize(
    "func",
    [
        lambda v: v @ W[: v.size, : v.size],
        lambda v: v @ v,
        lambda v: np.einsum("i,i->", v, v),
        lambda v: np.einsum("i,ij->j", v, W[: v.size, : v.size]),
        np.sum,
        np.mean,
        np.var,
        np.cumsum,
        lambda v: np.add.reduce(v[::-1]),
    ],
)
@pytest.mark.parametrize("make", ["F", ">f8", "unaligned", "stepped", "f4 F", "C"])
def test_arithmetic_on_awkward_rows(way, blas, func, make):
    dtype = ">f8" if make == ">f8" else "f4" if make == "f4 F" else "f8"
    a = make_array((23, 301), dtype, {"f4 F": "F", ">f8": "C"}.get(make, make))
    assert_same(parallel_apply(func, a, **way), loop(func, a))


def test_blas_with_many_threads(way, blas):
    stack = rng.standard_normal((6, 200, 200))
    assert_same(
        parallel_apply(lambda m: np.linalg.solve(m, m[0]), stack, **way),
        loop(lambda m: np.linalg.solve(m, m[0]), stack),
    )
    long = rng.standard_normal((9, 20_001))
    assert_same(parallel_apply(lambda v: v @ v, long, **way), loop(lambda v: v @ v, long))
    assert threadpoolctl.ThreadpoolController().lib_controllers[0].num_threads == blas


def test_arguments_keep_their_layout(way):
    """Arrays in a closure or in `args` keep their layout, contiguous or not."""
    w = make_array((40, 60), "f8", "F")[::2, ::3]
    unaligned = make_array((50,), "f8", "unaligned")

    def f(x, w, u):
        return describe(w), describe(u), (w @ w.T)[0, 1], u @ u

    a = np.arange(5.0)
    got = parallel_apply(f, a, args=(w, unaligned), **way)
    assert_same(got, loop(f, a, args=(w, unaligned)))


def test_signalling_nan_keeps_its_bits(way):
    a = np.array([0x7FA00001, 0xFFC00123, 0x80000000, 1], dtype="u4").view("f4")
    assert_same(parallel_apply(lambda x: x, a, **way), a)
    assert_same(parallel_apply(lambda x: x, a.reshape(4, 1), **way), a.reshape(4, 1))


def test_complex_scalars_are_not_the_array_loop(way):
    z = rng.standard_normal(500) + 1j * rng.standard_normal(500)
    assert_same(parallel_apply(lambda x: x * x * x, z, **way), loop(lambda x: x * x * x, z))


def test_filters_on_images(way):
    images = rng.standard_normal((6, 40, 50)).astype("f4")
    for func in (lambda x: scipy.ndimage.gaussian_filter(x, 2), lambda x: scipy.ndimage.median_filter(x, 3)):
        assert_same(parallel_apply(func, images, **way), loop(func, images))
