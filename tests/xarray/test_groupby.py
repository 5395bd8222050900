"""`.par.map_groups` against the loop in xarray's ``groupby(...).map``."""

from __future__ import annotations

import dataclasses
import os
import pickle

import numpy as np
import pytest
import xarray as xr

import parwise.xarray  # noqa: F401 - has .par
from parwise._executors.processes import background, inline
from parwise._xarray import group_transfer
from parwise._xarray.group_transfer import GroupedData, group_indexers

from ..support.internals import Task, TaskQueue, make_call, resolve
from ..support.labelled import TIMES, Counted, assert_alike, make_cube
from ..support.oracle import assert_same


def make_dataset(cube):
    """Variables with and without the dimension of groups, in an order that is not that of coordinates."""
    ds = xr.Dataset(
        {
            "mask": (("lat", "lon"), np.arange(12.0).reshape(3, 4)),
            "t2m": cube,
            "level": ("z", [1.0, 2.0]),
            "flag": ("time", np.arange(12), {"a": 1}),
        },
        {"depth": ("z", [10, 20]), "code": ("z", ["x", "y"])},
        {"title": "weather"},
    )
    ds.encoding = {"unlimited_dims": {"time"}}
    ds.flag.encoding = {"zlib": True}
    return ds


@pytest.mark.parametrize(
    "group",
    ["season", "time.month", "time", "area", "array", "dict", "bins", "resample"],
)
@pytest.mark.parametrize("reduce", [True, False])
def test_groups_as_xarray_makes_them(cube, group, reduce):
    def func(x, factor=1):
        dims = [d for d in ("time", "stacked_lat_lon") if d in x.dims]
        return x.mean(dims[0]) * factor if reduce else x * factor - x.mean()

    by = {
        "array": xr.DataArray(np.arange(12) % 5, dims="time", name="mod"),
        "dict": {"season": xr.groupers.UniqueGrouper()},
        "bins": cube.groupby_bins("lat", [-90, -60, -10, 90]),
        "resample": cube.resample(time="5D"),
    }.get(group, group)
    if group == "time" and not reduce:
        cube = cube.drop_vars("hours")
    theirs = by if group in ("bins", "resample") else cube.groupby(by)
    if group == "bins":

        def func(x, factor=1):
            return x.mean("lat") if reduce else x * 2

    assert_alike(cube.par.map_groups(func, by, workers=2, isolate=True), theirs.map(func))


def test_lazy_results_are_computed_where_the_function_is(cube, runner):
    seen = cube.par.map_groups(lambda x: x.chunk().mean("time"), "season", **runner)
    assert seen.chunks is None
    assert_alike(seen, cube.groupby("season").map(lambda x: x.mean("time")))


def test_groups_of_datasets(cube):
    ds = cube.to_dataset().assign(flag=("time", np.arange(12)))

    def func(x, k):
        return x.mean("time") + k

    got = ds.par.map_groups(func, "season", args=(2,), isolate=True, workers=2)
    assert_alike(got, ds.groupby("season").map(func, args=(2,)))
    assert_alike(ds.par.map_groups(lambda x: x.t2m.max(), "season"), ds.groupby("season").map(lambda x: x.t2m.max()))


def test_groups_keep_their_layout(runner):
    """Products of rows of Fortran-ordered arrays are summed in another order than those of contiguous ones."""
    rng = np.random.default_rng(3)
    data = np.asfortranarray(rng.standard_normal((6, 1001)) * 10.0 ** rng.integers(-8, 8, (6, 1001)))
    array = xr.DataArray(data, {"time": TIMES[:6]}, ("time", "y"))

    def func(x):
        return xr.DataArray([row @ row for row in x.data], dims="n")

    by = array.resample(time="3D")  # whose groups are slices, not copies
    assert_alike(array.par.map_groups(func, by, **runner), by.map(func))


# How groups travel.


def remade(whole, by):
    """Pair each group of the loop with the same group as a worker receives it."""
    wheres = group_indexers(by)
    data = GroupedData(by._obj, wheres)
    common = pickle.loads(pickle.dumps(data))
    return [(by._obj.isel(where), common.group(*data.pack(k))) for k, where in enumerate(wheres)]


@pytest.mark.parametrize("group", ["season", "time", "area", "resample"])
@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_groups_are_what_the_loop_takes(cube, group, kind):
    whole = cube if kind == "array" else make_dataset(cube)
    by = whole.resample(time="5D") if group == "resample" else whole.groupby(group)
    pairs = remade(whole, by)
    assert len(pairs) == len(by)
    for want, got in pairs:
        assert_alike(got, want)
        assert got.encoding == want.encoding
        variables = want.data_vars if kind == "dataset" else {}
        assert [got[name].encoding for name in variables] == [one.encoding for one in variables.values()]


@pytest.mark.parametrize("levels", [True, False])
def test_groups_with_indexes_of_several_levels(cube, levels):
    stacked = cube.drop_vars(["area", "hours"]).stack(pixel=("lat", "lon"))
    by = stacked.groupby("time.month") if levels else stacked.groupby("lat")
    for want, got in remade(stacked, by):
        assert_alike(got, want)
        assert got.xindexes.keys() == want.xindexes.keys()


def spoil(x):
    """Return a copy, after writing to everything that can be written to."""
    result = x.copy(deep=True)
    for one in [*x.coords.values(), *(x.data_vars.values() if isinstance(x, xr.Dataset) else [x])]:
        if one.name not in x.indexes and one.dtype.kind == "f":
            one.variable.data[...] = -1
    return result


@pytest.mark.pairs
@pytest.mark.parametrize("group", ["season", "resample"])
@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_groups_are_private(cube, runner, group, kind):
    cube = cube.assign_coords(area=cube.area * 1.0, hours=cube.hours * 1.0)
    whole = cube if kind == "array" else make_dataset(cube)
    kept = whole.copy(deep=True)
    # Where groups are slices xarray's loop would show each group what the ones before have written.
    want = (kept.resample(time="5D") if group == "resample" else kept.groupby(group)).map(lambda x: x.copy(deep=True))
    got = whole.par.map_groups(spoil, whole.resample(time="5D") if group == "resample" else group, **runner)
    assert_alike(got, want)
    assert_alike(whole, kept)


def test_data_of_another_kind_stays_what_it_is(cube):
    data = np.ma.masked_less(cube.data, 0)
    kinds = []

    class Tagged(np.lib.mixins.NDArrayOperatorsMixin):
        """Enough of a duck array for groups."""

        def __init__(self, array):
            self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

        def __array_function__(self, func, types, args, kwargs):
            return NotImplemented

        def __array_ufunc__(self, *_, **__):
            return NotImplemented

        def __getitem__(self, key):
            return Tagged(self.array[key])

        def __array__(self, dtype=None, copy=None):
            raise AssertionError("made an array of")

    def func(x):
        kinds.append(type(x.data).__name__)
        return xr.DataArray(x.data.array.mean())

    tagged = xr.DataArray(Tagged(data.data), {"time": cube.time}, cube.dims)
    got = tagged.par.map_groups(func, "time.month", workers=1)
    assert kinds == ["Tagged"]
    assert_alike(
        got,
        cube.drop_vars(set(cube.coords) - {"time"}).groupby("time.month").map(lambda x: xr.DataArray(x.data.mean())),
    )


def test_files_are_read_group_by_group(runner):
    from xarray.core.indexing import LazilyIndexedArray

    cube = make_cube((40, 6, 7))
    counted = Counted(cube.data)
    lazy = xr.DataArray(xr.Variable(cube.dims, LazilyIndexedArray(counted), cube.attrs), cube.coords, name=cube.name)
    by = lazy.resample(time="8D")
    got = lazy.par.map_groups(lambda x: x - x.mean("time"), by, **runner)
    assert_alike(got, cube.resample(time="8D").map(lambda x: x - x.mean("time")))
    assert max(counted.read) == cube[:8].size
    assert not lazy.variable._in_memory


# What travels is weighed against what it costs.


def busy(x):
    """Compute for one millisecond, and return the id of the process."""
    value = 0.3
    for _ in range(20_000):
        value = 3.9 * value * (1.0 - value)
    return xr.DataArray(os.getpid())


def test_groups_that_cost_more_to_send_than_to_compute_stay_here(cube, monkeypatch):
    monkeypatch.setattr(inline, "COLD_SECONDS", 0.0)
    monkeypatch.setattr(inline, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(background, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(group_transfer, "TRANSFER_SECONDS", 1000.0)
    many = cube.groupby("time")
    assert set(cube.par.map_groups(busy, many, workers=2, verify=False).to_numpy().tolist()) == {os.getpid()}
    monkeypatch.setattr(group_transfer, "TRANSFER_SECONDS", 0.0)
    monkeypatch.setattr(group_transfer, "TRANSFER_PER_SELECTION", 0.0)
    monkeypatch.setattr(group_transfer, "IMPORT_SECONDS", 0.0)
    monkeypatch.setattr(inline, "OWN_SECONDS", 0.0)
    monkeypatch.setattr(background, "TRANSFER_HELP_SECONDS", 0.0)
    longer = make_cube((2000, 1, 1))
    assert len(set(longer.par.map_groups(busy, "time", workers=2, verify=False).to_numpy().tolist())) > 1


def test_one_hiccup_does_not_make_groups_worth_sending():
    call = make_call(np.sum, (np.ones(100),), settings=resolve({}))
    queue = TaskQueue(dataclasses.replace(call, transfer_seconds=lambda: 0.5), capacity=10)
    for hi, seconds in (10, 10.0), (20, 10.0), (30, 100.0):
        queue.next_task()
        queue.measure(Task(hi - 10, hi), seconds)
    taken = sum(len(task) for task in iter(queue.next_task, None))
    assert queue.seconds_left == 0
    queue.give_back([Task(0, taken)])
    assert queue.seconds_left == taken * (120 / 30 - 0.5)  # of the last it would be 5.5 for each


# Gaps.


def fails_at(x, label):
    if label in x.season.values:
        raise KeyError("there")
    return x


def with_gaps(whole, label, func, **how):
    with pytest.warns(RuntimeWarning, match=f"season={label}: KeyError"):
        return whole.par.map_groups(lambda x: func(fails_at(x, label)), "season", errors="ignore", **how)


GAPS = {
    "reduced": lambda x: x.mean("time"),
    "kept": lambda x: x - x.mean("time"),
    "whole": lambda x: x.max(),
}


@pytest.mark.pairs
@pytest.mark.parametrize("label", ["a", "c"])
@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_gaps(cube, runner, label, name, kind):
    whole = cube if kind == "array" else cube.to_dataset().assign(flag=("time", np.arange(12.0)))
    func = GAPS[name]
    want = whole.groupby("season").map(func)
    want = want.where(want.season != label)
    got = with_gaps(whole, label, func, **runner)
    xr.testing.assert_identical(got, want)
    for one, other in [(got, want)] if kind == "array" else [(got[name], want[name]) for name in want]:
        assert_same(one.to_numpy(), other.to_numpy())


def test_gaps_with_indexes_of_several_levels(cube):
    stacked = cube.drop_vars(["area", "hours"]).stack(pixel=("lat", "lon"))
    at = float(cube.lat[1])

    def func(x):
        if at in x.lat.values:
            raise KeyError("there")
        return x * 2

    with pytest.warns(RuntimeWarning, match="KeyError"):
        got = stacked.par.map_groups(func, "lat", errors="ignore")
    want = stacked.groupby("lat").map(lambda x: x * 2)
    assert_alike(got, want.where(want.lat != at))


def test_gaps_that_nothing_tells_the_shape_of(cube):
    with pytest.raises(ValueError, match="no group has one"), pytest.warns(RuntimeWarning, match="3 of 3"):
        cube.par.map_groups(lambda x: 1 / 0, "season", errors="ignore")
    with pytest.raises(ValueError, match="the result of group 1 has length 1 along 'time', and the group 3"):
        with_gaps(cube, "a", lambda x: x[:1])
    with pytest.raises(ValueError, match="func returned float64"):
        with_gaps(cube, "a", lambda x: x.data.max())


# Data in Dask's blocks.


def lazily(whole):
    """Return the same with its data in blocks and its coordinates in memory."""
    if isinstance(whole, xr.Dataset):
        return whole.assign({name: whole[name].copy(data=whole[name].chunk().data) for name in ("t2m", "flag")})
    return whole.copy(data=whole.chunk(time=5).data)


def test_dask_datasets(cube):
    ds = make_dataset(cube)

    def func(x):
        return x - x.mean("time") if "time" in x.dims else x

    got = lazily(ds).par.map_groups(func, "season", output_dtypes=float)
    assert all(one.chunks is not None for one in got.data_vars.values())
    want = ds.groupby("season").map(func)
    assert list(got.data_vars) == list(want.data_vars)
    for name in want.data_vars:
        assert got[name].dims == want[name].dims
        np.testing.assert_array_equal(got[name].to_numpy(), want[name].to_numpy())
    assert got.attrs == ds.attrs


def test_dask_datasets_with_other_variables(cube):
    ds = make_dataset(cube)[["t2m", "flag"]]

    def func(x):
        return xr.Dataset({"high": x.t2m.max("time"), "flag": x.flag * 2})

    how = {
        "output_dtypes": {"high": "f8", "flag": "i8"},
        "output_core_dims": {"high": ["lat", "lon"]},
    }
    got = lazily(ds).par.map_groups(func, "season", **how)
    want = ds.groupby("season").map(func)
    assert (list(got), got.flag.dtype) == (["high", "flag"], np.dtype("i8"))
    for name in want.data_vars:
        assert got[name].dims == want[name].dims
        mine, theirs = (one[name].reset_coords(drop=True) for one in (got, want))
        mine.attrs = theirs.attrs = {}
        xr.testing.assert_identical(mine.compute(), theirs)
        assert_same(mine.to_numpy(), theirs.to_numpy())
    with pytest.raises(ValueError, match=r"dimensions of the new variable 'high' are not known; pass output_core_dims"):
        lazily(ds).par.map_groups(func, "season", output_dtypes={"high": "f8"})
    with pytest.raises(ValueError, match=r"output_core_dims names variable\(s\) 'low', which output_dtypes does not"):
        lazily(ds).par.map_groups(func, "season", output_dtypes={"flag": "i8"}, output_core_dims={"low": []})


def test_dask_random_numbers_are_those_of_the_group(cube):
    def func(x, rng):
        return x + rng.random()

    with xr.set_options(keep_attrs=True):  # as by default from xarray 2025.11 on
        want = cube.par.map_groups(func, "season", rng=5)
    got = lazily(cube).par.map_groups(func, "season", rng=5, output_dtypes=float)
    assert_alike(got.compute(), want)


def test_dask_results_of_other_orders(cube):
    got = lazily(cube).par.map_groups(lambda x: (x * 2).transpose("lon", ...), "season", output_dtypes=float)
    assert_same(got.to_numpy(), cube.to_numpy() * 2)


def test_dask_errors_and_gaps(cube):
    def func(x):
        return fails_at(x, "b")

    with pytest.raises(KeyError) as error:
        lazily(cube).par.map_groups(func, "season", output_dtypes=float).compute()
    assert "in group 1 along dimension 'season', season=b" in "\n".join(error.value.__notes__)
    lazy = lazily(cube).par.map_groups(func, "season", output_dtypes=float, errors="ignore")
    with pytest.warns(RuntimeWarning, match="season=b: KeyError"):
        got = lazy.compute()
    assert_alike(got, cube.where(cube.season != "b"))
    lazy = lazily(cube.astype("i4")).par.map_groups(func, "season", output_dtypes="i4", errors="ignore")
    with pytest.raises(ValueError, match="dtype int32 has no value for a gap"), pytest.warns(RuntimeWarning):
        lazy.compute()


BAD_LAZY = {
    "dtypes": ({}, ValueError, r"pass output_dtypes=\.\.\."),
    "workers": (
        {"workers": 2, "output_dtypes": float},
        ValueError,
        "'workers' have no effect on data in Dask's blocks",
    ),
    "sizes": (
        {"output_dtypes": float, "output_core_dims": ["q"]},
        ValueError,
        r"length of dimension\(s\) 'q' is not known",
    ),
}


@pytest.mark.parametrize("case", BAD_LAZY)
def test_bad_input_for_dask(cube, case):
    how, kind, message = BAD_LAZY[case]
    with pytest.raises(kind, match=message):
        lazily(cube).par.map_groups(fails_at, "season", **how)


def test_results_that_are_not_as_told_for_dask(cube):
    lazy = lazily(cube)
    with pytest.raises(TypeError, match="func was to return a DataArray, but it returned ndarray") as caught:
        lazy.par.map_groups(lambda x: x if x.season[0] == "a" else x.data, "season", output_dtypes=float).compute()
    assert any("in group" in one and "season=" in one for one in caught.value.__notes__)
    with pytest.raises(ValueError, match=r"of sizes {'time': \d, .*, but it returned one of {'lat': 3, 'lon': 4}"):
        lazy.par.map_groups(lambda x: x[0], "season", output_dtypes=float).compute()
    ds = lazily(make_dataset(cube)[["t2m", "flag"]])
    with pytest.raises(TypeError, match="func was to return a Dataset with variable 't2m', but it returned DataArray"):
        ds.par.map_groups(lambda x: x.t2m, "season", output_dtypes=float).compute()


def test_groups(cube, runner):
    def func(x):
        return x - x.mean("time")

    assert_alike(cube.par.map_groups(func, "season", **runner), cube.groupby("season").map(func))


def test_several_groupers(cube):
    array = cube.assign_coords(half=("time", np.repeat(["x", "y"], 6)))
    got = array.par.map_groups(lambda x: x.mean("time"), ["season", "half"], workers=2, isolate=True)
    assert_alike(got, array.groupby(["season", "half"]).map(lambda x: x.mean("time")))
