"""`parwise.xarray` against xarray's own loops."""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
import subprocess
import sys
from collections import namedtuple

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import parwise.xarray
from parwise import ReproducibilityWarning, parallel_apply, plan
from parwise._xarray import file_arrays

from .labelled import Counted, assert_alike, loop, make_cube
from .oracle import assert_same
from .strategies import make_array

with contextlib.suppress(ImportError):
    import netCDF4  # noqa: F401 - sets environment variables when it is imported


@pytest.fixture(autouse=True)
def _no_threads_of_dask():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def cube():
    return make_cube()


def slope(series):
    return np.polyfit(np.arange(len(series)), series, 1)[0]


def scale(x):
    return (x - x.mean()) / 3


def ends(x):
    return x.min(), x.max()


def quantiles(x):
    return np.quantile(x, [0.1, 0.5, 0.9])


# What is mapped, with each executor.


def test_pixels(cube, runner):
    got = cube.par.map(slope, ("lat", "lon"), **runner)
    assert_alike(got, loop(slope, cube, dims=("lat", "lon")))
    assert got.dims == ("lat", "lon")
    assert set(got.coords) == {"lat", "area", "height"}


def test_slices_keep_their_dims(cube, runner):
    got = cube.par.map(scale, "lat", **runner)
    assert got.dims == cube.dims
    assert_alike(got, loop(scale, cube, dims="lat", core=["time", "lon"]))


def test_others(cube, runner):
    weights = xr.DataArray(np.arange(12.0).reshape(4, 3), {"lat": cube.lat}, ("lon", "lat"), name="w")
    profile = xr.DataArray(np.arange(15.0).reshape(3, 5), {"level": range(5)}, ("lat", "level"))

    def func(x, w, p):
        return x.sum() * w @ np.ones(4) + p.max()

    got = cube.par.map(func, "lat", weights, profile, **runner)
    want = loop(
        func,
        cube,
        weights.rename(lon="other"),
        profile.drop_vars("level"),
        dims="lat",
    )
    assert_alike(got, want)


def test_labelled_slices(cube, runner):
    def func(x, power, *, shift):
        assert x.name == "t2m"
        return (x**power + shift).max("lon").assign_attrs(day=str(x.season.values)).assign_coords(n=x.time.dt.day)

    got = cube.par.map(func, "time", args=(2,), kwargs={"shift": 1.0}, as_xarray=True, **runner)
    every = [func(cube.isel(time=i), 2, shift=1.0) for i in range(12)]
    assert_alike(got, xr.concat(every, "time", coords="different", compat="equals", join="exact"))


def test_groups(cube, runner):
    def func(x):
        return x - x.mean("time")

    assert_alike(cube.par.map_groups(func, "season", **runner), cube.groupby("season").map(func))


def test_windows(cube, runner):
    got = cube.par.map_windows(scale, time=3, dim=("lat", "lon"), **runner)
    view = cube.rolling(time=3).construct("window", keep_attrs=True)
    assert_alike(got, loop(scale, view, dims=("time", "lat", "lon"), core=["window"]))


def test_blocks(cube, runner):
    def smooth(x):
        padded = np.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
        return padded[:, :-2] + padded[:, 2:]

    big = make_cube((2, 300, 40))
    got = big.par.map(smooth, "lat", vectorized=True, chunk=50, depth=1, **runner)
    assert_alike(got, big.copy(data=parallel_apply(smooth, big.data, axis=1, vectorized=True, chunk=50, depth=1)))
    assert_same(got.data, smooth(big.data))


# Shapes, orders and types.


@st.composite
def labelled(draw):
    ndim = draw(st.integers(1, 4))
    shape = draw(st.lists(st.integers(1, 4), min_size=ndim, max_size=ndim))
    dtype = draw(st.sampled_from(["f8", "f4", ">f4", "i4", "u1", "?", "c16", "M8[ns]"]))
    layout = draw(st.sampled_from(["C", "F", "stepped", "negative", "broadcast", "readonly"]))
    dims = draw(st.permutations("abcd"))[:ndim]
    coords = {d: (d, np.arange(n) * 10) for d, n in zip(dims, shape, strict=True) if draw(st.booleans())}
    for name in ("one", "two"):
        spans = draw(st.lists(st.sampled_from(dims), unique=True, max_size=2))
        lengths = [shape[dims.index(d)] for d in spans]
        coords[name] = (spans, np.arange(np.prod(lengths, dtype=int)).reshape(lengths))
    array = xr.DataArray(make_array(shape, dtype, layout, draw(st.integers(0, 99))), coords, dims, name="x")
    array.attrs["units"] = "m"
    array.encoding = {"zlib": True}
    mapped = tuple(draw(st.permutations(dims)))[: draw(st.integers(1, ndim))]
    return array, mapped


def first(x):
    return x.flat[0] if isinstance(x, np.ndarray) else x


def same(x):
    return x.copy() if isinstance(x, np.ndarray) else x


def pair(x):
    return np.stack([np.ravel(x)[0], np.ravel(x)[-1]])


def native(array):
    """NumPy keeps a foreign byte order where there is one element only."""
    return array.astype(array.dtype.newbyteorder("="))


@given(labelled(), st.booleans())
@settings(max_examples=60)
def test_any_array(case, keep_attrs):
    array, dims = case
    rest = [d for d in array.dims if d not in dims]
    options = {"workers": 1, "keep_attrs": keep_attrs}
    how = {"dims": dims, "keep_attrs": keep_attrs}
    assert_alike(native(array.par.map(first, dims, **options)), loop(first, array, **how))
    assert_alike(native(array.par.map(same, dims, **options)), loop(same, array, core=rest, **how))
    got = native(array.par.map(pair, dims, output_core_dims=["end"], **options))
    assert_alike(got, loop(pair, array, core=["end"], **how))


LABELLED = {
    "same": lambda x: x,
    "reduced": lambda x: x.max(keep_attrs=True).rename("max"),
    "bare": lambda x: x.reset_coords(drop=True),
    "some": lambda x: x.drop_vars("one"),
    "more": lambda x: x.assign_coords(new=x.one * 2, two=7),
    "renamed": lambda x: x.rename({d: f"new_{d}" for d in x.dims}),
    "apart": lambda x: x.drop_indexes(list(x.xindexes)),
    "mixed": lambda x: x.astype("c16") if x.one.max() > 0 else x,
}


@pytest.mark.parametrize("name", LABELLED)
@given(case=labelled())
@settings(max_examples=25)
def test_any_array_with_labels_as_concatenated(name, case):
    array, dims = case
    if array.dtype.kind == "M" and name == "mixed":
        return

    def concat(left, **where):
        if not left:
            return LABELLED[name](array.isel(where))
        dim, *rest = left
        every = [concat(rest, **where, **{dim: i}) for i in range(array.sizes[dim])]
        return xr.concat(every, dim, coords="different", compat="equals", join="exact", combine_attrs="override")

    want = concat(list(dims))
    order = [d for d in array.dims if d in want.dims]
    want = want.transpose(*order, *(d for d in want.dims if d not in order), transpose_coords=False)
    got = array.par.map(LABELLED[name], dims, as_xarray=True, workers=1)
    assert_alike(got, want)
    assert got.encoding == want.encoding


@given(labelled())
@settings(max_examples=30)
def test_any_array_with_labels(case):
    array, dims = case
    seen = []

    def func(x):
        seen.append(x.copy(deep=True))
        return x

    got = array.par.map(func, dims, as_xarray=True, workers=1)
    lengths = [range(array.sizes[d]) for d in dims]
    for x, index in zip(seen, itertools.product(*lengths), strict=True):
        assert_alike(x, array.isel(dict(zip(dims, index, strict=True))))
    # What xarray's loop gives: a coordinate that is the same all along stays as it is.
    assert got.dims == array.dims
    assert_same(got.to_numpy(), array.to_numpy().astype(array.dtype.newbyteorder("=")))
    for name, one in array.coords.items():
        mine, theirs = (
            x.variable + 0 * xr.Variable(array.dims, np.zeros(array.shape)) for x in (got.coords[name], one)
        )
        assert mine.transpose(*array.dims).equals(theirs.transpose(*array.dims))


@given(labelled(), st.data())
@settings(max_examples=30)
def test_any_array_in_blocks_of_dask(case, data):
    array, dims = case
    rest = [d for d in array.dims if d not in dims]
    chunks = {d: data.draw(st.integers(1, array.sizes[d])) for d in dims}
    lazy = array.chunk(chunks)
    got = lazy.par.map(same, dims, output_core_dims=rest, output_dtypes=array.dtype)
    assert got.chunks == lazy.chunks
    want = loop(same, array, dims=dims, core=rest)
    assert_alike(got.compute(), want.astype(array.dtype))


def test_every_result_counts_for_the_dtype():
    array = xr.DataArray(np.arange(5), dims="x")
    assert array.par.map(lambda x: int(x) if x < 3 else 0.5, "x").dtype == "f8"
    assert array.par.map(lambda x: 1, "x", output_dtypes="f4").dtype == "f4"
    with pytest.raises(TypeError, match="same_kind"):
        array.par.map(lambda x: 0.5, "x", output_dtypes=["i4"])


def test_results_lie_as_usual(cube):
    assert cube.par.map(scale, ("lat", "lon")).data.flags.c_contiguous
    other = xr.zeros_like(cube).transpose("lon", "time", "lat")
    assert cube.par.map(lambda a, b: a + b.sum(), "time", other).data.flags.c_contiguous


Range = namedtuple("Range", "low high")


def test_tuples(cube):
    got = cube.par.map(ends, ("lat", "lon"))
    assert_alike(got, loop(ends, cube, dims=("lat", "lon"), outputs=2))
    mixed = cube.par.map(lambda x: Range(x.sum(), quantiles(x)), ("lat", "lon"), output_core_dims=[[], ["q"]])
    assert isinstance(mixed, Range)
    assert (mixed.low.dims, mixed.high.dims) == (("lat", "lon"), ("lat", "lon", "q"))
    assert_alike(mixed.high, loop(quantiles, cube, dims=("lat", "lon"), core=["q"]))


def test_new_dimensions_come_last_and_old_ones_in_order(cube):
    got = cube.par.map(lambda x: np.ones((2, 4, 12)), "lat", output_core_dims=["new", "lon", "time"])
    assert got.dims == ("time", "lat", "lon", "new")
    assert set(got.coords) == set(cube.coords)
    assert got.encoding == {"zlib": True}


def test_a_dimension_of_another_length_loses_its_coordinates(cube):
    got = cube.par.map(lambda x: x[:, ::2], "lat", output_core_dims=["time", "lon"])
    assert got.shape == (12, 3, 2)
    assert set(got.coords) == {"time", "lat", "season", "hours", "height"}
    assert_alike(
        cube.par.map(lambda x: x[::2], "lat", output_core_dims=["time", "lon"]),
        loop(lambda x: x[::2], cube, dims="lat", core=["time", "lon"], exclude=["time"]),
    )


@pytest.mark.parametrize("keep_attrs", [True, False, "override", "drop", "identical"])
def test_attrs(cube, keep_attrs):
    got = cube.par.map(scale, "lat", keep_attrs=keep_attrs)
    assert_alike(got, loop(scale, cube, dims="lat", core=["time", "lon"], keep_attrs=keep_attrs))
    assert got.encoding == cube.encoding
    labelled = cube.par.map(lambda x: x, "lat", as_xarray=True, keep_attrs=keep_attrs)
    assert labelled.attrs == ({} if keep_attrs in (False, "drop") else {"units": "K"})


def test_multiindex(cube):
    stacked = cube.drop_vars(["area"]).stack(pixel=("lat", "lon"))
    got = stacked.par.map(np.sum, "pixel")
    assert_alike(got, loop(np.sum, stacked, dims="pixel"))
    assert got.unstack().dims == ("lat", "lon")
    assert set(stacked.par.map(np.sum, "time").xindexes) == set(loop(np.sum, stacked, dims="time").xindexes)


def test_coordinates_can_be_mapped(cube):
    assert_alike(cube.lat.par.map(np.abs, "lat"), loop(np.abs, cube.lat, dims="lat"))
    days = cube.time.par.map(lambda x: x.astype("M8[D]").astype(int), "time")
    assert days.to_numpy()[:2].tolist() == [18322, 18323]


def test_calendars_of_models():
    times = xr.date_range("2000-01-01", periods=10, calendar="noleap", use_cftime=True)
    array = xr.DataArray(np.random.default_rng(0).random((10, 3)), {"time": times}, ("time", "x"))
    assert_alike(array.par.map(np.sum, "time"), loop(np.sum, array, dims="time"))
    for by in ("time.month", array.resample(time="3D")):
        want = (array.groupby(by) if isinstance(by, str) else by).map(lambda x: x.mean("time"))
        assert_alike(array.par.map_groups(lambda x: x.mean("time"), by, workers=2, isolate=True), want)
    with pytest.raises(KeyError) as error:
        array.par.map(boom, "time", args=(float(array[0].max()),))
    assert "time=2000-01-01 00:00:00" in notes_of(error)


def test_multiindex_in_windows_and_groups(cube):
    stacked = cube.drop_vars(["area", "hours"]).stack(pixel=("lat", "lon"))
    view = stacked.rolling(pixel=2).construct("window", keep_attrs=True)
    assert_alike(stacked.par.map_windows(np.sum, pixel=2, dim="time"), loop(np.sum, view, dims=("pixel", "time")))
    for by in ("lat", "pixel"):
        got = (
            stacked.par.map_groups(lambda x: x.mean("pixel"), by) if by == "lat" else stacked.par.map_groups(np.sum, by)
        )
        func = np.sum if by == "pixel" else lambda x: x.mean("pixel")
        assert_alike(got, stacked.groupby(by).map(func))


def test_several_groupers(cube):
    array = cube.assign_coords(half=("time", np.repeat(["x", "y"], 6)))
    got = array.par.map_groups(lambda x: x.mean("time"), ["season", "half"], workers=2, isolate=True)
    assert_alike(got, array.groupby(["season", "half"]).map(lambda x: x.mean("time")))


@pytest.mark.parametrize("dims", ["my dim", ("my dim", "a.b")])
def test_names_of_all_kinds(dims):
    array = xr.DataArray(np.arange(24.0).reshape(2, 3, 4), {"my dim": [3, 4]}, ("my dim", "a.b", "y"), name=("a", 1))
    assert_alike(array.par.map(np.sum, dims), loop(np.sum, array, dims=dims))
    got = array.par.map_windows(np.sum, {"my dim": 2})
    assert_alike(got, loop(np.sum, array.rolling({"my dim": 2}).construct("window", keep_attrs=True), dims="my dim"))


def test_the_same_array_twice(cube):
    def func(x, y, z):
        return (x * y - z).sum()

    assert_alike(cube.par.map(func, "lat", cube, cube), loop(func, cube, cube, cube, dims="lat"))


def test_dask_chunks_of_several_lengths_and_no_name(cube):
    lazy = cube.rename(None).chunk(time=-1, lat=(1, 2), lon=(3, 1))
    got = lazy.par.map(np.sum, ("lat", "lon"), output_core_dims=[], output_dtypes=float)
    assert (got.chunks, got.name) == (((1, 2), (3, 1)), None)
    assert_alike(got.compute(), loop(np.sum, cube, dims=("lat", "lon")).rename(None))


def test_no_element():
    empty = xr.DataArray(np.ones((0, 3)), {"y": [1, 2, 3]}, ("x", "y"))
    assert empty.par.map(np.sum, "x").shape == (0,)
    got = empty.par.map(same, "x", output_core_dims=["y"])
    assert (got.shape, set(got.coords)) == ((0, 3), {"y"})
    with pytest.raises(ValueError, match="length of the new dimension 'q' is not known"):
        empty.par.map(same, "x", output_core_dims=["q"])
    assert empty.par.map(same, "x", output_core_dims=["q"], output_sizes={"q": 5}).shape == (0, 5)


def test_random_numbers(cube):
    def draw(x, rng):
        return rng.random()

    got = cube.par.map(draw, ("lat", "lon"), rng=7, workers=2)
    assert_same(got.data, parallel_apply(draw, cube.data, axis=(1, 2), rng=7))
    labelled = cube.par.map(lambda x, rng: x.max() * 0 + rng.random(), ("lat", "lon"), rng=7, as_xarray=True)
    assert_same(labelled.to_numpy(), got.data)
    lazy = cube.chunk(lat=2, lon=3)
    lazily = lazy.par.map(draw, ("lat", "lon"), rng=7, output_dtypes="f8", output_core_dims=[])
    assert_same(lazily.to_numpy(), got.data)
    with pytest.raises(TypeError, match="func takes no argument of that name"):
        cube.par.map(lambda x: x, "time", rng=7, as_xarray=True)


# Errors.


def boom(x, at):
    if x.max() == at:
        raise KeyError("there")
    return x.sum()


def notes_of(error):
    return "\n".join(getattr(error.value, "__notes__", []))


def test_errors_name_labels(cube, runner):
    with pytest.raises(KeyError) as error:
        cube.par.map(boom, "time", args=(float(cube[4].max()),), **runner)
    assert "in element 4 along dimension 'time', time=2020-03-05" in notes_of(error)


def test_errors_name_pixels_and_blocks(cube):
    with pytest.raises(KeyError) as error:
        cube.par.map(boom, ("lon", "lat"), args=(float(cube[:, 1, 2].max()),))
    assert "in element (2, 1) along dimensions ('lon', 'lat'), lat=0.0" in notes_of(error)
    with pytest.raises(KeyError) as error:
        cube.par.map(lambda x: x + boom(x[:2], float(cube[4:6].max())), "time", vectorized=True, chunk=4)
    assert "along dimension 'time', time=2020-03-05 to 2020-03-08" in notes_of(error)
    with pytest.raises(KeyError) as error:
        cube.chunk(time=5).par.map(
            boom, "time", args=(float(cube[7].max()),), output_dtypes="f8", output_core_dims=[]
        ).compute()
    assert "in element 7 along dimension 'time', time=2020-03-08" in notes_of(error)
    with pytest.raises(KeyError) as error:
        cube.par.map_groups(boom, "season", args=(float(cube[1::4].max()),))
    assert "in group 1 along dimension 'season', season=b" in notes_of(error)


def test_gaps(cube):
    at = float(cube[4].max())
    with pytest.warns(RuntimeWarning, match=r"element 4 along dimension 'time', time=2020-03-05: KeyError"):
        got = cube.par.map(boom, "time", args=(at,), errors="ignore")
    assert np.flatnonzero(got.isnull()).tolist() == [4]

    def labelled(x, at):
        return boom(x, at) + x

    with pytest.warns(RuntimeWarning, match="2020-03-05"):
        got = cube.par.map(labelled, "time", args=(at,), errors="ignore", as_xarray=True)
    want = cube.par.map(labelled, "time", args=(1e9,), as_xarray=True)
    assert_alike(got, want.where(want.time != want.time[4]))
    with pytest.warns(RuntimeWarning, match="12 of 12"):
        got = cube.par.map(lambda x: 1 / 0, "time", errors="ignore", as_xarray=True)
    assert got.isnull().all()


def test_unlike_workers_are_told(cube, eager):
    count = itertools.count()

    def func(x):
        return x + next(count)

    with pytest.warns(ReproducibilityWarning):
        cube.par.map(func, "time", as_xarray=True, workers=2)


ONE = xr.DataArray(np.ones(3), {"x": [1, 2, 3]}, "x", name="one")
BAD = {
    "unknown dimension": (lambda: ONE.par.map(same, "tme"), ValueError, "no dimension 'tme'; it has 'x'"),
    "no dimension": (lambda: ONE.par.map(same, ()), ValueError, "at least one dimension"),
    "twice": (lambda: ONE.par.map(same, ("x", "x")), ValueError, "names one dimension twice"),
    "unhashable": (lambda: ONE.par.map(same, {}), TypeError, "name or a tuple of names, got dict"),
    "not callable": (lambda: ONE.par.map("x", same), TypeError, "func must be callable, got str"),
    "other": (lambda: ONE.par.map(same, "x", np.ones(3)), TypeError, "other 0 is a ndarray, not a DataArray"),
    "other without": (
        lambda: ONE.par.map(same, "x", ONE, ONE.rename(x="y")),
        ValueError,
        "other 1 has no dimension 'x'; it has 'y'; what every call gets whole goes in args",
    ),
    "unlike labels": (
        lambda: ONE.par.map(same, "x", ONE.assign_coords(x=[1, 2, 4])),
        getattr(xr, "AlignmentError", ValueError),
        "the coordinate 'x' of other 0 differs from the array's, first at 2: 4 against 3",
    ),
    "unlike lengths": (lambda: ONE.par.map(same, "x", ONE[:2]), ValueError, "other 0 has length 2 along 'x'"),
    "two for blocks": (
        lambda: make_cube().par.map(same, ("lat", "lon"), vectorized=True),
        ValueError,
        "mapped along one dimension",
    ),
    "blocks lie differently": (
        lambda: make_cube().par.map(same, "lat", make_cube().transpose("lat", ...), vectorized=True),
        ValueError,
        "'lat' is axis 0 of other 0 and axis 1 of the array",
    ),
    "unknown shape": (
        lambda: make_cube().par.map(quantiles, "time"),
        ValueError,
        r"results of shape \(3,\), but slices are of shape \(3, 4\), with dimensions 'lat', 'lon'",
    ),
    "too few names": (
        lambda: make_cube().par.map(same, "time", output_core_dims=["q"]),
        ValueError,
        r"names 1 dimension\(s\), 'q', but func gives results of shape \(3, 4\)",
    ),
    "names of one result": (
        lambda: ONE.par.map(lambda x: (x, x), "x", output_core_dims=["q"]),
        ValueError,
        "is for 1 result",
    ),
    "mapped name": (lambda: ONE.par.map(pair, "x", output_core_dims=["x"]), ValueError, "without those mapped over"),
    "mixed names": (lambda: ONE.par.map(pair, "x", output_core_dims=["x", ["y"]]), TypeError, "list of names, or of"),
    "dtypes": (lambda: ONE.par.map(same, "x", output_dtypes=["f8", "f8"]), ValueError, "has 2 dtype"),
    "unknown option": (lambda: ONE.par.map(same, "x", wrokers=2), TypeError, "did you mean 'workers'"),
    "as_xarray": (lambda: ONE.par.map(same, "x", as_xarray=1), TypeError, "as_xarray must be a bool"),
    "not labelled": (lambda: ONE.par.map(float, "x", as_xarray=True), TypeError, "must return a DataArray"),
    "unlike dims": (
        lambda: make_cube().par.map(lambda x: x[0] if x.time.dt.day == 3 else x, "time", as_xarray=True),
        ValueError,
        "results differ in dimensions: .* of element 0, {'lon': 4} of element 2",
    ),
    "unlike coords": (
        lambda: make_cube().par.map(lambda x: x.assign_coords(lat=x.lat + x.time.dt.day), "time", as_xarray=True),
        ValueError,
        "cannot be combined along 'time'",
    ),
    "unlike names of coords": (
        lambda: make_cube().par.map(lambda x: x if x.time.dt.day == 1 else x.drop_vars("area"), "time", as_xarray=True),
        ValueError,
        "results differ in coordinates: .*'area'.* of element 0, .* of element 1",
    ),
    "unlike lengths of results": (
        lambda: make_cube().par.map(lambda x: x[:, : 1 + (x.time.dt.day == 1).item()], "time", as_xarray=True),
        ValueError,
        "results differ in dimensions: {'lat': 3, 'lon': 2} of element 0, {'lat': 3, 'lon': 1} of element 1",
    ),
    "halo of labelled blocks": (
        lambda: make_cube().par.map(same, "time", as_xarray=True, vectorized=True, depth=1),
        ValueError,
        "no halo and no gaps",
    ),
    "no group": (lambda: ONE.par.map_groups(same, "y"), KeyError, "'y'.*; there are 'x'"),
    "no group of a dataset": (lambda: ONE.to_dataset().par.map_groups(same, "y"), KeyError, "; there are 'x', 'one'"),
    "no window": (lambda: ONE.par.map_windows(same), TypeError, "no window: give"),
    "window": (lambda: ONE.par.map_windows(same, tme=2), KeyError, "no dimension 'tme' to roll along; there are 'x'"),
    "windows twice": (lambda: ONE.par.map_windows(same, {"x": 2}, x=3), ValueError, "as a dict, .* and by keyword"),
    "windows by rolling": (lambda: ONE.par.map_windows(same, ONE.rolling(x=2)), TypeError, "got DataArrayRolling"),
    "window of no int": (lambda: ONE.par.map_windows(same, x=2.5), TypeError, "must be an int, got 2.5 of type float"),
    "window of nothing": (lambda: ONE.par.map_windows(same, x=0), ValueError, "at least 1 long, got 0"),
    "min_periods": (lambda: ONE.par.map_windows(same, x=2, min_periods=0), ValueError, "from 1 on, or None, got 0"),
    "window and dim": (lambda: ONE.par.map_windows(same, x=2, dim="x"), ValueError, "one dimension twice"),
    "keep_attrs": (lambda: ONE.par.map(counting, "x", keep_attrs="all"), ValueError, "got 'all'"),
    "no names": (lambda: ONE.par.map(pair, "x", output_core_dims=[None]), TypeError, "must be names"),
    "sizes": (
        lambda: ONE.par.map(pair, "x", output_core_dims=["q"], output_sizes={"q": 3}),
        ValueError,
        r"output_sizes says 3 for 'q', but func gives results of shape \(2,\)",
    ),
    "blocks of groups": (
        lambda: ONE.par.map_groups(counting, "x", vectorized=True, keep_attrs=False),
        ValueError,
        "'vectorized', 'keep_attrs': each group is given to func whole",
    ),
    "missing": (
        lambda: ONE.to_dataset().par.map(same, "x", on_missing_dim="keep"),
        ValueError,
        "'copy', 'drop' or 'raise', got 'keep'",
    ),
    "dataset": (lambda: ONE.to_dataset().par.map(same, "y"), ValueError, "no dimension 'y'; it has 'x'"),
    "tree": (
        lambda: xr.DataTree.from_dict({"/a": ONE.to_dataset()}).par.map(same, "y"),
        ValueError,
        "no node of the tree has a dimension 'y'; there are 'x'",
    ),
}


if not hasattr(xr, "DataTree"):
    del BAD["tree"]


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()


# Slices with labels, and blocks of them.


def test_labelled_tuples_and_pixels(cube):
    def func(x, y):
        return x.max("time"), (x * y).cumsum("time")

    other = cube.rename("other").drop_vars("season") * 2
    got = cube.par.map(func, ("lat", "lon"), other, as_xarray=True)
    rows = []
    for i in range(3):
        row = [func(cube.isel(lat=i, lon=j), other.isel(lat=i, lon=j)) for j in range(4)]
        rows.append([xr.concat(list(c), "lon", coords="different", compat="equals") for c in zip(*row, strict=True)])
    want = [xr.concat(list(c), "lat", coords="different", compat="equals") for c in zip(*rows, strict=True)]
    assert_alike(got, (want[0], want[1].transpose("time", "lat", "lon", transpose_coords=False)))


def test_labelled_blocks(cube, runner):
    def func(x):
        return (x * x.time.dt.day).mean("lon")

    got = cube.par.map(func, "time", vectorized=True, chunk=5, as_xarray=True, **runner)
    blocks = [func(cube.isel(time=slice(b.start, b.stop))) for b in plan(cube.data, chunk=5)]
    assert_alike(got, xr.concat(blocks, "time", coords="different", compat="equals", join="exact"))
    swapped = cube.transpose("lon", "time", "lat")
    assert_alike(
        swapped.par.map(lambda x: (x + 1).assign_attrs(x.attrs), "time", vectorized=True, chunk=5, as_xarray=True),
        swapped.copy(data=swapped.data + 1),
    )


def test_slices_are_private(cube):
    kept = cube.copy(deep=True)

    def func(x):
        x[...] = 0
        return x

    cube.par.map(func, "time", as_xarray=True)
    cube.par.map_groups(func, "season")
    cube.par.map(func, "lat")
    assert_alike(cube, kept)


# Windows.


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("fill_value", [..., 0.0, -1])
@pytest.mark.parametrize("window", [1, 4, 12])
def test_windows_as_xarray_makes_them(cube, center, fill_value, window):
    given = {} if fill_value is ... else {"fill_value": fill_value}
    view = cube.rolling(time=window, center=center).construct("window", keep_attrs=True, **given)
    got = cube.par.map_windows(np.sum, time=window, center=center, fill_value=fill_value)
    assert_alike(got, loop(np.sum, view, dims="time"))
    got = cube.par.map_windows(np.max, {"lat": 2}, dim=("time", "lon"), center=center, fill_value=fill_value)
    view = cube.rolling(lat=2, center=center).construct("window", keep_attrs=True, **given)
    assert_alike(got, loop(np.max, view, dims=("lat", "time", "lon")))


def test_windows_over_two_dimensions(cube):
    got = cube.par.map_windows(np.nanmean, lat=2, lon=3, dim="time", min_periods=1)
    want = cube.rolling(lat=2, lon=3, min_periods=1).reduce(np.nanmean)
    xr.testing.assert_allclose(got, want)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("min_periods", [1, 2, 3])
def test_min_periods(cube, min_periods, center):
    cube = cube.where(cube > np.quantile(cube, 0.3))
    got = cube.par.map_windows(np.nansum, time=3, dim=("lat", "lon"), min_periods=min_periods, center=center)
    counts = cube.rolling(time=3, min_periods=1, center=center).count()
    view = cube.rolling(time=3, center=center).construct("window", keep_attrs=True)
    assert_alike(got, loop(np.nansum, view, dims=("time", "lat", "lon")).where(counts.fillna(0) >= min_periods))
    whole = cube.par.map_windows(lambda x: np.nansum(x), time=3, min_periods=min_periods, center=center)
    fewest = counts.fillna(0).min(["lat", "lon"])
    assert (whole.isnull() == (fewest < min_periods)).all()


def test_windows_of_integers_and_datasets(cube):
    ds = cube.astype("i4").to_dataset().assign(flag=("lat", [1, 2, 3]), more=("time", np.arange(12.0)))
    got = ds.par.map_windows(np.sum, time=2, fill_value=7)
    assert (
        got.t2m.dtype
        == loop(np.sum, cube.astype("i4").rolling(time=2).construct("window", fill_value=7), dims="time").dtype
    )
    assert_alike(got.flag.drop_vars("height"), ds.flag.drop_vars("height"))
    assert got.more.to_numpy()[:3].tolist() == [7.0, 1.0, 3.0]
    periods = ds.par.map_windows(lambda x: (x.min(), x.max()), time=2, min_periods=2)
    assert [one.more.to_numpy()[:3].tolist()[1:] for one in periods] == [[0.0, 1.0], [1.0, 2.0]]
    assert all(np.isnan(one.more[0]) for one in periods)


# Datasets and trees.


def test_datasets(cube):
    ds = cube.to_dataset().assign(
        swapped=cube.transpose() * 2, flag=("time", np.arange(12)), apart=("level", np.arange(5))
    )
    ds.attrs["title"] = "weather"
    want = ds.assign(t2m=loop(slope, cube, dims=("lat", "lon")), swapped=loop(slope, ds.swapped, dims=("lon", "lat")))
    got = ds.par.map(slope, ("lat", "lon"))
    assert_alike(got, want)
    got = ds.par.map(slope, ("lat", "lon"), on_missing_dim="drop", keep_attrs=False)
    assert (list(got), got.attrs, set(got.coords)) == (["t2m", "swapped"], {}, {"lat", "area", "height"})
    with pytest.raises(ValueError, match="'flag', 'apart' lack some of the dimensions 'lat', 'lon'"):
        ds.par.map(slope, ("lat", "lon"), on_missing_dim="raise")


def test_datasets_in_step(cube):
    ds = cube.to_dataset().assign(double=2 * cube)
    got = ds.par.map(lambda x, y, z: (x * y).sum() + z, "time", ds, cube.isel(lat=0, lon=0, drop=True))
    for name in ds:
        arrays = ds[name].data
        assert_same(
            got[name].data, np.array([(a * a).sum() + z for a, z in zip(arrays, cube.data[:, 0, 0], strict=True)])
        )
    with pytest.raises(ValueError, match="other 0 has no variable 'double'; it has 't2m'"):
        ds.par.map(lambda x, y: x, "time", ds[["t2m"]])
    with pytest.raises(KeyError) as error:
        ds.par.map(boom, "time", args=(float(ds.double[3].max()),))
    assert "in variable 'double'" in notes_of(error)


def test_dataset_of_tuples(cube):
    ds = cube.to_dataset().assign(double=2 * cube, flag=("time", np.arange(12)))
    low, high = ds.par.map(ends, "lat")
    assert_alike(low.double, ends_of := loop(ends, ds.double, dims="lat", outputs=2)[0])
    assert ends_of.name == "double"
    assert_alike(high.flag.reset_coords(drop=True), ds.flag.reset_coords(drop=True))


@pytest.mark.skipif(not hasattr(xr, "register_datatree_accessor"), reason="xarray without trees")
def test_trees(cube):
    ds = cube.to_dataset().assign(flag=("time", np.arange(12)))
    tree = xr.DataTree.from_dict({"/": ds, "/fine": 2 * ds, "/other/apart": xr.Dataset({"a": ("z", [1.0, 2.0])})})
    got = tree.par.map(slope, ("lat", "lon"))
    assert_alike(got["/"].to_dataset(), ds.par.map(slope, ("lat", "lon")))
    assert_alike(got["fine"].to_dataset(inherit=True), (2 * ds).par.map(slope, ("lat", "lon")))
    assert got["other/apart/a"].to_numpy().tolist() == [1.0, 2.0]
    dropped = tree.par.map(slope, ("lat", "lon"), on_missing_dim="drop")
    assert list(dropped["fine"].data_vars) == ["t2m"]
    two = tree.par.map(lambda x, y: x.sum() - y.sum(), "time", tree, on_missing_dim="drop")
    assert (two["fine/t2m"] == 0).all()


# Data that is not in memory.


def counting(x):
    raise AssertionError("called before anything was asked for")


def test_dask_gives_no_name(cube):
    lazy = cube.chunk(lat=1).rename(None)
    assert lazy.par.map(np.mean, ("lat", "lon"), output_dtypes=float, output_core_dims=[]).name is None


def test_dask_is_lazy(cube):
    lazy = cube.chunk(lat=2, lon=1)
    never = lazy.par.map(counting, ("lat", "lon"), output_dtypes=[float], output_core_dims=["q"], output_sizes={"q": 3})
    assert never.chunks == ((2, 1), (1, 1, 1, 1), (3,))
    assert (never.name, never.attrs, never.dtype) == ("t2m", {"units": "K"}, np.dtype(float))
    lazy.par.map(counting, "lat", vectorized=True, output_dtypes=float)
    cube.copy(data=lazy.data).par.map_groups(counting, "season", output_dtypes=float)
    lazy.par.map_windows(counting, time=3, dim=("lat", "lon"), output_dtypes=float, output_core_dims=[])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_dask_elements(cube, scheduler, thread_executor):
    with dask.config.set(scheduler=scheduler, pool=thread_executor):
        _elements_of_dask(cube)


def _elements_of_dask(cube):
    lazy = cube.chunk(lat=2, lon=3)
    with parwise.options(isolate=True):
        got = lazy.par.map(
            quantiles, ("lon", "lat"), output_dtypes=float, output_core_dims=["q"], output_sizes={"q": 3}
        ).compute()
    assert_alike(got, loop(quantiles, cube, dims=("lat", "lon"), core=["q"]))
    got = lazy.par.map(ends, ("lat", "lon"), output_dtypes=["f8", "f4"], output_core_dims=[[], []])
    assert [one.dtype for one in got] == ["f8", "f4"]
    assert_alike(got[0].compute(), loop(ends, cube, dims=("lat", "lon"), outputs=2)[0])
    other = xr.DataArray(np.arange(24.0).reshape(4, 3, 2), {"lat": cube.lat}, ("lon", "lat", "time"))
    got = lazy.par.map(lambda x, y: x.sum() + y[1], ("lat", "lon"), other, output_dtypes=float, output_core_dims=[])
    assert_alike(got.compute(), cube.par.map(lambda x, y: x.sum() + y[1], ("lat", "lon"), other))


def test_dask_labels(cube):
    def func(x):
        assert_alike(x, cube.sel(time=x.time, lat=x.lat))
        return x.max() * x.time.dt.day

    want = cube.par.map(func, ("lat", "time"), as_xarray=True)
    got = cube.chunk(time=5, lat=2).par.map(
        func, ("lat", "time"), as_xarray=True, output_dtypes=float, output_core_dims=[]
    )
    assert got.chunks == ((5, 5, 2), (2, 1))
    assert_same(got.compute().data, want.data)
    assert set(got.coords) == {"time", "lat", "season", "hours", "height"}


@pytest.mark.parametrize("boundary", [None, "reflect", "nearest", "symmetric", "wrap", ("constant", 2.0)])
def test_dask_blocks(cube, boundary):
    def smooth(x):
        return x - 0.5 * np.roll(x, 1, 0) + 0.1 * np.roll(x, -1, 0)

    how = {"vectorized": True, "chunk": 4, "depth": 1, "boundary": boundary}
    lazy = cube.chunk(time=5, lat=1)
    got = lazy.par.map(smooth, "time", output_dtypes=float, **how)
    assert got.chunks[0] == (5, 5, 2)
    assert_alike(got.compute(), cube.par.map(smooth, "time", **how))

    def draw(x, rng):
        return x + rng.random()

    got = lazy.par.map(draw, "time", output_dtypes=float, vectorized=True, chunk=4, rng=3)
    assert_alike(got.compute(), cube.par.map(draw, "time", vectorized=True, chunk=4, rng=3))


@pytest.mark.parametrize("dim", ["time", "lat"])
def test_dask_labelled_blocks(cube, dim):
    def func(x):
        assert_alike(x, cube.sel({dim: x[dim]}))
        return (x * x[dim].dt.day if dim == "time" else x + x.lat).transpose("lon", ...)

    how = {"vectorized": True, "chunk": 2, "as_xarray": True}
    lazy = cube.chunk(time=5, lat=1)
    got = lazy.par.map(func, dim, output_dtypes=float, **how)
    assert got.chunks == (lazy.chunks[0] if dim == "time" else (12,), lazy.chunks[1] if dim == "lat" else (3,), (4,))
    assert_same(got.compute().data, cube.par.map(func, dim, **how).transpose(*cube.dims).data)
    assert set(got.coords) == set(cube.coords)

    def reduced(x, rng):
        return x.max("lon"), x.sum("lon") * rng.random()

    how = {**how, "rng": 3}
    dims = [["time" if dim == "lat" else "lat"]] * 2
    got = lazy.par.map(reduced, dim, output_dtypes=[float, float], output_core_dims=dims, **how)
    for one, other in zip(got, cube.par.map(reduced, dim, **how), strict=True):
        assert_same(one.to_numpy(), other.to_numpy())
    with pytest.raises(ValueError, match="dimensions 'time', 'lat', but output_core_dims says .*'lon'"):
        lazy.par.map(lambda x: x.max("lon"), dim, output_dtypes=float, **{**how, "rng": None}).compute()


def test_dask_groups_and_windows(cube):
    def anomaly(x):
        return x - x.mean("time")

    got = cube.copy(data=cube.chunk(time=5).data).par.map_groups(anomaly, "season", output_dtypes=float)
    assert got.chunks is not None
    assert_alike(got.compute(), cube.groupby("season").map(anomaly))
    got = cube.copy(data=cube.chunk(time=5).data).par.map_groups(
        lambda x: x.mean("time"), "season", output_dtypes=float, output_core_dims=["lat", "lon"]
    )
    assert_alike(got.compute(), cube.groupby("season").map(lambda x: x.mean("time")))
    got = cube.chunk(time=5).par.map_windows(
        np.sum, time=3, dim=("lat", "lon"), min_periods=3, output_dtypes=float, output_core_dims=[]
    )
    want = cube.par.map_windows(np.sum, time=3, dim=("lat", "lon"), min_periods=3)
    assert_alike(got.compute(), want)


def test_dask_on_a_cluster(cube, dask_client):
    lazy = cube.chunk(lat=1)
    got = lazy.par.map(lambda x: x.sum() / 3, ("lat", "lon"), output_dtypes=float, output_core_dims=[])
    assert_alike(got.compute(), loop(lambda x: x.sum() / 3, cube, dims=("lat", "lon")))


BAD_LAZY = {
    "dtypes": ({"output_core_dims": []}, "pass output_dtypes"),
    "core dims": ({"output_dtypes": float}, r"tell the dimensions of func's results, output_core_dims=\[\]"),
    "sizes": ({"output_dtypes": float, "output_core_dims": ["q"]}, "pass output_sizes={'q': ...}"),
    "workers": (
        {"output_dtypes": float, "output_core_dims": [], "workers": 3},
        "'workers' have no meaning for data in Dask's blocks",
    ),
}


@pytest.mark.parametrize("case", BAD_LAZY)
def test_bad_input_for_dask(case, cube):
    how, message = BAD_LAZY[case]
    with pytest.raises(ValueError, match=message):
        cube.chunk(lat=1).par.map(same, "lat", **how)


def test_more_bad_input_for_dask(cube):
    lazy = cube.chunk(time=3)
    with pytest.raises(ValueError, match=r"func needs all of 'time' at once, which is in 4 chunks"):
        lazy.par.map(same, "lat", output_dtypes=float, output_core_dims=[])
    with pytest.raises(ValueError, match="pass output_dtypes"):
        cube.copy(data=lazy.data).par.map_groups(same, "season")
    with pytest.raises(ValueError, match=r"shape \(12, 4\), but the result has \(12,\)|out has shape"):
        cube.chunk(lat=1).par.map(
            lambda x: x[:, 0], "lat", output_dtypes=float, output_core_dims=["time", "lon"]
        ).compute()
    with pytest.raises(TypeError, match="same_kind"):
        cube.chunk(lat=1).par.map(np.sum, "lat", output_dtypes=int, output_core_dims=[]).compute(
            scheduler="synchronous"
        )
    with pytest.raises(ValueError, match="dimensions 'time', but output_core_dims says 'lon'"):
        cube.chunk(lat=1).par.map(
            lambda x: x[:, 0], "lat", output_dtypes=float, output_core_dims=["lon"], as_xarray=True
        ).compute()


def in_file(array):
    """The same as it comes from a file, and what tells what is read of it."""
    from xarray.core.indexing import LazilyIndexedArray

    counted = Counted(array.data)
    variable = xr.Variable(array.dims, LazilyIndexedArray(counted), array.attrs, array.encoding)
    return xr.DataArray(variable, array.coords, name=array.name), counted


@pytest.mark.parametrize("dims", ["time", ("lat", "lon"), ("lon", "time")])
def test_files_are_read_in_blocks(dims, monkeypatch):
    monkeypatch.setattr(file_arrays, "READ_BYTES", 2**21)
    cube = make_cube((200, 60, 70))
    lazy, counted = in_file(cube)
    got = lazy.par.map(np.max, dims, workers=2)
    assert 4 <= len(counted.read) <= 6
    assert max(counted.read) < 0.35 * cube.size
    assert sum(counted.read) < 1.01 * cube.size  # only the first task may be wanted twice, to compare workers with
    assert_alike(got, cube.par.map(np.max, dims, workers=1))
    counted.read.clear()
    lazy[:5].par.map(lambda x: x.max(), "time", as_xarray=True)
    assert sum(counted.read) == 5 * cube[0].size
    assert not lazy.variable._in_memory


def test_files_are_read_as_asked_where_that_is_much(monkeypatch):
    monkeypatch.setattr(file_arrays, "READ_BYTES", 0)
    cube = make_cube((20, 6, 7))
    lazy, counted = in_file(cube)
    assert_alike(lazy.par.map(np.max, "time", workers=1), cube.par.map(np.max, "time"))
    assert sum(counted.read) == cube.size
    assert len(counted.read) > 1


def test_what_is_read_once_more_leaves_what_is_kept(monkeypatch):
    monkeypatch.setattr(file_arrays, "READ_BYTES", 10 * 8)
    lazy, counted = in_file(xr.DataArray(np.arange(100.0), dims="x"))
    band = file_arrays.ReadAhead(lazy.variable, ["x"])
    for lo in (0, 20, 22, 0, 28):
        assert band.read((slice(lo, lo + 3),)).tolist() == [lo, lo + 1, lo + 2]
    assert counted.read == [10, 10, 3, 8]  # of 28:38 two were kept
    again = pickle.loads(pickle.dumps(file_arrays.ReadAhead(lazy.variable.copy(data=np.arange(100.0)), ["x"])))
    assert again.read((slice(4, 6),)).tolist() == [4.0, 5.0]


WINDOWS = [
    {"time": 7},
    {"time": 7, "dim": ("lat", "lon"), "center": True},
    {"lat": 3, "lon": 4, "dim": "time", "center": {"lat": True, "lon": False}},
    {"time": 4, "fill_value": -1},
    {"lat": 3, "min_periods": 2},
    {"time": 3, "lat": 2, "min_periods": 5, "center": True},
    {"time": 300},
]


@pytest.mark.parametrize("dtype", ["f8", "i2", "M8[ns]"])
@pytest.mark.parametrize("how", WINDOWS, ids=str)
def test_windows_of_files_are_read_in_blocks(how, dtype, monkeypatch, runner):
    if dtype == "M8[ns]" and "fill_value" in how:
        how = {**how, "fill_value": np.datetime64("2000-01-01", "ns")}
    cube = make_cube((120, 60, 2), dtype)
    monkeypatch.setattr(file_arrays, "READ_BYTES", cube.nbytes // 6)
    lazy, counted = in_file(cube)

    def func(x):  # rounds otherwise if it is contiguous
        return x.max() if x.dtype.kind == "M" else x.ravel() @ x.ravel() if x.ndim > 1 else x @ x

    got = lazy.par.map_windows(func, **how, **runner)
    assert_alike(got, cube.par.map_windows(func, **how, workers=1))
    if how.get("time") != 300:  # all of it is in each window
        assert sum(counted.read) < 3 * cube.size
    assert not lazy.variable._in_memory


@pytest.mark.parametrize(
    "how", [{"time": 7}, {"lat": 3, "lon": 4, "dim": "time"}, {"lat": 3, "min_periods": 2}], ids=str
)
def test_little_is_kept_of_windows_of_files(how, monkeypatch):
    monkeypatch.setattr(file_arrays, "READ_BYTES", 2**20)
    lazy, counted = in_file(make_cube((200, 60, 70)))
    lazy.par.map_windows(np.max, **how, workers=1)
    assert max(counted.read) < 0.4 * lazy.size
    times = 1 if "min_periods" not in how else 3
    assert sum(counted.read) < (times + 0.1) * lazy.size


def test_windows_of_single_pixels_of_files_are_not_read_for_each_map(monkeypatch):
    monkeypatch.setattr(file_arrays, "READ_BYTES", 2**10)
    lazy, counted = in_file(make_cube((200, 5, 4)))
    lazy.par.map_windows(np.max, time=10, dim=("lat", "lon"), workers=1)
    assert sum(counted.read) == lazy.size


def test_windows_of_files_lie_as_those_in_memory():
    cube = make_cube((30, 6, 5), "f4")
    lazy, _ = in_file(cube)
    seen = []

    def look(x):
        small = [n for n, length in zip(x.strides, x.shape, strict=True) if length > 1]
        seen.append((x.dtype, x.shape, x.flags.c_contiguous, x.flags.writeable, np.argsort(small).tolist()))
        return 0

    for one in (lazy, cube):
        one.par.map_windows(look, time=3, dim="lon", workers=1)
        one.par.map_windows(look, lat=2, workers=1)
        one.par.map_windows(
            lambda x: x.max(-1) if look(x) == 0 else x,
            lat=2,
            vectorized=True,
            chunk=3,
            workers=1,
            output_core_dims=["time", "lon"],
        )
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


def test_labelled_windows_of_files(monkeypatch):
    monkeypatch.setattr(file_arrays, "READ_BYTES", 2**12)
    cube = make_cube((60, 6, 5))
    lazy, counted = in_file(cube)
    how = {"time": 4, "as_xarray": True, "workers": 1}
    assert_alike(
        lazy.par.map_windows(lambda x: x.mean("window"), **how), cube.par.map_windows(lambda x: x.mean("window"), **how)
    )
    assert sum(counted.read) == cube.size
    some = {"errors": "ignore", **how}

    def fails(x):
        return x.mean("window") + boom(x, float(cube[30].max()))

    with pytest.warns(RuntimeWarning, match="of 60 elements"):
        got = lazy.par.map_windows(fails, **some)
    with pytest.warns(RuntimeWarning, match="of 60 elements"):
        assert_alike(got, cube.par.map_windows(fails, **some))


def test_windows_of_datasets_of_files(cube):
    lazy, _ = in_file(cube)
    ds = xr.Dataset({"t2m": cube, "flag": ("lat", [1, 2, 3]), "more": ("time", np.arange(12.0))}, attrs={"title": "w"})
    got = ds.assign(t2m=lazy).par.map_windows(np.sum, time=3, dim="lat", min_periods=2)
    assert_alike(got, ds.par.map_windows(np.sum, time=3, dim="lat", min_periods=2))
    assert_alike(got.more.drop_attrs(), ds.more.drop_attrs())
    both = ds.par.map_windows(np.sum, time=2, lat=2)  # what has one dimension only is left as it is
    assert_alike(both.flag, ds.flag)
    assert not lazy.variable._in_memory


@pytest.mark.parametrize("engine", ["scipy", "netcdf4", "h5netcdf"])
def test_open_dataset(tmp_path, cube, engine, runner):
    pytest.importorskip({"netcdf4": "netCDF4", "h5netcdf": "h5py"}.get(engine, engine))
    cube.encoding = {}
    cube.to_netcdf(tmp_path / "cube.nc", engine=engine)
    with xr.open_dataset(tmp_path / "cube.nc", engine=engine) as ds:
        loaded = ds.t2m.load().copy(deep=True)
    with xr.open_dataset(tmp_path / "cube.nc", engine=engine, cache=False) as ds:
        lazy = ds.t2m
        for dims in ("time", ("lat", "lon")):
            assert_alike(lazy.par.map(np.max, dims, **runner), loop(np.max, loaded, dims=dims))
        got = lazy.par.map(lambda x: x.max("lon"), "time", as_xarray=True, **runner)
        assert_alike(got, loaded.par.map(lambda x: x.max("lon"), "time", as_xarray=True))
        for dims in ("lat", ("lat", "time")):
            got = lazy.par.map(lambda x: x.max("lon"), dims, as_xarray=True, **runner)
            assert_alike(got, loaded.par.map(lambda x: x.max("lon"), dims, as_xarray=True))
        mean = lazy.par.map_groups(lambda x: x.mean("time"), "season", **runner)
        assert_alike(mean, loaded.groupby("season").map(lambda x: x.mean("time")))
        how = {"time": 3, "min_periods": 2, "center": True, **runner}
        assert_alike(lazy.par.map_windows(np.nanmax, **how), loaded.par.map_windows(np.nanmax, **how))
        assert not lazy.variable._in_memory


def test_importing_parwise_leaves_xarray_alone():
    code = (
        "import sys, json, numpy, parwise; parwise.parallel_apply(abs, numpy.ones(3));"
        "print(json.dumps('xarray' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False


def test_data_of_another_kind():
    class Quantity(np.lib.mixins.NDArrayOperatorsMixin):
        shape, dtype, ndim = (3,), np.dtype(float), 1

        def __array_function__(self, *_):
            return NotImplemented

        def __array_ufunc__(self, *_):
            return NotImplemented

        def __getitem__(self, key):
            return self

    with pytest.raises(TypeError, match="Quantity, which would lose what makes it one"):
        xr.DataArray(Quantity(), dims="x").par.map(same, "x")
