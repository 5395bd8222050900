"""Dimensions, coordinates and variables whose names stand for something else too."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from parwise import Options
from parwise.xarray import How

from ..support.labelled import assert_alike, counting

WORDS = sorted({*How.__annotations__, *Options.__annotations__, "dim", "min_periods", "center", "fill_value"})


def profile(dim):
    return xr.DataArray(np.arange(20.0).reshape(4, 5) ** 2, dims=(dim, "x"), name="a")


@pytest.mark.parametrize("name", WORDS)
def test_windows_along_a_dimension_named_like_an_argument_need_a_dict(name):
    array = profile(name)
    for obj in array, array.to_dataset():
        with pytest.raises(TypeError, match=rf"{name}=3 is an argument of map_windows.*\(func, {{'{name}': 3}}\)"):
            obj.par.map_windows(counting, **{name: 3})
        with pytest.raises(TypeError, match=f"{name}=3 is an argument"):
            obj.par.map_windows(counting, x=2, **{name: 3})
    got = array.par.map_windows(np.median, {name: 3}, dim="x")
    assert_alike(got, profile("d").par.map_windows(np.median, d=3, dim="x").rename(d=name))


@pytest.mark.parametrize("name", ["func", "self", "obj", "time", "axis"])
def test_windows_along_a_dimension_with_another_name(name):
    got = profile(name).par.map_windows(np.median, **{name: 3})
    assert_alike(got, profile(name).par.map_windows(np.median, {name: 3}))


def test_arguments_beside_a_dict_of_windows_are_arguments():
    array = profile("workers")
    assert_alike(
        array.par.map_windows(np.median, {"workers": 2}, workers=1), array.par.map_windows(np.median, {"workers": 2})
    )


def test_windows_of_an_array_that_has_a_dimension_for_windows():
    for array in profile("window"), profile("d").assign_coords(window=2.0):
        with pytest.raises(ValueError, match="dimension 'window', which the array has already"):
            array.par.map_windows(counting, x=2)
    with pytest.raises(TypeError, match="center must be a bool, or a dict"):
        profile("d").par.map_windows(counting, x=2, center=1)


COORDS = {"scalar": ((), 2.0), "along": ("x", [1, 2, 3, 4, 5])}


@pytest.mark.parametrize("coord", COORDS)
@pytest.mark.parametrize("others", [0, 1])
def test_a_new_dimension_takes_the_name_of_a_coordinate(coord, others, tmp_path):
    array = profile("x2").transpose().assign_coords(q=COORDS[coord], x=np.arange(5), height=1.0)
    got = array.par.map(lambda one, *_: one[:2], "x", *[array] * others, output_core_dims=["q"])
    assert (got.dims, set(got.coords)) == (("x", "q"), {"x", "height"})
    got.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    whole = array.to_dataset().par.map(lambda one: one[:2], "x", output_core_dims=["q"])
    assert_alike(whole.a, got.drop_vars([]) if not others else whole.a)
    whole.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    lazy = array.chunk(x=2).par.map(
        lambda one: one[:2], "x", output_core_dims=["q"], output_dtypes=float, output_sizes={"q": 2}
    )
    assert set(lazy.coords) == {"x", "height"}


def test_a_new_dimension_of_lazy_groups_takes_the_name_of_a_coordinate(tmp_path):
    array = profile("x2").transpose().assign_coords(q=2.0, k=("x", [0, 0, 1, 1, 1]))
    array = array.copy(data=array.chunk().data)

    def func(x):
        return x.isel(x=0, x2=slice(2)).drop_vars("q").rename(x2="q")

    how = {"output_core_dims": ["q"], "output_sizes": {"q": 2}, "output_dtypes": float}
    got = array.par.map_groups(func, "k", **how)
    assert set(got.coords) == {"k"}
    got.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")


def test_a_new_dimension_with_the_name_of_a_variable_is_refused():
    dataset = xr.Dataset({"a": profile("y"), "b": ("x", np.zeros(5))})
    for name in "a", "b":
        with pytest.raises(ValueError, match=f"new dimension '{name}', but the dataset has a variable of that name"):
            dataset.par.map(counting, "x", output_core_dims=[name])
    got = dataset.par.map(lambda one: one[:2], "y", output_core_dims=["b"], on_missing_dim="drop")
    assert got.a.dims == ("y", "b")


# Encoding.


def test_packed_arrays_are_mapped_to_values_that_can_be_written(tmp_path):
    array = xr.DataArray(np.arange(12.0).reshape(4, 3), {"x": np.arange(4)}, ("x", "y"), name="a")
    array.encoding = {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -9, "chunksizes": (2, 3), "units": "days"}
    maps = {
        "map": lambda obj: obj.par.map(lambda one: one * 1e5 + 0.123, "x"),
        "windows": lambda obj: obj.par.map_windows(lambda one: one * 1e5 + 0.123, x=1, output_core_dims=["y", "w"]),
        "groups": lambda obj: obj.par.map_groups(lambda one: one * 1e5 + 0.123, "x"),
        "lazy": lambda obj: obj.chunk(x=2).par.map(
            lambda one: one * 1e5 + 0.123, "x", output_core_dims=["y"], output_dtypes=float
        ),
        "labelled": lambda obj: obj.par.map(lambda one: one * 1e5 + 0.123, "x", as_xarray=True),
    }
    for name, func in maps.items():
        for obj in array, array.to_dataset():
            got = func(array if name == "labelled" else obj)
            path = tmp_path / f"{name}{type(obj).__name__}"
            whole = got if isinstance(got, xr.Dataset) else got.to_dataset()
            whole.to_netcdf(path, engine="h5netcdf")
            with xr.open_dataset(path, engine="h5netcdf") as back:
                np.testing.assert_array_equal(back.a.to_numpy(), whole.a.to_numpy())


def test_strings_lose_the_compression_of_numbers(tmp_path):
    array = xr.DataArray(np.arange(4.0), dims="x", name="a")
    array.encoding = {"zlib": True, "grid_mapping": "crs", "dtype": "f4"}
    assert array.par.map(np.sqrt, "x").encoding == {"zlib": True, "grid_mapping": "crs"}
    got = array.par.map(str, "x")
    assert got.encoding == {"grid_mapping": "crs"}
    got.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")


def test_datasets_keep_of_their_encoding_the_unlimited_dimensions_that_are_left():
    dataset = xr.Dataset({"a": profile("t")})
    dataset.encoding = {"unlimited_dims": {"t", "x"}, "source": "a.nc"}
    assert dataset.par.map(np.sum, "t").encoding == {"unlimited_dims": {"t"}}
    dataset.encoding = {"source": "a.nc"}
    assert dataset.par.map(np.sum, "t").encoding == {}
