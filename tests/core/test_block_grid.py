"""Blocks along several axes, compared with a plain loop over boxes of the padded array."""

from __future__ import annotations

import itertools
import math
import re
import warnings

import numpy as np
import pytest
import scipy.ndimage
import zarr
from hypothesis import given
from hypothesis import strategies as st

import parwise
from parwise import GapWarning, NotReproducibleError, parallel_apply

from ..conftest import made
from ..support.examples import examples
from ..support.functions import describe
from ..support.oracle import assert_same
from ..support.strategies import arrays, make_array

# Functions that show their blocks depend on them, and a slow call is told so.
pytestmark = pytest.mark.filterwarnings("ignore:the function:parwise.ReproducibilityWarning")

rng = np.random.default_rng(5)
IMAGE = rng.standard_normal((61, 47))
PAD = {"reflect": "reflect", "symmetric": "symmetric", "nearest": "edge", "wrap": "wrap", "constant": "constant"}
WAYS = [{"workers": 1}, {"workers": 2, "isolate": True}, {"executor": "threads", "workers": 2}]
BOXES = {"axis": (0, 1), "vectorized": True, "chunk": (20, 16)}


def cuts(n, chunk):
    """Start and stop of blocks along one axis; a remainder of one joins the block before it."""
    bounds = [(lo, min(lo + chunk, n)) for lo in range(0, n, chunk)]
    if len(bounds) > 1 and chunk > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], n)]
    return bounds


def loop_over_boxes(func, a, axes, chunks, depths, boundaries):
    """Results of the plain loop over boxes, put into one array; axes are padded one after another."""
    axes = [axis % a.ndim for axis in axes]
    padded, shifts = a, []
    for axis, depth, boundary in zip(axes, depths, boundaries, strict=True):
        kind, value = boundary if isinstance(boundary, tuple) else (boundary, 0)
        shifts.append(depth if kind else 0)
        if kind and depth:
            more = {"constant_values": value} if kind == "constant" else {}
            width = [(depth, depth) if k == axis else (0, 0) for k in range(a.ndim)]
            padded = np.pad(padded, width, PAD[kind], **more)
    result = None
    for box in itertools.product(*(cuts(a.shape[axis], n) for axis, n in zip(axes, chunks, strict=True))):
        seen, kept, place = [slice(None)] * a.ndim, [slice(None)] * a.ndim, [slice(None)] * a.ndim
        for axis, (lo, hi), depth, shift in zip(axes, box, depths, shifts, strict=True):
            first, last = max(0, lo - depth + shift), min(padded.shape[axis], hi + depth + shift)
            seen[axis], place[axis] = slice(first, last), slice(lo, hi)
            kept[axis] = slice(lo + shift - first, hi + shift - first)
        block = func(padded[tuple(seen)])[tuple(kept)]
        result = np.empty(a.shape, block.dtype) if result is None else result
        result[tuple(place)] = block
    return result


@pytest.mark.filterwarnings("ignore:the function('s results depend| looks further)")  # where a call takes long: sums
@examples(150)
@given(
    a=arrays(dtypes=("f8", ">f4", "i4", "c8"), max_side=8).filter(lambda a: a.ndim > 1 and a.size),
    data=st.data(),
    way=st.sampled_from(WAYS),
)
def test_blocks_with_neighbours(a, data, way):
    axes = data.draw(st.permutations(range(a.ndim)))[: data.draw(st.integers(2, a.ndim))]
    if data.draw(st.booleans()):
        axes = [axis - a.ndim for axis in axes]
    chunks = [data.draw(st.integers(1, a.shape[axis])) for axis in axes]
    depths = [data.draw(st.integers(0, 10)) for _ in axes]
    kinds = st.sampled_from([None, *PAD]) | st.tuples(st.just("constant"), st.integers(-3, 3))
    boundaries = [data.draw(kinds) for _ in axes]

    def func(block):
        return np.cumsum(np.cumsum(block, axis=axes[0]), axis=axes[1])

    got = parallel_apply(
        func, a, axis=tuple(axes), vectorized=True, chunk=tuple(chunks), depth=dict(zip(axes, depths, strict=True)),
        boundary=dict(zip(axes, boundaries, strict=True)), **way,
    )  # fmt: skip
    assert_same(got, loop_over_boxes(func, a, axes, chunks, depths, boundaries))


@pytest.mark.parametrize("layout", ["C", "F", "stepped", "negative", "readonly"])
@pytest.mark.parametrize("boundary", [None, ("reflect", None), "wrap"])
def test_function_cannot_tell_where_it_runs(layout, boundary):
    a = make_array((23, 14), "f8", layout)

    def tell(block):
        return np.broadcast_to(np.array(describe(block).partition(", [")[0]), block.shape)

    how = {"axis": (0, 1), "vectorized": True, "chunk": (9, 5), "depth": (2, 1), "boundary": boundary}
    first, *others = [parallel_apply(tell, a, **how, **way) for way in WAYS]
    for one in others:
        assert_same(one, first)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("boundary", [None, ("reflect", None), "wrap"])
def test_blocks_have_the_alignment_of_slices(boundary, way):
    """Loops for vectors begin where an address is a multiple of 16 to 64, and round otherwise before it."""
    a = rng.standard_normal((23, 14))
    low = lambda b: np.full(b.shape, b.__array_interface__["data"][0] % 64)  # noqa: E731
    kinds = boundary if isinstance(boundary, tuple) else (boundary, boundary)
    width = [(2, 2) if kind else (0, 0) for kind in kinds]
    padded = a if boundary is None else np.pad(a, width)
    want = np.empty(a.shape, np.int64)
    for block in parwise.plan(a, axis=(0, 1), chunk=(9, 5), depth=2, boundary=boundary):
        first = [at + before for at, (before, _) in zip(block.first, width, strict=True)]
        offset = sum(at * step for at, step in zip(first, padded.strides, strict=True))
        start = 0 if boundary else a.__array_interface__["data"][0]
        want[tuple(map(slice, block.start, block.stop))] = (start + offset) % 64
    how = {"axis": (0, 1), "vectorized": True, "chunk": (9, 5), "depth": 2, "boundary": boundary}
    assert_same(parallel_apply(low, a, **how, **way), want)


def test_processes_of_others_write_no_part_of_a_chunk(tmp_path, executor_of):
    """Blocks of one column each, which have as many elements as the rows that are chunks of `out`."""
    made.append("zarr")
    source, out = (
        zarr.open_array(tmp_path / name, mode="w", shape=(8, 8), chunks=(1, 8), dtype="f8") for name in ("in", "out")
    )
    a = np.arange(64.0).reshape(8, 8)
    source[...] = a
    how = {"axis": (0, 1), "vectorized": True, "chunk": (8, 1), "out": out}
    parallel_apply(np.negative, source, **how, **executor_of("process pool"))
    assert_same(out[...], -a)


def test_executors_agree(runner):
    blur = lambda b: scipy.ndimage.gaussian_filter(b, 1.5, mode=["mirror", "wrap"])  # noqa: E731
    got = parallel_apply(blur, IMAGE, **BOXES, depth=6, boundary=("reflect", "periodic"), **runner)
    assert_same(got, blur(IMAGE))
    pair = parallel_apply(lambda a, b: (a + b, a > b), IMAGE, IMAGE[::-1], **BOXES, depth={1: 3}, **runner)
    assert_same(pair, (IMAGE + IMAGE[::-1], IMAGE[::-1] < IMAGE))


@pytest.mark.parametrize("way", WAYS)
def test_blocks_do_not_depend_on_workers(way):
    shapes = lambda b: np.full(b.shape, b.shape[0] * 100 + b.shape[1])  # noqa: E731
    want = np.empty(IMAGE.shape, int)
    for block in parwise.plan(IMAGE, axis=(0, 1), chunk=(20, 16), depth=2):
        index = tuple(map(slice, block.start, block.stop))
        rows, columns = (last - first for first, last in zip(block.first, block.last, strict=True))
        want[index] = rows * 100 + columns
    assert_same(parallel_apply(shapes, IMAGE, **BOXES, depth=2, **way), want)


def test_plan_takes_no_function():
    for one in ((), (np.sum, IMAGE)):
        with pytest.raises(TypeError, match="plan takes the arrays alone, without the function"):
            parwise.plan(*one)


def test_plan():
    a = np.zeros((7, 5))
    assert parwise.plan(a, axis=(0, 1), chunk=(3, 2), depth=(1, 0))[3] == ((3, 2), (7, 5), (2, 2), (7, 5))
    assert len(parwise.plan(a, axis=(0, 1), chunk=(3, 2))) == 2 * 2
    assert parwise.plan(a, axis=(1, 0), chunk=(2, 3))[0].stop == (2, 3)
    assert parwise.plan(a, axis=(0, 1), chunk={1: 2})[0].stop == (7, 2)
    whole = [one.stop for one in parwise.plan(np.zeros((5000, 4000)), axis=(0, 1))]
    assert 16 < len(whole) <= 64
    assert whole[0] == (768, 576)
    assert math.prod(parwise.plan(np.broadcast_to(np.zeros(1), (9000,) * 3), axis=(0, 1, 2))[0].stop) * 8 <= 2**26
    assert parwise.plan(np.zeros((0, 5)), axis=(0, 1), depth=1, boundary="wrap") == [((0, 0), (0, 5), (0, -1), (0, 6))]


@pytest.mark.parametrize("way", WAYS)
def test_arrays_without_elements(way):
    got = parallel_apply(np.negative, np.zeros((0, 5)), axis=(0, 1), vectorized=True, depth=1, **way)
    assert_same(got, np.zeros((0, 5)))


@pytest.mark.parametrize("way", [*WAYS, "process pool"])
@pytest.mark.parametrize("boundary", [None, "reflect", ("nearest", "wrap")])
def test_files(tmp_path, way, boundary, executor_of):
    made.append("zarr")  # its threads stay
    source = zarr.open_array(tmp_path / "in", mode="w", shape=IMAGE.shape, chunks=(16, 10), dtype="f8")
    source[...] = IMAGE
    out = zarr.open_array(tmp_path / "out", mode="w", shape=IMAGE.shape, chunks=(13, 20), dtype="f8")
    blur = lambda b: scipy.ndimage.gaussian_filter(b, 1)  # noqa: E731
    how = {**BOXES, "depth": 4, "boundary": boundary, **executor_of(way)}
    want = parallel_apply(blur, IMAGE, **BOXES, depth=4, boundary=boundary, workers=1)
    assert parallel_apply(blur, source, out=out, **how) is out
    assert_same(out[...], want)
    mapped = np.memmap(tmp_path / "flat", "f8", "w+", shape=IMAGE.shape)
    parallel_apply(blur, source, out=mapped, **how)
    assert_same(np.asarray(mapped), want)
    assert_same(parallel_apply(blur, mapped, **how), parallel_apply(blur, want, **BOXES, depth=4, boundary=boundary))


@pytest.fixture
def executor_of():
    """Options of a way, which may be a pool of the standard library."""
    from concurrent.futures import ProcessPoolExecutor

    pools = []

    def options(way):
        if isinstance(way, dict):
            return way
        pools.append(ProcessPoolExecutor(2))
        return {"executor": pools[0]}

    yield options
    for pool in pools:
        pool.shutdown()


def test_results_of_other_shapes_and_dtypes():
    turned = lambda b: np.stack([b, -b], axis=-1)  # noqa: E731
    assert_same(parallel_apply(turned, IMAGE, **BOXES), turned(IMAGE))
    volume = rng.standard_normal((6, 20, 15))
    total = parallel_apply(lambda b: b.sum(axis=0), volume, axis=(-2, -1), vectorized=True, chunk=8, depth=1)
    assert_same(total, volume.sum(axis=0))
    mixed = parallel_apply(lambda b: b.astype("i2" if b[0, 0] > 1 else "f4"), np.arange(12.0).reshape(4, 3),
                           axis=(0, 1), vectorized=True, chunk=2)  # fmt: skip
    assert_same(mixed, np.arange(12, dtype="f4").reshape(4, 3))
    words = np.array([["a", "bb"], ["ccc", "dddd"]])
    got = parallel_apply(
        lambda b: b if b[0, 0] == "a" else b.astype(object), words, axis=(0, 1), vectorized=True, chunk=1
    )
    assert got.dtype == object
    assert got.tolist() == words.tolist()


@pytest.mark.parametrize("kind", ["array", "out", "zarr", "mixed"])
@pytest.mark.parametrize("way", WAYS)
def test_gaps(tmp_path, way, kind):
    made.append("zarr")

    def fails(block):
        if (block == IMAGE[21, 30]).any():
            raise ArithmeticError("no")
        return block.astype("f4") if kind == "mixed" and (block == IMAGE[0, 0]).any() else block * 2

    want = IMAGE * 2
    want[20:40, 16:32] = np.nan
    if kind == "mixed":
        want[:20, :16] = IMAGE[:20, :16].astype("f4")
    out = {"out": np.zeros(IMAGE.shape)} if kind == "out" else {}
    if kind == "zarr":
        out = {"out": zarr.open_array(tmp_path / "out", mode="w", shape=IMAGE.shape, chunks=(9, 9), dtype="f8")}
    with pytest.warns(
        RuntimeWarning, match=r"cover 320 of 2867 elements.*: \(20, 16\), .* in block 20:40, 16:32 along"
    ):
        got = parallel_apply(fails, IMAGE, **BOXES, errors="ignore", **out, **way)
    assert_same(got[...], want)


@pytest.mark.parametrize("axis", [(0, 1), (1, 0)])
def test_gaps_are_named_in_order(axis):
    """And not block by block; in time also where there are many."""

    def fails(block):
        if block.max() > 1000:
            raise ArithmeticError("no")
        return block

    a = np.zeros((600, 600))
    a[10, 10] = a[10, 500] = 2000
    with pytest.warns(GapWarning) as caught:
        got = parallel_apply(fails, a, axis=axis, vectorized=True, chunk=300, errors="ignore", workers=1)
    places = np.argwhere(np.isnan(got))
    want = sorted(map(tuple, places[:, axis].tolist()))
    assert caught[0].message.indices == want
    assert len(want) == 300 * 600


def test_errors_name_the_block():
    def fails(block):
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError) as caught:
        parallel_apply(fails, IMAGE, **BOXES)
    assert caught.value.__notes__[0] == "in block 0:20, 0:16 along axes (0, 1)"
    with pytest.raises(ValueError, match=re.escape("keep the length of axis 1: it got 16 elements along it")):
        parallel_apply(lambda b: b[:, :-1], IMAGE, **BOXES)
    with pytest.raises(ValueError, match="keep the length of axis 0.* returned an array of shape"):
        parallel_apply(lambda b: b[0], IMAGE, **BOXES)


def test_random_numbers():
    noisy = lambda b, rng: b + rng.normal()  # noqa: E731
    children = np.random.default_rng(3).spawn(9)
    want = np.empty((7, 8))
    blocks = itertools.product([(0, 2), (2, 4), (4, 7)], [(0, 3), (3, 6), (6, 8)])  # of several sizes
    for number, ((i, k), (j, m)) in enumerate(blocks):
        want[i:k, j:m] = children[number].normal()
    for way in WAYS:
        got = parallel_apply(noisy, np.zeros((7, 8)), axis=(0, 1), vectorized=True, chunk=(2, 3), rng=3, **way)
        assert_same(got, want)


@pytest.mark.parametrize("depth", [(8, 7), (5, 8), {1: 8}])
def test_verify_names_the_depth_that_would_do(depth):
    image = rng.standard_normal((200, 180))
    blur = lambda b: scipy.ndimage.gaussian_filter(b, 2)  # noqa: E731
    how = {"axis": (0, 1), "vectorized": True, "chunk": 60, "workers": 1}
    for verify in (True, "full"):
        assert_same(parallel_apply(blur, image, depth=8, verify=verify, **how), blur(image))
    with pytest.raises(NotReproducibleError, match=f"along axis {0 if depth != (8, 7) else 1}") as caught:
        parallel_apply(blur, image, depth=depth, verify=True, **how)
    assert (caught.value.kind, caught.value.depth) == ("halo", 8)


def test_verify_finds_what_depends_on_blocks():
    with pytest.raises(NotReproducibleError) as caught:
        parallel_apply(lambda b: b - b.mean(), IMAGE, **BOXES, workers=1, verify=True)
    assert caught.value.kind in ("block", "halo")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"depth": (1, 2, 3)},
            ValueError,
            r"depth=\(1, 2, 3\) has 3 value\(s\), but what is mapped over is axes \(0, 1\)",
        ),
        ({"chunk": {2: 5}}, ValueError, r"chunk=\{2: 5\} has a value for 2, but what is mapped over is axes \(0, 1\)"),
        ({"chunk": (20, 48)}, ValueError, "chunk=48 is longer than the mapped axis 1, which has 47"),
        ({"depth": [1, 2]}, TypeError, r"depth must be one value .*, got \[1, 2\]; write depth=\(1, 2\)"),
        (
            {"chunk": [20, 16]},
            TypeError,
            r"chunk must be one value for .* or a dict by axis.* write chunk=\(20",
        ),
        ({"depth": (1, -1)}, ValueError, "depth must not be negative, got -1"),
        ({"boundary": ("wrap", "edge"), "depth": 1}, ValueError, "boundary must be None, one of"),
        (
            {"boundary": {0: ("constant", "x")}, "depth": 1},
            TypeError,
            "the constant 'x' beyond the array cannot be stored",
        ),
    ],
)
def test_bad_input(options, error, text):
    def never(block):
        raise AssertionError("func was called")

    with pytest.raises(error, match=text):
        parallel_apply(never, IMAGE, **{**BOXES, **options})


def test_element_functions_have_no_neighbours():
    for depth in ({0: 1}, {1: 2}, (1, 2), (0, 2), 3):
        with pytest.raises(ValueError, match=r"depth=[123] is for block functions, as a single element has no"):
            parallel_apply(np.sum, IMAGE, axis=(0, 1), depth=depth)
    for depth in ({0: 0}, (0, 0), 0):
        assert_same(parallel_apply(np.sum, IMAGE, axis=(0, 1), depth=depth), IMAGE)


def test_resume_is_refused(tmp_path):
    out = np.memmap(tmp_path / "out", "f8", "w+", shape=IMAGE.shape)
    with pytest.raises(ValueError, match=r"resume is not for blocks along several axes, got axis=\(0, 1\)"):
        parallel_apply(np.negative, IMAGE, **BOXES, out=out, resume=str(tmp_path / "journal"))


def test_one_axis_takes_tuples_and_dicts():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        want = parallel_apply(np.negative, IMAGE, axis=1, vectorized=True, chunk=7, depth=2, boundary="wrap")
        for how in ({"chunk": (7,), "depth": (2,), "boundary": ("wrap",)}, {"chunk": {1: 7}, "depth": {1: 2}}):
            assert_same(parallel_apply(np.negative, IMAGE, axis=1, vectorized=True, **how), want)
