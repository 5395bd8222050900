"""`out=path`: labels that no store can have, or that xarray reads as something else."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import xarray as xr

from ..conftest import made
from ..support.labelled import assert_alike, make_cube

SUM = {"output_dtypes": "f8", "output_core_dims": []}


@pytest.fixture(autouse=True)
def _threads_of_zarr_stay():
    made.append("zarr")
    yield
    gc.collect()


def never(*_):
    raise AssertionError("called")


def test_nothing_is_left_of_a_store_that_could_not_be_made(tmp_path):
    cube = make_cube().drop_vars("season")
    path = tmp_path / "store.zarr"
    stacked = cube.drop_vars("area").stack(p=("time", "lat"))
    with pytest.raises((NotImplementedError, ValueError)):  # by the version of xarray
        stacked.par.map(never, "p", out=path, **SUM)
    assert os.listdir(tmp_path) == []
    mixed = cube.assign_coords(o=("time", np.array([{1: 2}, *"abcdefghijk"], object)))
    with pytest.raises(ValueError, match="mixed native types"):
        mixed.par.map(never, "time", out=path, resume=tmp_path / "journal", **SUM)
    assert os.listdir(tmp_path) == []
    assert_alike(
        cube.par.map(np.sum, "time", out=path, **SUM).load().drop_encoding(),
        cube.par.map(np.sum, "time").drop_encoding(),
    )


DECODED = [
    {"scale_factor": 0.1},
    {"add_offset": 3.0},
    {"_FillValue": 6.0},
    {"missing_value": 6.0},
    {"units": "days since 2000-01-01"},
    {"units": "months since the flood"},
    {"coordinates": "lat"},
    {"dtype": "bool"},
]


@pytest.mark.parametrize("attrs", DECODED)
def test_attributes_that_are_decoded_are_refused(tmp_path, attrs):
    (name,) = attrs
    cube = make_cube().drop_vars("season")
    for array, owner in [
        (cube.assign_attrs(attrs), "t2m"),
        (cube.assign_coords(n=("time", np.arange(12.0), attrs)), "n"),
    ]:
        with pytest.raises(ValueError, match=f"decode values of '{owner}' by its attribute.s. .*'{name}'.* drop"):
            array.par.map(never, "time", out=tmp_path / "store.zarr", **SUM)
    assert os.listdir(tmp_path) == []
    cube.assign_attrs(attrs).par.map(np.sum, "time", keep_attrs=False, out=tmp_path / "store.zarr", **SUM)
    with xr.open_zarr(tmp_path / "store.zarr") as stored:
        np.testing.assert_array_equal(stored["t2m"], cube.par.map(np.sum, "time"))


@pytest.mark.parametrize("attrs", [{"units": "K", "grid_mapping": "crs"}, {"long_name": "a", "calendar": "noleap"}])
def test_attributes_that_stay(tmp_path, attrs):
    cube = make_cube().drop_vars("season")
    cube.attrs = attrs
    got = cube.par.map(np.sum, "time", out=tmp_path / "store.zarr", **SUM)
    with xr.open_zarr(tmp_path / "store.zarr") as stored:
        assert_alike(stored["t2m"].load(), got.load())


def test_an_empty_array(tmp_path):
    cube = make_cube().drop_vars("season").isel(time=slice(0))
    with pytest.raises(ValueError, match="'scale_factor'"):
        cube.assign_attrs(scale_factor=2.0).par.map(never, "time", out=tmp_path / "store.zarr", **SUM)
    assert cube.par.map(never, "time", out=tmp_path / "store.zarr", **SUM).shape == (0,)


def test_foreign_byte_order(tmp_path):
    dtype = np.dtype("f8").newbyteorder()
    with pytest.raises(ValueError, match="native byte order, and output_dtypes says .f8; pass output_dtypes='float64'"):
        make_cube().par.map(never, "time", out=tmp_path / "s", output_dtypes=dtype, output_core_dims=[])
    assert os.listdir(tmp_path) == []
