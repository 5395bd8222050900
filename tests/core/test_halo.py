"""Blocks with a halo, compared with slices of the padded array and, where it holds, with the whole image."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

import parwise
from parwise import NotReproducibleError, parallel_apply

from ..support.block_functions import WITH_HALO
from ..support.block_functions_without_halo import WITHOUT_HALO
from ..support.examples import examples
from ..support.functions import describe
from ..support.oracle import assert_same
from ..support.strategies import arrays, make_array

rng = np.random.default_rng(4)
IMAGE = rng.standard_normal((131, 40))
PAD = {"reflect": "reflect", "symmetric": "symmetric", "nearest": "edge", "wrap": "wrap", "constant": "constant"}
WAYS = [{"workers": 1}, {"workers": 2, "isolate": True}, {"executor": "threads", "workers": 2}]


def padded(a, axis, depth, boundary, value):
    pad = [(0, 0)] * a.ndim
    pad[axis] = (depth, depth)
    more = {"constant_values": value} if boundary == "constant" else {}
    return np.pad(a, pad, PAD[boundary], **more)


def loop_over_blocks(func, a, axis, chunk, depth, boundary, value=0):
    """Concatenate the results of the plain loop over blocks of the array, padded unless `boundary` is None."""
    axis %= a.ndim
    along = (slice(None),) * axis
    n = a.shape[axis]
    bounds = [(lo, min(lo + chunk, n)) for lo in range(0, n, chunk)]
    if len(bounds) > 1 and chunk > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], n)]
    parts = []
    for lo, hi in bounds:
        first, last = (max(0, lo - depth), min(n, hi + depth)) if boundary is None else (lo - depth, hi + depth)
        if boundary is None:
            block = a[(*along, slice(first, last))]
        else:
            block = padded(a, axis, depth, boundary, value)[(*along, slice(lo, hi + 2 * depth))]
        parts.append(func(block)[(*along, slice(lo - first, hi - first))])
    return np.concatenate(parts, axis=axis)


@pytest.mark.filterwarnings("ignore:the function('s results depend| looks further)")  # where a call takes long: sums
@examples(150)
@given(
    a=arrays(dtypes=("f8", ">f4", "i4", "c8"), max_side=9),
    data=st.data(),
    boundary=st.sampled_from([None, *PAD]),
    depth=st.integers(0, 12),
    way=st.sampled_from(WAYS),
)
def test_blocks_with_neighbours(a, data, boundary, depth, way):
    axis = data.draw(st.integers(-a.ndim, a.ndim - 1))
    n = a.shape[axis]
    chunk = data.draw(st.integers(1, max(1, n)))
    given_boundary, value = boundary, 0
    if boundary == "constant":
        value = data.draw(st.integers(-3, 3))
        given_boundary = ("constant", value) if value else boundary

    def func(block):
        return np.cumsum(block, axis=axis)

    got = parallel_apply(func, a, axis=axis, vectorized=True, chunk=chunk, depth=depth, boundary=given_boundary, **way)
    if n == 0:
        assert got.shape == a.shape
        return
    if depth == 0:
        boundary = None
    assert_same(got, loop_over_blocks(func, a, axis, chunk, depth, boundary, value))


@pytest.mark.filterwarnings("ignore:the function's results depend")  # its blocks' shapes are in them
@pytest.mark.parametrize("boundary", [None, *PAD])
@pytest.mark.parametrize("layout", ["C", "F", "stepped", "negative", "readonly"])
def test_function_cannot_tell_where_it_runs(layout, boundary):
    a = make_array((23, 7), "f8", layout)

    def tell(block):
        return np.broadcast_to(np.array(describe(block).partition(", [")[0]), (len(block),))

    for axis in (0, 1):
        got = [
            parallel_apply(
                lambda b, axis=axis: np.expand_dims(np.broadcast_to(tell(b)[0], b.shape[axis]), 1 - axis),
                a,
                axis=axis,
                vectorized=True,
                chunk=3,
                depth=2,
                boundary=boundary,
                **way,
            )
            for way in WAYS
        ]
        for one in got[1:]:
            assert_same(one, got[0])


def test_executors_agree(runner):
    blur = lambda b: scipy.ndimage.gaussian_filter(b, 2)  # noqa: E731
    got = parallel_apply(blur, IMAGE, vectorized=True, chunk=13, depth=8, **runner)
    assert_same(got, blur(IMAGE))
    pair = parallel_apply(
        lambda a, b: (a + b, np.roll(b, 1, axis=0)), IMAGE, IMAGE[::-1], vectorized=True, chunk=7, depth=3, **runner
    )
    assert isinstance(pair, tuple)
    assert_same(pair[0], IMAGE + IMAGE[::-1])
    assert_same(pair[1][1:], IMAGE[::-1][:-1])


@pytest.mark.parametrize("depth", [1, 4, 40])
def test_a_file_is_read_once(depth):
    class File:
        """A data set on disk that takes slices only."""

        def __init__(self, data):
            self._data, self.shape, self.dtype, self.reads = data, data.shape, data.dtype, []

        def __getitem__(self, index):
            assert all(isinstance(one, slice) for one in index)
            self.reads.append(index)
            return self._data[index].copy()

    for boundary in [None, *PAD]:
        file = File(IMAGE[:20])
        got = parallel_apply(
            np.negative, file, vectorized=True, chunk=5, depth=depth, boundary=boundary, executor="serial"
        )
        assert_same(got, -IMAGE[:20])
        if boundary in (None, "constant"):
            assert len(file.reads) == 1


def test_objects_strings_and_records_have_neighbours():
    words = np.array(["a", "bb", "ccc", "dddd", "e"])
    joined = lambda b: np.array([f"{x}|{y}" for x, y in zip(b, [*b[1:], ""], strict=True)], object)  # noqa: E731
    for a in (words, words.astype(object)):
        got = parallel_apply(joined, a, vectorized=True, chunk=2, depth=1, workers=2, isolate=True)
        assert got.tolist() == ["a|bb", "bb|ccc", "ccc|dddd", "dddd|e", "e|"]


@pytest.mark.parametrize("case", WITH_HALO, ids=lambda case: case.name)
def test_filters_give_the_bits_of_the_whole_image(case):
    """Blocks have the bits of one call over the whole image, for each function that allows it."""
    depth = max(case.depth, case.rows - 1)
    for dtype in case.dtypes:
        for order in "CF":
            image = np.asarray(IMAGE, dtype=dtype, order=order)
            for chunk in (7, 64):
                got = parallel_apply(case.f, image, vectorized=True, chunk=chunk, depth=depth, workers=1)
                assert_same(got, case.f(image))


@pytest.mark.parametrize("mode", ["reflect", "nearest", "mirror", "wrap", "constant"])
def test_boundary_in_the_words_of_ndimage(mode):
    word = {"reflect": "symmetric", "mirror": "reflect"}.get(mode, mode)
    blur = lambda b: scipy.ndimage.gaussian_filter(b, 1.5, mode=mode)  # noqa: E731
    for image in (IMAGE, IMAGE[:3]):
        got = parallel_apply(blur, image, vectorized=True, chunk=2, depth=6, boundary=word, workers=1)
        assert_same(got, blur(image))


def test_plan_shows_the_blocks():
    a = np.zeros((1000, 50))
    blocks = parwise.plan(a, chunk=300, depth=10)
    assert blocks == [(0, 300, 0, 310), (300, 600, 290, 610), (600, 900, 590, 910), (900, 1000, 890, 1000)]
    assert blocks[1].first == 290
    assert parwise.plan(a, chunk=300, depth=10, boundary="wrap")[0] == (0, 300, -10, 310)
    assert parwise.plan(a, chunk=333)[-1] == (666, 1000, 666, 1000)  # no block of one row
    assert {block.start % 192 for block in parwise.plan(np.zeros((100_000, 3)))} == {0}
    deep = parwise.plan(np.zeros((100_000, 3)), depth=1000)
    assert deep[0].stop >= 8000  # not more than a fifth is computed twice
    assert parwise.plan(a, axis=1, chunk=25) == [(0, 25, 0, 25), (25, 50, 25, 50)]
    with pytest.raises(ValueError, match="axis 2 is out of bounds"):
        parwise.plan(a, axis=2)


def test_blocks_do_not_depend_on_workers():
    lengths = lambda b: np.full(len(b), len(b))  # noqa: E731
    how = {"vectorized": True, "chunk": 9, "depth": 2, "verify": False}  # which would find that it depends on blocks
    want = parallel_apply(lengths, IMAGE, workers=1, **how)
    for way in [*WAYS, {"workers": 3, "isolate": True}]:
        assert_same(parallel_apply(lengths, IMAGE, **how, **way), want)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"boundary": "edge"}, ValueError, "boundary must be None, one of 'reflect'.*'nearest' is what you mean"),
        ({"boundary": "mirror"}, ValueError, "got 'mirror'; boundary='reflect' is what you mean"),
        ({"boundary": 5}, ValueError, r"\('constant', value\), got 5"),
        ({"boundary": ("constant", [1, 2])}, ValueError, r"must be a scalar, got one of shape \(2,\)"),
        ({"boundary": ("constant", "x")}, TypeError, "the constant 'x' beyond the array cannot be stored in array 0"),
        ({"boundary": ("wrap", 1)}, ValueError, "boundary must be None"),
        ({"depth": 1.5}, TypeError, "depth must be an int, got 1.5"),
    ],
)
def test_bad_input(options, error, text):
    def never(block):
        raise AssertionError("func was called")

    with pytest.raises(error, match=text):
        parallel_apply(never, IMAGE, vectorized=True, **{"depth": 2} | options)


def test_constant_that_does_not_fit_is_refused():
    counts = np.arange(6)
    for value in (2.5, np.nan, 2**70):
        with pytest.raises(TypeError, match="cannot be stored in array 0 of dtype int64"):
            parallel_apply(np.negative, counts, vectorized=True, depth=1, boundary=("constant", value))


@pytest.mark.parametrize("way", WAYS)
def test_function_must_keep_the_length(way):
    with pytest.raises(
        ValueError, match=re.escape("it got 9 elements along it and returned an array of shape (8, 40)")
    ):
        parallel_apply(lambda b: np.diff(b, axis=0), IMAGE, vectorized=True, chunk=7, depth=2, **way)


@pytest.mark.parametrize("case", [case for case in WITHOUT_HALO if case.sure], ids=lambda case: case.name)
def test_verify_flags_what_depends_on_blocks(case):
    image = rng.standard_normal((400, 40)).astype(case.dtypes[-1])
    try:
        parallel_apply(case.f, image, vectorized=True, chunk=50, workers=1)
    except ValueError:  # it gives no rows at all
        return
    with pytest.raises(NotReproducibleError) as caught:
        parallel_apply(case.f, image, vectorized=True, chunk=50, workers=1, verify=True)
    assert caught.value.kind in ("block", "halo")


# Wrong only in blocks shorter than those of the plan, or for few values: a sample is no proof.
MISSED = {"np.gradient(axis=0, edge_order=2)", "lfilter, FIR of 21 taps", "savgol_filter, 7", "binary_hit_or_miss"}


@pytest.mark.parametrize("case", WITH_HALO, ids=lambda case: case.name)
def test_verify_knows_the_halo(case):
    """`verify` passes the right halo, and names it where the halo given is one too short."""
    image = rng.standard_normal((400, 40)).astype(case.dtypes[-1])
    options = {"vectorized": True, "chunk": 50, "workers": 1, "verify": True}
    assert_same(parallel_apply(case.f, image, depth=case.depth, **options), case.f(image))
    if not case.depth or case.name in MISSED:
        return
    with pytest.raises(NotReproducibleError) as caught:
        parallel_apply(case.f, image, depth=case.depth - 1, **options)
    assert (caught.value.kind, caught.value.depth) == ("halo", case.depth)


def test_none_is_a_constant_of_objects():
    seen = []
    words = np.array(["a", "b"], object)
    how = {"vectorized": True, "chunk": 1, "depth": 1, "workers": 1}
    parallel_apply(lambda b: (seen.append(b.tolist()), b)[1], words, boundary=("constant", None), **how)
    assert seen == [[None, "a", "b"], ["a", "b", None]]
    with pytest.raises(TypeError, match="constant None beyond the array cannot be stored in array 0 of dtype float64"):
        parallel_apply(np.negative, np.zeros(3), boundary=("constant", None), **how)
