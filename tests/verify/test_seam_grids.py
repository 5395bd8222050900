"""Along several axes one border of each axis that is cut is tried, and the depth that would do is told for each."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, median_filter, uniform_filter1d
from scipy.signal import fftconvolve

import parwise.xarray  # noqa: F401
from parwise import ReproducibilityWarning, parallel_apply
from parwise._verify import border, seam
from parwise._verify.block_bands import calls_along_axes
from parwise._verify.border import Border

from ..support.examples import examples
from ..support.oracle import assert_same

rng = np.random.default_rng(4)
A = rng.standard_normal((130, 150))
GRID = {"axis": (0, 1), "vectorized": True, "chunk": (40, 50), "workers": 2, "isolate": True}


@pytest.fixture(autouse=True)
def no_limit_of_time(monkeypatch, eager):
    """A short call may spend seconds, so that a busy machine does not decide what is tested."""
    monkeypatch.setattr(seam, "SHARE", 1e4)
    monkeypatch.setattr(seam, "MORE_SECONDS", 1e2)


def told(func, a=A, **how):
    """What the default check tells; the result is that of the blocks in any case."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = parallel_apply(func, a, **GRID | how)
    assert_same(got, parallel_apply(func, a, **GRID | how, verify=False))
    assert all(one.category is ReproducibilityWarning and one.filename == __file__ for one in caught)
    return [str(one.message) for one in caught]


LOCAL = {
    "gaussian": (lambda b: gaussian_filter(b, 2), (8, 8)),
    "two widths": (lambda b: gaussian_filter(b, (0.5, 1.5)), (2, 6)),
    "median": (lambda b: median_filter(b, (5, 3)), (2, 1)),
    "of rows": (lambda b: np.diff(b, axis=1, prepend=b[:, :1]), (0, 1)),
    "of columns": (lambda b: uniform_filter1d(b, 9, axis=0, origin=4), (8, 0)),
    "of integers": (lambda b: np.roll((b * 100).astype(int), (1, 2), (0, 1)), (1, 2)),
}


@pytest.mark.parametrize("name", LOCAL)
def test_the_depth_of_each_axis_is_named(name):
    func, enough = LOCAL[name]
    for depth in ((0, 0), (enough[0], 0), (0, enough[1]), (max(0, enough[0] - 1),) * 2):
        wanted = tuple(max(one, least) for one, least in zip(depth, enough, strict=True))
        if wanted == depth:
            assert told(func, depth=depth) == []
            continue
        (text,) = told(func, depth=depth)
        first = 0 if depth[0] < enough[0] else 1
        assert f"looks further than depth={depth}: in block" in text
        assert f"along axis {first}, results change with values {enough[first]} elements away" in text
        assert f"depth={wanted} would do, but for rounding" in text
        assert "not all axes" not in text
    assert told(func, depth=enough) == []
    assert told(func, depth=tuple(one + 2 for one in enough)) == []


@pytest.mark.parametrize("boundary", ["wrap", "reflect", ("nearest", None), ("constant", 3.0)])
def test_with_boundaries(boundary):
    (text,) = told(LOCAL["gaussian"][0], depth=(2, 8), boundary=boundary)
    assert "looks further than depth=(2, 8)" in text
    assert "depth=(8, 8) would do" in text
    assert told(LOCAL["gaussian"][0], depth=8, boundary=boundary) == []


@pytest.mark.parametrize(
    ("func", "axis"),
    [
        (lambda b: b - b.mean(axis=0), 0),
        (lambda b: b - b.mean(axis=1, keepdims=True), 1),
        (lambda b: b - b.mean(), 0),
        (lambda b: np.cumsum(b, axis=1), 1),
        (lambda b: np.sort(b, axis=0), 0),
        (lambda b: b * b.shape[1], 1),
    ],
    ids=["mean 0", "mean 1", "mean", "running sum", "sorted", "length"],
)
def test_functions_of_the_whole_block(func, axis):
    (text,) = told(func)
    assert "results depend on where its blocks begin and end" in text
    assert f"along axis {axis}, all of them change" in text
    assert told(func, chunk=A.shape) == []


def test_an_axis_that_is_not_cut_is_not_tried():
    """Of it the function sees all."""
    assert told(lambda b: np.cumsum(b, axis=1), chunk=(40, 150)) == []
    assert told(lambda b: np.cumsum(b, axis=0), chunk=(130, 50)) == []
    (text,) = told(lambda b: gaussian_filter(b, 1), chunk=(130, 50))
    assert "depth=(0, 4) would do" in text
    assert "not all axes" not in text


def test_rounding_of_the_argument():
    """Of float32 a function may compute in float32, and return float64."""
    kernel = np.ones((5, 3), "f4")

    def f(b):
        return fftconvolve(b, kernel, mode="same").astype("c16" if b.dtype.kind == "c" else "f8")

    for dtype in ("f4", "c8"):
        a = A.astype(dtype)
        assert told(f, a, depth=(2, 1)) == []
        assert "depth=(2, 1) would do" in told(f, a)[0]


@pytest.mark.parametrize("how", [{"axis": (-1, -2)}, {"axis": (1, 0)}])
def test_in_the_order_of_the_axes(how):
    (text,) = told(lambda b: gaussian_filter(b, (0.5, 1.5)), **how)
    assert "depth=(6, 2) would do" in text


def test_three_axes_and_several_arrays():
    volume = rng.standard_normal((30, 30, 30))
    how = {"axis": (0, 1, 2), "chunk": (10, 10, 10)}
    (text,) = told(lambda b: gaussian_filter(b, (0.5, 1, 0)), volume, **how)
    assert "depth=(2, 4, 0) would do" in text
    with pytest.warns(ReproducibilityWarning, match=r"depth=\(0, 2, 0\) would do"):
        parallel_apply(lambda a, b: (a, np.roll(b, 2, 1)), volume, volume[::-1], **GRID | how)


def test_dimensions_of_xarray():
    array = xr.DataArray(A, dims=("y", "x"), coords={"x": np.arange(150)})
    how = {name: one for name, one in GRID.items() if name != "axis"} | {"chunk": {"x": 50, "y": 40}}
    with pytest.warns(ReproducibilityWarning) as caught:
        array.par.map(lambda b: gaussian_filter(b, (0.5, 1.5)), ("y", "x"), depth={"y": 2}, **how)
    (text,) = [str(one.message) for one in caught]
    assert "looks further than depth={'y': 2, 'x': 0}: in block" in text
    assert "along dimension 'x', x=" in text
    assert "depth={'y': 2, 'x': 6} would do" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        array.par.map(lambda b: gaussian_filter(b, (0.5, 1.5)), ("y", "x"), depth={"y": 2, "x": 6}, **how)


def test_an_axis_for_which_there_is_no_time(monkeypatch):
    """That is told."""
    pays = Border._pays
    monkeypatch.setattr(Border, "_pays", lambda self, *given: self._call.axis == (0,) and pays(self, *given))
    (text,) = told(lambda b: gaussian_filter(b, 2))
    assert "depth=(8, 0) would do, but for rounding; verify=True tries more; not all axes were tried" in text


def test_an_axis_for_which_there_is_time_once_something_is_found(monkeypatch):
    pays, measure, measured = Border._pays, Border.measure, []

    def measure_and_note(self):
        measured.append(self._call.axis)
        return measure(self)

    monkeypatch.setattr(Border, "measure", measure_and_note)
    monkeypatch.setattr(
        Border, "_pays", lambda self, *given: (self._call.axis == (0,) or bool(measured)) and pays(self, *given)
    )
    assert "depth=(8, 8) would do, but for rounding; verify=True tries more" in told(lambda b: gaussian_filter(b, 2))[0]
    assert measured == [(0,), (1,)]


def test_a_narrow_band_where_a_wide_one_takes_too_long(monkeypatch):
    wide, pays, tried = [], Border._pays, []

    def pays_narrow(self, half, seconds):
        return self._call.inputs[0].row_bytes < 40 * 8 and pays(self, half, seconds)

    def bands(call, blocks, widest=None):
        found = calls_along_axes(call, blocks, widest)
        (wide if widest is None else tried).extend(one.inputs[0].source.shape for one in found)
        return found

    monkeypatch.setattr(Border, "_pays", pays_narrow)
    monkeypatch.setattr(seam, "calls_along_axes", bands)
    assert "depth=(2, 6) would do" in told(lambda b: gaussian_filter(b, (0.5, 1.5)), depth=(1, 1))[0]
    assert wide == [(130, 52), (42, 150)]
    assert tried == [(130, 34), (34, 150)]


def test_it_takes_no_time_that_there_is_not(monkeypatch):
    monkeypatch.setattr(seam, "SHARE", 0.0)
    monkeypatch.setattr(border.Border, "_reach", lambda *_: pytest.fail("tried"))
    assert told(lambda b: gaussian_filter(b, 2)) == []


def test_nothing_of_it_is_seen(capfd):
    """Nor does this process call the function, which prints."""
    caller = os.getpid()

    def f(b):
        assert os.getpid() != caller
        print("block", b.shape in {(40, 50), (10, 50)})
        return np.cumsum(b, axis=1)

    with pytest.warns(ReproducibilityWarning, match="where its blocks begin"):
        parallel_apply(f, A, **GRID)
    assert capfd.readouterr().out == "block True\n" * 12


def test_errors_in_it_cost_the_check_alone():
    def f(b):
        if b.shape not in {(40, 50), (10, 50)}:
            raise ValueError("another block")
        return np.cumsum(b, axis=1)

    assert told(f) == []


def test_other_lengths_of_windows_cost_the_check_alone():
    """The call itself refuses them."""
    assert told(lambda b: b if b.shape in {(40, 50), (10, 50)} else b[1:, 1:]) == []
    halos = {(lo, hi) for lo in (42, 44, 12) for hi in (52, 54)}
    assert told(lambda b: b if b.shape in halos else b[1:, 1:], depth=2) == []


W = rng.standard_normal((4, 4))
EXACT = {
    "sin": (np.sin, 0),
    "matrices": (lambda b: b @ W, 0),
    "of the element": (lambda b: b - b.mean(axis=-1, keepdims=True), 0),
    "gaussian": (lambda b: gaussian_filter(b, (0.5, 0.5, 0)), 2),
    "running mean": (lambda b: uniform_filter1d(uniform_filter1d(b, 3, axis=0), 3, axis=1), 1),
    "nan": (lambda b: np.full(b.shape, np.nan), 0),
    "objects": (lambda b: b.astype(object), 0),
    "two": (lambda b: (b.sum(axis=-1), np.sort(b, axis=-1)), 0),
}
BOUNDARIES = st.sampled_from([None, "wrap", "reflect", "symmetric", "nearest", ("constant", 1.0)])


@examples(60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70), st.just(4)),
    name=st.sampled_from(sorted(EXACT)),
    dtype=st.sampled_from(["f8", "f4"]),
    boundary=st.tuples(BOUNDARIES, BOUNDARIES),
    more=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    data=st.data(),
)
def test_no_false_alarm(shape, name, dtype, boundary, more, data):
    func, least = EXACT[name]
    a = np.random.default_rng(shape).standard_normal(shape).astype(dtype)
    how = {
        "chunk": tuple(data.draw(st.integers(max(1, n // 5), n)) for n in shape[:2]),
        "depth": tuple(least + one for one in more),
        "boundary": boundary,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReproducibilityWarning)
        parallel_apply(func, a, **GRID | how)
