"""`.par.map_groups` beside ``groupby(...).map`` for objects of any dimensions, coordinates and indexes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import parwise.xarray  # noqa: F401 - has .par

from ..support.examples import examples
from ..support.labelled import assert_alike

WAYS = {
    "serial": {"workers": 1},
    "threads": {"executor": "threads", "workers": 2},
    "isolated": {"isolate": True, "workers": 2},
}
FUNCS = {
    "same": lambda g: g,
    "anomalies": lambda g: g - g.mean(),
    "mean": lambda g: g.mean(),
    "mean along x": lambda g: g.mean("x") if "x" in g.dims else g.mean(),
    "first": lambda g: g.isel(x=0) if "x" in g.dims else g,
    "head": lambda g: g.isel(x=slice(0, 1)) if "x" in g.dims else g,
    "new coordinate": lambda g: g.assign_coords(n=1),
    "renamed": lambda g: g.rename(x="xx") if "x" in g.dims else g,
}


def attempt(func):
    """The result, or the exception."""
    try:
        return func()
    except Exception as error:
        return error


def assert_as_xarray(got, want):
    if isinstance(want, Exception):
        assert type(got) is type(want), (got, want)
        return
    if isinstance(got, Exception):
        raise got
    xr.testing.assert_identical(got, want)
    assert set(got.xindexes) == set(want.xindexes)


@st.composite
def grouped(draw):
    """An object with a dimension x, and an argument of `groupby`."""
    dims = ["x", "y", "z"][: draw(st.integers(1, 3))]
    sizes = {dim: draw(st.integers(1, 6 if dim == "x" else 3)) for dim in dims}
    shape = tuple(sizes.values())
    coords = {dim: (dim, np.arange(n) * 10) for dim, n in sizes.items() if draw(st.booleans())}
    more = {
        "scalar": 2.0,
        "along": (dims[-1], np.arange(shape[-1])),
        "whole": (tuple(dims), np.arange(np.prod(shape)).reshape(shape)),
    }
    coords |= {name: one for name, one in more.items() if draw(st.booleans())}
    labels = np.array(draw(st.lists(st.integers(0, 2), min_size=sizes["x"], max_size=sizes["x"])))
    by = draw(st.sampled_from(["array", "name", "x", "bins"]))
    if by == "name":
        coords["label"] = ("x", labels)
    obj = xr.DataArray(np.arange(np.prod(shape) * 1.0).reshape(shape) ** 2, coords, dims, "v", {"units": "m"})
    obj = obj.drop_indexes([dim for dim in dims if dim in coords and draw(st.booleans())])
    if draw(st.booleans()):
        obj = obj.to_dataset()
        variables = {"other": (dims[-1], np.arange(shape[-1])), "lone": ("w", np.arange(2.0)), "number": 3.0}
        obj = obj.assign({name: one for name, one in variables.items() if draw(st.booleans())})
    return obj, {"array": xr.DataArray(labels, dims="x", name="label"), "name": "label"}.get(by, by)


@given(grouped(), st.sampled_from(sorted(FUNCS)), st.sampled_from(sorted(WAYS)))
@examples(150)
def test_any_groups(case, func, way):
    obj, by = case
    groups = attempt(lambda: obj.groupby_bins("x", 2) if isinstance(by, str) and by == "bins" else obj.groupby(by))
    if isinstance(groups, Exception):
        return
    want = attempt(lambda: groups.map(FUNCS[func]))
    assert_as_xarray(attempt(lambda: obj.par.map_groups(FUNCS[func], groups, **WAYS[way])), want)


def test_a_grouped_dimension_without_coordinate(runner):
    array = xr.DataArray(np.arange(60.0), dims="x")
    labels = xr.DataArray(np.arange(60) % 20, dims="x", name="label")
    for obj in array, array.to_dataset(name="a"), xr.Dataset({"a": array, "b": ("z", [1.0])}):
        want = obj.groupby(labels).map(lambda g: g - g.mean())
        assert_as_xarray(obj.par.map_groups(lambda g: g - g.mean(), labels, **runner), want)


def test_a_dimension_without_index_gets_none(runner):
    array = xr.DataArray(np.zeros((4, 3)), {"t": [0, 0, 1, 1]}, ("t", "y"))
    array = array.assign_coords(xr.Coordinates({"y": ("y", np.array([1, 2, 3]))}, indexes={}))
    for obj in array, array.to_dataset(name="a"):

        def func(g):
            assert list(g.xindexes) == ["t"]
            g.coords["y"].variable.data[:] = -1  # of a copy
            return g

        got = obj.par.map_groups(func, "t", **runner)
        assert list(got.xindexes) == ["t"]
        assert obj.y.to_numpy().tolist() == [1, 2, 3]


def test_gaps_of_groups_without_index(recwarn):
    array = xr.DataArray(np.arange(12.0).reshape(4, 3), {"t": [0, 0, 1, 1], "y": [1, 2, 3]}, ("t", "y"))
    for obj in array.drop_indexes("y"), array.drop_indexes(["t", "y"]).assign_coords(k=("t", [0, 0, 1, 1])):
        by = "k" if "k" in obj.coords else "t"

        def func(g, by=by):
            if g[by].values[0] == 1:
                raise KeyError("there")
            return g * 2

        got = obj.par.map_groups(func, by, errors="ignore")
        want = obj.groupby(by).map(lambda g: g * 2)
        assert_as_xarray(got, want.where(want[by] != 1))
    assert {str(one.category.__name__) for one in recwarn} == {"GapWarning"}


@pytest.mark.parametrize("result", [None, Ellipsis, np.nan, -1, "gap"])
def test_no_result_stands_for_a_gap(result, runner):
    array = xr.DataArray(np.arange(6.0), {"k": ("x", [0, 0, 1, 1, 2, 2])}, "x")

    def func(g):
        return result if g.k[0] == 1 else g.mean()

    want = attempt(lambda: array.groupby("k").map(func))
    for errors in "raise", "ignore":
        assert_as_xarray(attempt(lambda: array.par.map_groups(func, "k", errors=errors, **runner)), want)  # noqa: B023
    with pytest.raises(type(attempt(lambda: array.groupby("k").map(lambda g: result)))):
        array.par.map_groups(lambda g: result, "k")


def test_a_coordinate_may_be_named_none():
    array = xr.DataArray(np.arange(6.0), {"k": ("x", [0, 0, 1, 1, 2, 2]), None: ("x", np.arange(6))}, "x")
    want = array.groupby("k").map(lambda g: g * 2)
    for how in WAYS.values():
        assert_as_xarray(array.par.map_groups(lambda g: g * 2, "k", **how), want)


def test_lazy_groups_have_the_indexes_of_the_array():
    array = xr.DataArray(np.arange(12.0).reshape(4, 3), {"t": [0, 0, 1, 1], "y": [1, 2, 3]}, ("t", "y"))
    array = array.drop_indexes("y")
    got = array.copy(data=array.chunk().data).par.map_groups(lambda g: g * 2, "t", output_dtypes=float)
    want = array.groupby("t").map(lambda g: g * 2)
    assert set(got.xindexes) == set(want.xindexes)
    assert_alike(got.compute(), want)
