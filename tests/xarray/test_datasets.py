"""`.par.map` of a `Dataset` and of a `DataTree`, variable by variable."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from ..support.labelled import assert_alike, boom, ends, loop, notes_of, slope
from ..support.oracle import assert_same


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
