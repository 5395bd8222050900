"""Arrays in files: blocks are read ahead, each about once, with the bits of those in memory."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr
from xarray.core import indexing

from parwise._xarray import file_arrays

from ..support.labelled import Counted, assert_alike, boom, in_file, loop, make_cube


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
    ahead = file_arrays.VariableReader(lazy.variable, ["x"])
    for lo in (0, 20, 22, 0, 28):
        assert ahead.read((slice(lo, lo + 3),)).tolist() == [lo, lo + 1, lo + 2]
    # What lies between 10 and 20 may be wanted by another thread; of 22:32 one was known; the first is kept.
    assert counted.read == [10, 13, 9]
    again = pickle.loads(pickle.dumps(file_arrays.VariableReader(lazy.variable.copy(data=np.arange(100.0)), ["x"])))
    assert again.read((slice(4, 6),)).tolist() == [4.0, 5.0]


WINDOWS = [
    {"time": 7},
    {"time": 7, "dim": ("lat", "lon"), "center": True},
    {"lat": 3, "lon": 4, "dim": "time", "center": {"lat": True, "lon": False}},
    {"time": 4, "fill_value": -1},
    {"time": 4, "stride": 3},
    {"time": 3, "lat": 4, "stride": {"lat": 7}, "center": True, "dim": "lon"},
    {"time": 5, "stride": 2, "min_periods": 3},
    {"lat": 3, "min_periods": 2},
    {"time": 3, "lat": 2, "min_periods": 5, "center": True},
    {"time": 300},
]


@pytest.mark.pairs
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
        one.par.map_windows(look, lat=2, stride=3, workers=1)
        one.par.map_windows(
            lambda x: x.max(-1) if look(x) == 0 else x,
            lat=2,
            vectorized=True,
            chunk=3,
            workers=1,
            output_core_dims=["time", "lon"],
        )
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


def test_windows_with_a_stride_lie_as_those_in_memory():
    cube = make_cube((30, 6, 5), "f4")
    lazy, _ = in_file(cube)
    seen = []
    for one in (lazy, cube):
        one.par.map_windows(
            lambda x: (seen.append(x.strides), x.max(-1))[1],
            lat=2,
            stride=3,
            vectorized=True,
            chunk=2,
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
    if engine == "scipy" and xr.__version__ < "2025.7":
        pytest.skip("isel(x=[0, 3]) of strings raises in xarray itself (ScipyArrayWrapper has no oindex)")
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


class Unpacked(Counted):
    """Declares integers and reads floats."""

    def _get(self, key):
        return super()._get(key) * 0.5 + 0.25


@pytest.mark.parametrize("how", [{}, {"vectorized": True}])
def test_what_is_read_of_a_file_decides_about_the_dtype(how, runner):
    raw = make_cube((20, 6, 7)).astype("i2")
    variable = xr.Variable(raw.dims, indexing.LazilyIndexedArray(Unpacked(raw.data)), raw.attrs)
    lazy = xr.DataArray(variable, raw.coords, name=raw.name)
    loaded = raw.copy(data=raw.data * 0.5 + 0.25)
    assert_alike(lazy.par.map(np.sort, "time", **how, **runner), loaded.par.map(np.sort, "time", **how, workers=1))
    if not how:
        got = lazy.par.map_windows(np.sum, time=3, dim=("lat", "lon"), **runner)
        assert_alike(got, loaded.par.map_windows(np.sum, time=3, dim=("lat", "lon"), workers=1))


@pytest.mark.parametrize("dims", ["time", "lat", ("lat", "lon")])
def test_chunks_of_files_are_read_once(dims, tmp_path, monkeypatch):
    monkeypatch.setattr(file_arrays, "READ_BYTES", 5 * 6 * 7 * 8)
    cube = make_cube((20, 6, 7)).drop_attrs(deep=False)
    cube.encoding = {"chunksizes": (8, 6, 7)}
    cube.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    regions, load = [], file_arrays.VariableReader._load

    def counting_load(self, region):
        regions.append((region[0].start, region[0].stop))
        return load(self, region)

    monkeypatch.setattr(file_arrays.VariableReader, "_load", counting_load)
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as dataset:
        got = dataset.t2m.par.map(np.max, dims, workers=2, isolate=True)
    assert_alike(got.drop_attrs(), cube.par.map(np.max, dims, workers=1).drop_attrs())
    if dims == "time":
        starts, stops = zip(*regions, strict=True)
        assert (starts[0], starts[1:], stops[-1]) == (0, stops[:-1], 20)
        assert set(starts) <= {0, 8, 16}
