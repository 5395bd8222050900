"""`.par.map` of a `Dataset` and of a `DataTree`, variable by variable."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr

from ..support.labelled import assert_alike, boom, ends, loop, notes_of, slope
from ..support.oracle import assert_same


class Ends(NamedTuple):
    low: object
    high: object

    @classmethod
    def of(cls, x):
        return cls(*ends(x))


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


def test_trees_of_tuples_with_nodes_in_which_nothing_is_mapped(cube):
    ds = cube.to_dataset()
    flag = xr.Dataset({"flag": ("z", [1, 2])}, attrs={"title": "flags"})
    tree = xr.DataTree.from_dict({"/c": ds, "/c/fine": ds * 2, "/apart": flag}, name="root")
    got = tree.par.map(Ends.of, "time")
    assert isinstance(got, Ends)
    for number, one in enumerate(got):
        assert one.name == "root"
        assert [node.path for node in one.subtree] == [node.path for node in tree.subtree]
        assert_alike(one["c"].to_dataset(), ds.par.map(ends, "time")[number])
        assert_alike(one["c/fine"].to_dataset(inherit=True), (ds * 2).par.map(ends, "time")[number])
        assert_alike(one["apart"].to_dataset(), flag)
    nested = xr.DataTree.from_dict({"/": ds, "/c": flag}).par.map(ends, "time")
    assert_alike(nested[1].to_dataset(), ds.par.map(ends, "time")[1])


def test_trees_of_different_numbers_of_results(cube):
    tree = xr.DataTree.from_dict({"/a": cube.to_dataset(), "/b": cube.isel(lat=[0]).to_dataset()})
    for func in (lambda x: (x.min(),) * (1 + len(x)), lambda x: ends(x) if len(x) > 1 else x.min()):
        with pytest.raises(ValueError, match="different numbers of results for different nodes"):
            tree.par.map(func, "time")

    def fail(x):
        return ends(x) if len(x) > 1 else boom(x, x.max())

    with pytest.warns(RuntimeWarning):
        got = tree.par.map(fail, "time", errors="ignore")
    assert got[1]["b/t2m"].isnull().all()
    assert_alike(got[1]["a"].to_dataset(), cube.to_dataset().par.map(ends, "time")[1])


def test_unlimited_dimensions_stay(cube):
    ds = cube.to_dataset()
    ds.encoding["unlimited_dims"] = {"time"}
    tree = xr.DataTree.from_dict({"/c": ds})
    for got in (
        ds.par.map(np.max, "time"),
        ds.par.map_windows(np.max, time=2, dim=("lat", "lon")),
        tree.par.map(np.max, "time")["c"],
        tree.par.map(ends, "time")[1]["c"],
    ):
        assert got.encoding == {"unlimited_dims": {"time"}}
    assert tree.par.map(np.max, "lat")["c"].encoding == {}
