"""`.par.map_windows` against xarray's own rolling windows."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import xarray as xr

from ..support.labelled import assert_alike, loop, scale


def test_windows(cube, runner):
    got = cube.par.map_windows(scale, time=3, dim=("lat", "lon"), **runner)
    view = cube.rolling(time=3).construct("window", keep_attrs=True)
    assert_alike(got, loop(scale, view, dims=("time", "lat", "lon"), core=["window"]))


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


@pytest.mark.pairs
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 5, 12, 40])
def test_stride(cube, stride, center, runner):
    view = cube.rolling(time=4, center=center).construct("window", stride=stride, keep_attrs=True)
    got = cube.par.map_windows(scale, time=4, dim=("lat", "lon"), stride=stride, center=center, **runner)
    assert_alike(got, loop(scale, view, dims=("time", "lat", "lon"), core=["window"]))


def test_stride_by_dimension(cube):
    names = {"lat": "lat_window", "time": "time_window"}
    view = cube.rolling(time=3, lat=2).construct(names, stride={"time": 4, "lat": 1}, keep_attrs=True)
    got = cube.par.map_windows(np.max, time=3, lat=2, dim="lon", stride={"time": 4})
    assert_alike(got, loop(np.max, view, dims=("time", "lat", "lon")))
    lazy = cube.chunk(time=5, lat=1).par.map_windows(
        np.max, time=3, lat=2, dim="lon", stride={"time": 4}, output_dtypes=float, output_core_dims=[]
    )
    assert_alike(lazy.compute(), got)


@pytest.mark.parametrize("dim", [None, ("lat", "lon")])
def test_stride_with_min_periods(cube, dim):
    cube = cube.where(cube > np.quantile(cube, 0.3))
    how = {"time": 3, "dim": dim, "min_periods": 2}
    want = cube.par.map_windows(np.nansum, **how).isel(time=slice(None, None, 5))
    assert_alike(cube.par.map_windows(np.nansum, **how, stride=5), want)


def test_stride_with_min_periods_where_there_are_no_labels(cube):
    how = {"lon": 2, "dim": "time", "min_periods": 2}
    want = cube.par.map_windows(np.nansum, **how).isel(lon=slice(None, None, 3))
    assert_alike(cube.par.map_windows(np.nansum, **how, stride=3), want)


def test_stride_of_datasets(cube):
    ds = cube.to_dataset().assign(flag=("lat", [1, 2, 3]), more=("time", np.arange(12.0)))
    want = ds.par.map_windows(np.sum, time=3, dim="lat").isel(time=slice(None, None, 5))
    got = ds.par.map_windows(np.sum, time=3, dim="lat", stride=5)
    assert_alike(got, want)
    assert_alike(got.more, ds.more.isel(time=slice(None, None, 5)))


@pytest.mark.parametrize(
    ("stride", "error", "text"),
    [
        (0, ValueError, "stride must be at least 1, got 0"),
        (1.5, TypeError, "stride must be an int"),
        ({"lat": 2}, ValueError, "stride has a value for 'lat'; there are windows along 'time'"),
        ({"time": 0}, ValueError, "the stride along 'time' must be at least 1, got 0"),
    ],
)
def test_bad_stride(cube, stride, error, text):
    with pytest.raises(error, match=text):
        cube.par.map_windows(np.sum, time=3, stride=stride)


def test_windows_over_two_dimensions(cube):
    got = cube.par.map_windows(np.nanmean, lat=2, lon=3, dim="time", min_periods=1)
    view = cube.rolling(lat=2, lon=3).construct(lat="lat_window", lon="lon_window", keep_attrs=True)
    assert_alike(got, loop(np.nanmean, view, dims=("lat", "lon", "time")))


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


@pytest.mark.pairs
@pytest.mark.parametrize("where", ["memory", "dask", "file", "dataset"])
@pytest.mark.parametrize("how", [{}, {"min_periods": 1}, {"stride": 2}, {"fill_value": 0}, {"center": True}], ids=str)
@pytest.mark.parametrize("windows", [{"t": 3}, {"x": 2}, {"t": 3, "x": 2}], ids=str)
def test_no_windows(tmp_path, where, how, windows):
    """The loop makes an empty list of them; `construct` of xarray raises."""
    array = xr.DataArray(np.zeros((0, 4), "i4"), dims=("t", "x"), coords={"t": range(0), "x": range(4)}, name="v")
    core = [dim for dim in array.dims if dim not in windows]
    every = {dim: slice(None, None, how.get("stride", 1)) for dim in windows}
    want = array.astype(float)[every].drop_vars("t").rename(None)
    func = partial(np.mean, axis=-1) if core else np.mean
    given = {"output_core_dims": core, "output_dtypes": float, **how}
    if where == "file":
        array.to_netcdf(tmp_path / "empty.nc")
        with xr.open_dataset(tmp_path / "empty.nc") as ds:
            got = ds["v"].par.map_windows(func, windows, **given)
    elif where == "dataset":
        got = array.to_dataset().par.map_windows(func, windows, **given)["v"]
    else:
        got = (array.chunk() if where == "dask" else array).par.map_windows(func, windows, **given)
        assert isinstance(got.data, np.ndarray) == (where == "memory")
    xr.testing.assert_identical(got.compute().drop_vars("t").rename(None), want)
