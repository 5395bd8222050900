"""Labelled arrays, functions of them, xarray's own loop, and the comparison of two results."""

from __future__ import annotations

import numpy as np
import xarray as xr
from hypothesis import strategies as st

import parwise.xarray  # noqa: F401 - has .par

from .oracle import assert_each, assert_same
from .strategies import make_array

TIMES = np.arange("2020-03-01", "2020-03-13", dtype="M8[D]").astype("M8[ns]")


def make_cube(shape=(12, 3, 4), dtype="f8", seed=0):
    """Return an array over time, lat and lon with coordinates of all kinds."""
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
    """Run xarray's plain loop, and put dimensions in the array's order."""
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
    """Identical for xarray, and equal in bits."""
    if isinstance(want, tuple):
        assert_each(assert_alike, got, want)
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
    """An array in a file that counts the elements read from it."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, key):
        from xarray.core import indexing

        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._get)

    def _get(self, key):
        part = self._array[key]
        self.read.append(part.size)
        return part


def slope(series):
    return np.polyfit(np.arange(len(series)), series, 1)[0]


def scale(x):
    return (x - x.mean()) / 3


def ends(x):
    return x.min(), x.max()


def quantiles(x):
    return np.quantile(x, [0.1, 0.5, 0.9])


def same(x):
    return x.copy() if isinstance(x, np.ndarray) else x


def pair(x):
    return np.stack([np.ravel(x)[0], np.ravel(x)[-1]])


# Errors.


def boom(x, at):
    if x.max() == at:
        raise KeyError("there")
    return x.sum()


def notes_of(error):
    return "\n".join(getattr(error.value, "__notes__", []))


# Data that is not in memory.


def counting(x):
    raise AssertionError("called before anything was asked for")


def in_file(array):
    """Return the array as it comes from a file, and its `Counted` data."""
    from xarray.core.indexing import LazilyIndexedArray

    counted = Counted(array.data)
    variable = xr.Variable(array.dims, LazilyIndexedArray(counted), array.attrs, array.encoding)
    return xr.DataArray(variable, array.coords, name=array.name), counted


@st.composite
def labelled(draw):
    ndim = draw(st.integers(1, 4))
    shape = draw(st.lists(st.integers(1, 4), min_size=ndim, max_size=ndim))
    dtype = draw(st.sampled_from(["f8", "f4", ">f4", "i4", "u1", "?", "c16", "M8[ns]"]))
    layout = draw(st.sampled_from(["C", "F", "stepped", "negative", "broadcast", "readonly"]))
    dims = draw(st.permutations("abcd"))[:ndim]
    coords = {d: (d, np.arange(n) * 10) for d, n in zip(dims, shape, strict=True) if draw(st.booleans())}
    for name in ("one", "two"):
        spans = draw(st.lists(st.sampled_from(dims), unique=True, max_size=2))
        lengths = [shape[dims.index(d)] for d in spans]
        coords[name] = (spans, np.arange(np.prod(lengths, dtype=int)).reshape(lengths))
    array = xr.DataArray(make_array(shape, dtype, layout, draw(st.integers(0, 99))), coords, dims, name="x")
    array.attrs["units"] = "m"
    array.encoding = {"zlib": True}
    mapped = tuple(draw(st.permutations(dims)))[: draw(st.integers(1, ndim))]
    return array, mapped
