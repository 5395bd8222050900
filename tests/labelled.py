"""Labelled arrays for tests, xarray's own loop over them, and what makes two of them alike."""

from __future__ import annotations

import numpy as np
import xarray as xr

from .oracle import assert_same
from .strategies import make_array

TIMES = np.arange("2020-03-01", "2020-03-13", dtype="M8[D]").astype("M8[ns]")


def make_cube(shape=(12, 3, 4), dtype="f8", seed=0):
    """Time, lat and lon, with coordinates of all kinds."""
    values = make_array(shape, dtype, "C", seed)
    coords = {
        "time": ("time", TIMES[0] + np.arange(shape[0]).astype("m8[D]"), {"axis": "T"}),
        "lat": ("lat", np.linspace(-30.0, 30.0, shape[1]), {"units": "degrees_north"}),
        "season": ("time", np.resize(["a", "b", "c", "a"], shape[0])),
        "area": (("lat", "lon"), np.arange(shape[1] * shape[2]).reshape(shape[1:])),
        "hours": (("time", "lat"), np.arange(shape[0] * shape[1]).reshape(shape[:2])),
        "height": 2.0,
    }
    cube = xr.DataArray(values, coords, ("time", "lat", "lon"), name="t2m", attrs={"units": "K"})
    cube.encoding = {"zlib": True, "dtype": "i2", "scale_factor": 0.01}
    return cube


def loop(func, *arrays, dims, core=None, outputs=1, keep_attrs=True, exclude=()):
    """The plain loop as xarray has it, with dimensions in the array's order."""
    dims = dims if isinstance(dims, tuple) else (dims,)
    first = arrays[0]
    if first.dtype.kind == "M":  # np.vectorize cannot make these
        done = loop(func, first.astype("i8"), dims=dims, core=core, keep_attrs=keep_attrs)
        return done.astype(first.dtype)
    inputs = [[d for d in one.dims if d not in dims] for one in arrays]
    cores = [core or [] for _ in range(outputs)]
    done = xr.apply_ufunc(
        func,
        *arrays,
        input_core_dims=inputs,
        output_core_dims=cores,
        exclude_dims=set(exclude),
        vectorize=True,
        keep_attrs=keep_attrs,
        join="exact",
    )

    def ordered(one):
        known = [d for d in first.dims if d in one.dims]
        rest = [d for d in one.dims if d not in known]
        return (
            one.transpose(*known, *rest, transpose_coords=False).rename(first.name).astype(one.dtype.newbyteorder("="))
        )

    return tuple(map(ordered, done)) if outputs > 1 else ordered(done)


def assert_alike(got, want):
    """Identical to xarray, and the same bits."""
    if isinstance(want, tuple):
        assert isinstance(got, tuple)
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_alike(one, other)
        return
    assert type(got) is type(want)
    xr.testing.assert_identical(got, want)
    if isinstance(want, xr.Dataset):
        assert list(got.data_vars) == list(want.data_vars)
        for name in want.variables:
            assert_same(got[name].to_numpy(), want[name].to_numpy())
        return
    assert list(got.indexes) == list(want.indexes)
    for one, other in [(got, want), *((got.coords[name], want.coords[name]) for name in want.coords)]:
        assert one.dims == other.dims
        assert_same(one.to_numpy(), other.to_numpy())


class Counted(xr.backends.BackendArray):
    """An array in a file that tells what was read of it."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, key):
        from xarray.core import indexing

        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._get)

    def _get(self, key):
        part = self._array[key]
        self.read.append(part.size)
        return part
