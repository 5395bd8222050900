"""`.par.map(as_xarray=True)`: functions that change labels, beside `xarray.concat` of their results."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from ..support.labelled import assert_alike
from ..support.oracle import assert_same

WAYS = {
    "serial": {"executor": "serial"},
    "tried first": {"workers": 2},
    "isolated": {"workers": 2, "isolate": True},
}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def concat(func, array, dim, keep_attrs="override"):
    every = [func(array.isel({dim: i}).copy(deep=True)) for i in range(array.sizes[dim])]
    return xr.concat(every, dim, coords="different", compat="equals", join="exact", combine_attrs=keep_attrs)


# A coordinate that the function changes, in place or not.


def wrap(x):
    x["lon"] = (x.lon + 180) % 360 - 180
    return x


def peak(x):
    x["peak"] = float(x.max())
    return x.mean("lat")


def overwrite(x):
    x["height"] = float(x.max())
    return x.mean("lat")


def later(x):
    x.coords["time"] = x.time + np.timedelta64(1, "D")
    return x


def unit(x):
    x["lat"].attrs["units"] = "rad"
    return x


def fill(x):
    x.coords["area"][0, 0] = 99
    return x


def drop(x):
    del x.coords["season"]
    return x


CHANGES = {
    "wrapped": wrap,
    "new": peak,
    "overwritten": overwrite,
    "own label": later,
    "attributes": unit,
    "values in place": fill,
    "dropped": drop,
    "dtype of an index": lambda x: x.assign_coords(lat=x.lat.astype("f4")),
    "dtype of a scalar": lambda x: x.assign_coords(height=x.height.astype("f4")),
    "dtype of its label": lambda x: x.assign_coords(time=x.time.astype("i8")),
    "sign of zero": lambda x: x.assign_coords(zero=-x.zero),
    "type of an attribute": lambda x: x.assign_coords(lat=x.lat.assign_attrs(scale=np.float32(2))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_coordinates(cube, way, name):
    cube = cube.assign_coords(zero=0.0, lon=[0, 90, 180, 270])
    cube.lat.attrs["scale"] = 2.0
    want = concat(CHANGES[name], cube, "time")
    got = cube.par.map(CHANGES[name], "time", as_xarray=True, **way)
    assert_alike(got, want)
    assert {n: list(map(type, one.attrs.values())) for n, one in got.coords.items()} == {
        n: list(map(type, one.attrs.values())) for n, one in want.coords.items()
    }


def test_no_element_sees_what_another_did_to_labels(cube, way):
    def count(x):
        x.lat.attrs["calls"] = x.lat.attrs.get("calls", 0) + 1
        x.coords["area"][0, 0] += 1
        return xr.DataArray([x.lat.attrs["calls"], int(x.area[0, 0])], dims="k")

    got = cube.par.map(count, "time", as_xarray=True, **way)
    assert got.to_numpy().tolist() == [[1, 1]] * 12
    blocks = cube.par.map(lambda x: count(x).expand_dims(time=1), "time", vectorized=True, chunk=1, as_xarray=True)
    assert blocks.to_numpy().tolist() == [[1, 1]] * 12
    assert "calls" not in cube.lat.attrs
    assert int(cube.area[0, 0]) == 0


@pytest.mark.parametrize("kind", ["categories", "dates with a zone", "integers with gaps"])
def test_coordinates_of_pandas_types(way, kind):
    labels = {
        "categories": pd.Categorical(list("aba")),
        "dates with a zone": pd.date_range("2000", periods=3, tz="UTC"),
        "integers with gaps": pd.array([1, None, 3], dtype="Int64"),
    }[kind]
    array = xr.DataArray(np.arange(6.0).reshape(3, 2), {"label": ("time", labels)}, ("time", "k"))
    for dim in ("time", "k"):
        got = array.par.map(lambda x: x * 2, dim, as_xarray=True, **way)
        assert_same(got.to_numpy(), array.to_numpy() * 2)
        assert got.label.variable.dtype == array.label.variable.dtype
        assert got.label.variable.equals(array.label.variable)


# Data as it is.

OBJECTS = {
    "None": [["a", None], ["b", "c"]],
    "dates": [[datetime.datetime(2000, 1, 1), datetime.datetime(2000, 1, 2)], ["a", None]],
    "spans": [[datetime.timedelta(1), None], ["x", 2]],
    "timestamps": [[pd.Timestamp("2000"), pd.NaT], [1, 2]],
}


def shown(x):
    text = np.empty((), object)
    text[()] = repr((x.dtype.str, x.to_numpy().tolist()))
    return xr.DataArray(xr.Variable((), text, fastpath=True))


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_stay_what_they_are(way, name):
    data = np.empty((2, 2), object)
    data[:] = OBJECTS[name]
    array = xr.DataArray(xr.Variable(("t", "k"), data, fastpath=True), {"g": ("t", [0, 1])})
    assert_alike(array.par.map(shown, "t", as_xarray=True, **way), concat(shown, array, "t"))
    assert_alike(array.par.map(lambda x: x, "t", as_xarray=True, **way), concat(lambda x: x, array, "t"))
    assert_alike(array.par.map_groups(shown, "g", **way), array.groupby("g").map(shown))
    dataset = array.to_dataset(name="a")
    assert_alike(
        dataset.par.map_groups(lambda x: x.map(shown), "g", **way), dataset.groupby("g").map(lambda x: x.map(shown))
    )


def test_results_that_are_objects(way):
    """Of a function of arrays: xarray converts them."""
    array = xr.DataArray(np.arange(2), dims="t")

    def day(x):
        return datetime.datetime(2000, 1, 1 + int(x))

    assert_alike(array.par.map(day, "t", **way), xr.apply_ufunc(day, array, vectorize=True))


def test_dates_keep_their_layout(way):
    array = xr.DataArray(np.zeros((3, 4, 2), "M8[ns]"), dims=("a", "b", "c"))

    def strides(x):
        return xr.DataArray(list(x.data.strides), dims="k")

    got = array.par.map(strides, "c", as_xarray=True, **way)
    assert got.to_numpy().tolist() == [list(array.isel(c=0).data.strides)] * 2


# A multi-index along the mapped dimension.

LEVELS = {
    "same": lambda x: x.assign_attrs(v=1),
    "one changed": lambda x: x.assign_coords(t=x.t + 100),
    "one the same for all": lambda x: x.assign_coords(t=7),
    "one of another dtype": lambda x: x.assign_coords(t=x.t.astype("f8")),
    "more beside it": lambda x: x.assign_coords(more=x.sum()),
    "one the same in the array": lambda x: x.assign_coords(more=x.sum()),
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels_of_a_multi_index(cube, name):
    t = [1, 1, 1] if name == "one the same in the array" else [3, 1, 2]
    array = cube.drop_vars(["season", "area", "hours"]).isel(time=slice(3)).assign_coords(t=("time", t))
    array = array.swap_dims(time="t").drop_vars("time").isel(lon=slice(2)).transpose("lon", "t", "lat")
    array = array.stack(p=("t", "lat")) if len(set(t)) > 1 else array.isel(t=[0]).stack(p=("t", "lat"))
    want = concat(LEVELS[name], array, "p").transpose("lon", "p")
    got = array.par.map(LEVELS[name], "p", as_xarray=True)
    for level in ("t", "lat"):
        values = want[level].broadcast_like(want["p"]) if not want[level].dims else want[level]
        mine = got[level].broadcast_like(got["p"]) if not got[level].dims else got[level]
        assert_same(mine.to_numpy(), values.to_numpy())
    kept = name in ("same", "more beside it", "one the same in the array")
    assert isinstance(got.indexes["p"], pd.MultiIndex) == (kept or isinstance(want.indexes["p"], pd.MultiIndex))
    if kept:
        assert got.indexes["p"].equals(array.indexes["p"])


def test_a_multi_index_whose_dimension_is_changed(cube):
    array = cube.drop_vars(["area", "hours"]).stack(p=("time", "lat"))
    got = array.par.map(lambda x: x.assign_coords(p=7), "p", as_xarray=True)
    assert got.p.to_numpy().tolist() == [7] * 36


# What results are told to be.


def test_told_dtypes(cube, way):
    got = cube.par.map(lambda x: x.mean("lon"), "time", as_xarray=True, output_dtypes="f4", **way)
    assert_alike(got, concat(lambda x: x.mean("lon"), cube, "time").astype("f4"))
    low, high = cube.par.map(
        lambda x: (x.min(), x.max("lat").astype("f4")),
        "time",
        as_xarray=True,
        output_dtypes=["f4", "f8"],
        output_core_dims=[[], ["lon"]],
        **way,
    )
    assert_alike(low, concat(lambda x: x.min(), cube, "time").astype("f4"))
    assert_alike(high, concat(lambda x: x.max("lat").astype("f4"), cube, "time").astype("f8"))


def test_told_dtypes_with_gaps(cube):
    def some(x):
        if x.time == cube.time[1]:
            raise ValueError
        return x.mean("lon")

    with pytest.warns(RuntimeWarning, match="no result"):
        got = cube.par.map(some, "time", as_xarray=True, output_dtypes="f4", errors="ignore")
    assert_same(got.isel(time=0).to_numpy(), cube.isel(time=0).mean("lon").astype("f4").to_numpy())
    assert got.dtype == "f4"
    assert got.isel(time=1).isnull().all()


def test_dimensions_in_the_order_that_was_told(cube):
    def func(x):
        return x.max(("lat", "lon")).expand_dims(b=2, a=3)

    lazy = cube.chunk(time=3).par.map(
        func, "time", as_xarray=True, output_core_dims=["a", "b"], output_sizes={"a": 3, "b": 2}, output_dtypes="f8"
    )
    got = cube.par.map(func, "time", as_xarray=True, output_core_dims=["a", "b"])
    assert got.dims == ("time", "a", "b")
    assert_same(got.to_numpy(), lazy.to_numpy())


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"output_dtypes": "i4"}, TypeError, "output_dtypes says int32, but func returned results of dtype float64"),
        ({"output_core_dims": []}, ValueError, "names 0 dimension.s., none, but func returns .* 'lat'"),
        ({"output_core_dims": ["lon"]}, ValueError, "names 1 dimension.s., 'lon', but func returns .* 'lat'"),
        ({"output_sizes": {"lat": 5}}, ValueError, "output_sizes says 5 for 'lat', but func returns .* shape .3,."),
        ({"output_dtypes": ["f4", "f4"]}, ValueError, "2 dtype.s., but func returns 1"),
    ],
)
def test_results_unlike_what_was_told(cube, how, error, words):
    with pytest.raises(error, match=words):
        cube.par.map(lambda x: x.mean("lon"), "time", as_xarray=True, **how)


# Attributes.


@pytest.mark.parametrize("keep_attrs", ["identical", "no_conflicts"])
def test_attributes_that_differ(cube, keep_attrs):
    with pytest.raises(ValueError, match="return the same attributes for all elements, or pass another keep_attrs"):
        cube.par.map(lambda x: x.assign_attrs(a=float(x.max())), "time", as_xarray=True, keep_attrs=keep_attrs)


@pytest.mark.parametrize("keep_attrs", [False, "drop"])
def test_attributes_of_coordinates_are_dropped_as_by_concat(cube, keep_attrs):
    got = cube.par.map(lambda x: x * 2, "time", as_xarray=True, keep_attrs=keep_attrs)
    assert_alike(got, concat(lambda x: x * 2, cube, "time", "drop"))


@pytest.mark.parametrize("dtype", [None, float, object])
def test_no_elements(cube, dtype):
    """Results of objects are not told from boxes by their dtype; a block function gets its one block, an empty one."""
    empty, kept = cube.isel(time=slice(0, 0)), []
    told = {} if dtype is None else {"output_dtypes": dtype}
    got = empty.par.map(lambda x: x.copy(), "time", as_xarray=True, output_core_dims=["lat", "lon"], **told)
    assert (got.dims, got.shape, got.dtype) == (cube.dims, (0, 3, 4), dtype or float)
    got = empty.par.map(
        lambda x: (kept.append(x), x)[1], "time", vectorized=True, as_xarray=True, executor="serial", **told
    )
    assert_alike(kept[0], empty)
    assert_alike(got, empty.astype(dtype or float))
