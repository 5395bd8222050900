"""`.par.map_groups`: what results are told to be, in memory as in Dask's blocks; and groups of other data."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from ..support.labelled import assert_alike, notes_of
from .test_labelled_functions import WAYS


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def in_dask(array):
    return array.copy(data=array.chunk().data)


def mean(x):
    return x.mean("time")


def test_dtypes(cube, way):
    got = cube.par.map_groups(mean, "season", output_dtypes="f4", **way)
    assert_alike(got, cube.groupby("season").map(lambda x: mean(x).astype("f4")))
    dims = ["lat", "lon"]
    lazy = in_dask(cube).par.map_groups(mean, "season", output_dtypes="f4", output_core_dims=dims)
    assert got.dtype == lazy.dtype
    np.testing.assert_array_equal(got, lazy)


def test_dtypes_of_plain_arrays(cube, way):
    got = cube.par.map_groups(lambda x: x.to_numpy() * 2, "season", output_dtypes="f4", **way)
    assert_alike(got, cube.groupby("season").map(lambda x: (x.to_numpy() * 2).astype("f4")))


def test_dtypes_of_datasets(cube, way):
    ds = cube.to_dataset().assign(flag=("time", np.arange(12), {"long_name": "flag"}))
    every = ds.par.map_groups(mean, "season", output_dtypes="f4", **way)
    assert_alike(every, ds.groupby("season").map(lambda x: mean(x).astype("f4")))
    one = ds.par.map_groups(lambda x: x * 2, "season", output_dtypes={"flag": "f4"}, **way)
    assert_alike(one, ds.groupby("season").map(lambda x: (x * 2).assign(flag=(x.flag * 2).astype("f4"))))
    how = {"output_dtypes": {"flag": "f4"}, "output_core_dims": ["time"]}  # of the variables that are told
    assert_alike(ds.par.map_groups(lambda x: x * 2, "season", **how, **way), one)


def some(x):
    if (x.season == "b").all():
        raise ValueError
    return mean(x)


def test_dtypes_of_gaps(cube, way):
    with pytest.warns(RuntimeWarning):
        got = cube.par.map_groups(some, "season", output_dtypes="f4", errors="ignore", **way)
    want = cube.groupby("season").map(lambda x: mean(x).astype("f4"))
    assert_alike(got, want.where(want.season != "b"))
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(ValueError, match="dtype int64 has no value for a gap, as errors='ignore' needs one"),
    ):
        cube.astype(int).par.map_groups(
            lambda x: some(x).astype(int), "season", output_dtypes=int, errors="ignore", **way
        )


UNLIKE = [
    ({"output_dtypes": "i4"}, TypeError, "output_dtypes says int32, but func returned results of dtype float64"),
    ({"output_core_dims": ["lat"]}, ValueError, "names 1 dimension.s., 'lat', but func returns .* 'lat', 'lon'"),
    ({"output_sizes": {"lat": 5}}, ValueError, "output_sizes says 5 for 'lat', but func returns"),
    ({"output_dtypes": {"t2m": "f4"}}, TypeError, "a Dataset with variables 't2m', but it returned DataArray"),
]


@pytest.mark.parametrize(("how", "error", "words"), UNLIKE)
def test_results_unlike_what_was_told(cube, how, error, words):
    with pytest.raises(error, match=words) as info:
        cube.par.map_groups(mean, "season", **how)
    assert "in group 0 along dimension 'season', season=a" in notes_of(info)


def test_datasets_unlike_what_was_told(cube):
    ds = cube.to_dataset()
    for how, words in [
        ({"output_dtypes": {"other": "f4"}}, "Dataset with variables 'other', but it returned one with 't2m'"),
        ({"output_core_dims": {"t2m": ["lat"]}}, "names 1 dimension.s., 'lat', but func returns"),
        ({"output_sizes": {"lon": 3}}, "output_sizes says 3 for 'lon'"),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            ds.par.map_groups(mean, "season", **how)


# Whose groups they are.


def never(*_):
    raise AssertionError("called")


def test_groups_of_other_data(cube):
    ds = cube.to_dataset()
    others = {
        "values": ((cube * 100), cube),
        "dtype": (cube.astype("f4").astype("f8"), cube.astype("f4")),
        "attributes": (cube, cube.assign_attrs(units="C")),
        "Dataset": (cube, ds),
        "Dask": (in_dask(cube), in_dask(cube) * 2),
    }
    for array, other in others.values():
        with pytest.raises(ValueError, match="the groups are of another (DataArray|Dataset) than the DataArray"):
            array.par.map_groups(never, other.groupby("season"))
    with pytest.raises(ValueError, match="of another DataArray"):
        cube.par.map_groups(never, (cube * 2).resample(time="5D"))


def test_groups_of_the_same_data(cube):
    ds = cube.to_dataset()
    want = cube.groupby("season").map(mean)
    assert_alike(ds["t2m"].par.map_groups(mean, ds["t2m"].groupby("season")), want)
    assert_alike(cube.par.map_groups(mean, cube.copy(deep=True).groupby("season")), want)
    assert_alike(ds.par.map_groups(mean, ds.copy().groupby("season")), ds.groupby("season").map(mean))
    lazy = xr.Dataset({"t2m": in_dask(cube)})
    got = lazy["t2m"].par.map_groups(
        mean, lazy["t2m"].groupby("season"), output_dtypes="f8", output_core_dims=["lat", "lon"]
    )
    np.testing.assert_array_equal(got, want)
