"""Copies that lie in memory as their array does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parwise import parallel_apply
from parwise._core.layout import Layout, ReusableMemory, block_layout, element_layout

from ..support.oracle import assert_same
from ..support.strategies import arrays


@st.composite
def views(draw):
    """Views of arrays of strings: transposed, in steps, reversed, broadcast, diagonals."""
    shape = draw(st.lists(st.integers(1, 5), max_size=4))
    view = np.array([str(k) * (k % 30) for k in range(int(np.prod(shape)))], "T")
    view = view.reshape(shape)
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["transposed", "sliced", "broadcast", "diagonal"]))
        if kind == "transposed":
            view = view.transpose(draw(st.permutations(range(view.ndim))))
        elif kind == "sliced":
            view = view[(*(slice(None, None, draw(st.sampled_from([-3, -1, 1, 2]))) for _ in view.shape), ...)]
        elif kind == "broadcast":
            wide = np.broadcast_to(view, (draw(st.integers(1, 3)), *view.shape))
            view = np.moveaxis(wide, 0, draw(st.integers(0, view.ndim)))
        elif view.ndim > 1:
            view = view.diagonal()
    return view


def nesting(array):
    """Axes from the shortest stride on, which of them are reversed, and which continue the one before without a gap."""
    strides, shape = array.strides, array.shape
    live = [d for d in range(array.ndim) if shape[d] > 1 and strides[d]]
    live.sort(key=lambda d: (abs(strides[d]), -d))
    starts = [array.itemsize, *(abs(strides[d]) * shape[d] for d in live[:-1])]
    continued = [abs(strides[d]) == start for d, start in zip(live, starts[: len(live)], strict=True)]
    flags = array.flags.c_contiguous, array.flags.f_contiguous
    return live, np.sign([strides[d] for d in live]).tolist(), continued, flags


@given(views())
def test_copies_of_strings(view):
    like = Layout("ndarray", view.dtype, True, view.shape, view.strides)
    copy = block_layout(like).empty()
    copy[...] = view
    assert_same(copy, view)
    assert nesting(copy) == nesting(view)
    assert copy.flags.writeable


@given(views().filter(lambda view: view.ndim), st.integers(0, 3))
def test_elements_of_strings(view, more):
    like = Layout("ndarray", view.dtype, True, view.shape[1:], view.strides[1:])
    copy = element_layout(like, view.strides[0], len(view) + more).empty(len(view))
    copy[...] = view
    assert_same(copy, view)
    assert nesting(copy[0, ...]) == nesting(view[0, ...])


@pytest.mark.parametrize("missing", [{}, {"na_object": None}, {"na_object": float("nan")}, {"coerce": False}])
def test_results_and_gaps_of_strings(missing, runner):
    dtype = np.dtypes.StringDType(**missing)
    words = np.array(["a", "b" * 90, "", "é"] * 6, dtype).reshape(8, 3)
    if "na_object" in missing:
        words[1, 1] = missing["na_object"]
    for axis in (0, 1):
        got = parallel_apply(lambda v: v[::-1], words, axis=axis, **runner)
        assert_same(got, np.flip(words, 1 - axis))
    out = np.empty_like(words)
    assert parallel_apply(lambda b: b[:, ::-1], words, vectorized=True, chunk=2, out=out, **runner) is out
    assert_same(out, words[:, ::-1])
    assert_same(parallel_apply(lambda v: v[::-1], out, out=out, **runner), words)

    def func(v):
        if v[2] == "é":
            raise ValueError(v)
        return v

    with pytest.warns(RuntimeWarning, match="of 8"):
        got = parallel_apply(func, words, errors="ignore", **runner)
    gaps = words[:, 2] == "é"
    want = words.astype(object)
    want[gaps] = None
    assert_same(got, want)


@pytest.mark.parametrize("boundary", [None, "reflect", "nearest", "wrap"])
def test_neighbours_of_strings(boundary, runner):
    words = np.array(["a", "b" * 90, "", "é"] * 6, "T").reshape(12, 2)[::-1]
    options = {"vectorized": True, "chunk": 5, "depth": 1, "boundary": boundary, **runner}
    assert_same(parallel_apply(lambda b: np.strings.upper(b), words, **options), np.strings.upper(words))


def of(view):
    return Layout("ndarray", view.dtype, True, view.shape, view.strides)


@given(st.one_of(views(), arrays()))
def test_layouts_whose_elements_share_memory(view):
    places = np.zeros(1, np.int64)
    for stride, size in zip(view.strides, view.shape, strict=True):
        places = np.add.outer(places, stride * np.arange(size if stride else min(size, 1)))
    bytes_of = np.add.outer(places.ravel(), np.arange(view.itemsize))
    assert of(view).overlaps or len(np.unique(bytes_of)) == bytes_of.size


def test_layouts_whose_elements_do_not_share_memory():
    a = np.zeros((4, 5, 6))
    for view in (a, a.T, a[::-1, ::2], a[:, :0], a[0, 0, 0], np.asfortranarray(a), a.diagonal(), a.view("f8,f8")["f1"]):
        assert not of(view).overlaps
    assert not of(np.broadcast_to(a, (3, 4, 5, 6))).overlaps
    assert of(np.lib.stride_tricks.sliding_window_view(a, 2, axis=1)).overlaps


def test_memory_is_used_again_once_nobody_has_it():
    memory = ReusableMemory()

    def place(array):
        return array.__array_interface__["data"][0]

    kept = memory.allocate(4, np.dtype("f8"), (100_000,))[1:2].reshape(-1)[5:]
    other = memory.allocate(4, np.dtype("f8"), (100_000,))
    assert not np.shares_memory(kept, other)
    where = place(other)
    assert where % 4096 == 0
    del other
    for count, dtype in (3, "f8"), (4, "f4"):
        assert place(memory.allocate(count, np.dtype(dtype), (100_000,))) == where
