"""`.par.map` of a `DataArray` against xarray's own loops: each executor, any shape, order and type."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from parwise import parallel_apply, plan

from ..support.examples import examples
from ..support.labelled import (
    assert_alike,
    boom,
    ends,
    labelled,
    loop,
    make_cube,
    notes_of,
    pair,
    quantiles,
    same,
    scale,
    slope,
)
from ..support.oracle import assert_same

# Elements, slices and blocks, with each executor.


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


def test_blocks(cube, runner):
    def smooth(x):
        padded = np.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
        return padded[:, :-2] + padded[:, 2:]

    big = make_cube((2, 300, 40))
    got = big.par.map(smooth, "lat", vectorized=True, chunk=50, depth=1, **runner)
    assert_alike(got, big.copy(data=parallel_apply(smooth, big.data, axis=1, vectorized=True, chunk=50, depth=1)))
    assert_same(got.data, smooth(big.data))


def first(x):
    return x.flat[0] if isinstance(x, np.ndarray) else x


def native(array):
    """Return the array in native byte order; NumPy keeps a foreign one where there is one element only."""
    return array.astype(array.dtype.newbyteorder("="))


@given(labelled(), st.booleans())
@examples(60)
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
@examples(25)
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
@examples(30)
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
    assert got.encoding == {"zlib": True}
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
