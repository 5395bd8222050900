"""Blocks, boxes of a grid, axes of the result, and the memory layout of copies."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parwise._core.indexing import block_bounds, block_length, boxes
from parwise._core.layout import Layout, element_layout, offsets_for

from ..support.internals import result_axes


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_boxes_cover_a_range_in_order(shape, data):
    grid = np.arange(np.prod(shape)).reshape(shape)
    lo = data.draw(st.integers(0, grid.size))
    hi = data.draw(st.integers(lo, grid.size))
    parts = [(grid[index].ravel(), count) for index, count in boxes(lo, hi, tuple(shape)) if hi > lo]
    assert all(len(part) == count for part, count in parts)
    assert [k for part, _ in parts for k in part] == list(range(lo, hi))
    assert len(parts) <= 2 * len(shape) - 1


@given(st.integers(0, 300), st.integers(1, 40))
def test_block_bounds(count, length):
    bounds = block_bounds(count, length)
    assert [k for lo, hi in bounds for k in range(lo, hi)] == list(range(count))
    sizes = [hi - lo for lo, hi in bounds]
    if length > 1 and len(bounds) > 1:
        assert min(sizes) > 1
    assert max(sizes) <= length + 1


@given(st.integers(0, 10**7), st.integers(0, 10**9))
def test_block_length_depends_on_the_array_alone(count, row_bytes):
    length = block_length(count, row_bytes)
    assert length % 192 == 0 or (length >= 2 and 192 * row_bytes > 64 * 2**20)


def test_result_places():
    assert result_axes((0,), 1) == (0,)
    assert result_axes((2,), 2) == (1,)
    assert result_axes((-1,), 3) == (2,)
    assert result_axes((-3,), 1) == (0,)
    assert result_axes((2, 1), 2) == (1, 0)
    assert result_axes((-2, -1), 4) == (2, 3)
    assert result_axes((-4, -1), 2) == (0, 1)


def test_fortran_rows_are_copied_in_long_runs():
    """The mapped axis stays inside: a transposing copy is several times slower."""
    like = Layout("ndarray", np.dtype("f8"), True, (300,), (8 * 1000,))
    layout = element_layout(like, 8, 50)
    assert layout.strides[0] == 8
    assert layout.strides[1] >= 8 * 50
    single = element_layout(like, 8, 1)
    assert single.strides[1] != 8
    assert offsets_for([layout], [123 * 8])[0][0] % 4096 == 123 * 8
