"""Errors of labelled maps name the label; bad input is refused before any work."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr

import parwise
from parwise import ReproducibilityWarning

from ..support.labelled import assert_alike, boom, counting, make_cube, notes_of, pair, quantiles, same


def test_errors_name_labels(cube, runner):
    with pytest.raises(KeyError) as error:
        cube.par.map(boom, "time", args=(float(cube[4].max()),), **runner)
    assert "in element 4 along dimension 'time', time=2020-03-05" in notes_of(error)


def test_errors_name_pixels_and_blocks(cube):
    with pytest.raises(KeyError) as error:
        cube.par.map(boom, ("lon", "lat"), args=(float(cube[:, 1, 2].max()),))
    assert "in element (2, 1) along dimensions ('lon', 'lat'), lat=0.0" in notes_of(error)
    with pytest.raises(KeyError) as error:
        cube.par.map(lambda x: x + boom(x[:2], float(cube[4:6].max())), "time", vectorized=True, chunk=4)
    assert "along dimension 'time', time=2020-03-05 to 2020-03-08" in notes_of(error)
    with pytest.raises(KeyError) as error:
        cube.chunk(time=5).par.map(
            boom, "time", args=(float(cube[7].max()),), output_dtypes="f8", output_core_dims=[]
        ).compute()
    assert "in element 7 along dimension 'time', time=2020-03-08" in notes_of(error)
    with pytest.raises(KeyError) as error:
        cube.par.map_groups(boom, "season", args=(float(cube[1::4].max()),))
    assert "in group 1 along dimension 'season', season=b" in notes_of(error)


def test_gaps(cube):
    at = float(cube[4].max())
    with pytest.warns(RuntimeWarning, match=r"element 4 along dimension 'time', time=2020-03-05: KeyError"):
        got = cube.par.map(boom, "time", args=(at,), errors="ignore")
    assert np.flatnonzero(got.isnull()).tolist() == [4]

    def labelled(x, at):
        return boom(x, at) + x

    with pytest.warns(RuntimeWarning, match="2020-03-05"):
        got = cube.par.map(labelled, "time", args=(at,), errors="ignore", as_xarray=True)
    want = cube.par.map(labelled, "time", args=(1e9,), as_xarray=True)
    assert_alike(got, want.where(want.time != want.time[4]))
    with pytest.warns(RuntimeWarning, match="12 of 12"):
        got = cube.par.map(lambda x: 1 / 0, "time", errors="ignore", as_xarray=True)
    assert got.isnull().all()


def test_unlike_workers_are_told(cube, eager):
    count = iter(range(10**6))

    def func(x):
        return x + next(count)

    # Of few elements one is compared only where that holds up nobody.
    with pytest.warns(ReproducibilityWarning):
        _ = [cube.par.map(func, "time", as_xarray=True, workers=2) for _ in range(20)]


def never(*args):
    raise AssertionError("the function was called")


ONE = xr.DataArray(np.ones(3), {"x": [1, 2, 3]}, "x", name="one")


BAD = {
    "unknown dimension": (lambda: ONE.par.map(same, "tme"), ValueError, "no dimension 'tme'; it has 'x'"),
    "no dimension": (lambda: ONE.par.map(same, ()), ValueError, "at least one dimension"),
    "twice": (lambda: ONE.par.map(same, ("x", "x")), ValueError, "names one dimension twice"),
    "unhashable": (lambda: ONE.par.map(same, {}), TypeError, "name or a tuple of names, got dict"),
    "not callable": (lambda: ONE.par.map("x", same), TypeError, "func must be callable, got str"),
    "other": (lambda: ONE.par.map(same, "x", np.ones(3)), TypeError, "other 0 is a ndarray, not a DataArray"),
    "dataset as other": (lambda: ONE.par.map(same, "x", ONE.to_dataset()), TypeError, r"its variables, x\['name'\]"),
    "other without": (
        lambda: ONE.par.map(same, "x", ONE, ONE.rename(x="y")),
        ValueError,
        "other 1 has no dimension 'x'; it has 'y'; pass what all calls get whole in args",
    ),
    "unlike labels": (
        lambda: ONE.par.map(same, "x", ONE.assign_coords(x=[1, 2, 4])),
        getattr(xr, "AlignmentError", ValueError),
        "the coordinate 'x' of other 0 differs from the array's, first at 2: 4 against 3",
    ),
    "unlike lengths": (lambda: ONE.par.map(same, "x", ONE[:2]), ValueError, "other 0 has length 2 along 'x'"),
    "two for blocks": (
        lambda: make_cube().par.map(same, ("lat", "lon"), vectorized=True, as_xarray=True),
        ValueError,
        r"blocks of DataArrays \(as_xarray=True\) are along one dimension, got \('lat', 'lon'\)",
    ),
    "blocks lie differently": (
        lambda: make_cube().par.map(same, "lat", make_cube().transpose("lat", ...), vectorized=True),
        ValueError,
        "'lat' is axis 0 of other 0 and axis 1 of the array",
    ),
    "unknown shape": (
        lambda: make_cube().par.map(quantiles, "time"),
        ValueError,
        r"results of shape \(3,\), but slices have shape \(3, 4\), with dimensions 'lat', 'lon'",
    ),
    "too few names": (
        lambda: make_cube().par.map(same, "time", output_core_dims=["q"]),
        ValueError,
        r"names 1 dimension\(s\), 'q', but func returns results of shape \(3, 4\)",
    ),
    "names of one result": (
        lambda: ONE.par.map(lambda x: (x, x), "x", output_core_dims=["q"]),
        ValueError,
        "is for 1 result",
    ),
    "mapped name": (lambda: ONE.par.map(pair, "x", output_core_dims=["x"]), ValueError, "without those mapped over"),
    "mixed names": (lambda: ONE.par.map(pair, "x", output_core_dims=["x", ["y"]]), TypeError, "list of names, or of"),
    "dtypes": (lambda: ONE.par.map(same, "x", output_dtypes=["f8", "f8"]), ValueError, "has 2 dtype"),
    "unknown option": (lambda: ONE.par.map(same, "x", wrokers=2), TypeError, "did you mean 'workers'"),
    "as_xarray": (lambda: ONE.par.map(same, "x", as_xarray=1), TypeError, "as_xarray must be a bool"),
    "not labelled": (lambda: ONE.par.map(float, "x", as_xarray=True), TypeError, "must return a DataArray"),
    "unlike dims": (
        lambda: make_cube().par.map(lambda x: x[0] if x.time.dt.day == 3 else x, "time", as_xarray=True),
        ValueError,
        "results differ in dimensions: .* of element 0, {'lon': 4} of element 2",
    ),
    "unlike coords": (
        lambda: make_cube().par.map(lambda x: x.assign_coords(lat=x.lat + x.time.dt.day), "time", as_xarray=True),
        ValueError,
        "cannot be combined along 'time'",
    ),
    "unlike names of coords": (
        lambda: make_cube().par.map(lambda x: x if x.time.dt.day == 1 else x.drop_vars("area"), "time", as_xarray=True),
        ValueError,
        "results differ in coordinates: .*'area'.* of element 0, .* of element 1",
    ),
    "unlike lengths of results": (
        lambda: make_cube().par.map(lambda x: x[:, : 1 + (x.time.dt.day == 1).item()], "time", as_xarray=True),
        ValueError,
        "results differ in dimensions: {'lat': 3, 'lon': 2} of element 0, {'lat': 3, 'lon': 1} of element 1",
    ),
    "halo of labelled blocks": (
        lambda: make_cube().par.map(same, "time", as_xarray=True, vectorized=True, depth=1),
        ValueError,
        "cannot have a halo or gaps",
    ),
    "no group": (lambda: ONE.par.map_groups(same, "y"), KeyError, "'y'.*; there are 'x'"),
    "no group of a dataset": (lambda: ONE.to_dataset().par.map_groups(same, "y"), KeyError, "; there are 'x', 'one'"),
    "no window": (lambda: ONE.par.map_windows(same), TypeError, "no window: give"),
    "window": (lambda: ONE.par.map_windows(same, tme=2), KeyError, "no dimension 'tme' to roll along; there are 'x'"),
    "window for an option": (
        lambda: ONE.par.map_windows(same, x=2, backend="threading"),
        KeyError,
        "no dimension 'backend' to roll along; there are 'x'; write executor='threads'",
    ),
    "window for an option, misspelt": (
        lambda: ONE.par.map_windows(same, x=2, wrokers=2),
        KeyError,
        "; did you mean 'workers'",
    ),
    "center": (lambda: ONE.par.map_windows(same, x=2, center={"y": True}), ValueError, "center has a value for 'y'"),
    "windows twice": (lambda: ONE.par.map_windows(same, {"x": 2}, x=3), ValueError, "as a dict, .* and by keyword"),
    "windows by rolling": (lambda: ONE.par.map_windows(same, ONE.rolling(x=2)), TypeError, "got DataArrayRolling"),
    "window of no int": (lambda: ONE.par.map_windows(same, x=2.5), TypeError, "must be an int, got 2.5 of type float"),
    "window of nothing": (lambda: ONE.par.map_windows(same, x=0), ValueError, "at least 1 long, got 0"),
    "min_periods": (lambda: ONE.par.map_windows(same, x=2, min_periods=0), ValueError, "from 1 on, or None, got 0"),
    "window and dim": (lambda: ONE.par.map_windows(same, x=2, dim="x"), ValueError, "one dimension twice"),
    "keep_attrs": (lambda: ONE.par.map(counting, "x", keep_attrs="all"), ValueError, "got 'all'"),
    "no names": (lambda: ONE.par.map(pair, "x", output_core_dims=[None]), TypeError, "must be names"),
    "mapped name, before any work": (
        lambda: ONE.par.map(never, "x", output_core_dims=["x"]),
        ValueError,
        "without those mapped over",
    ),
    "names of no kind": (lambda: ONE.par.map(never, "x", output_core_dims=3), TypeError, "list of names, .* got 3"),
    "names by variable": (
        lambda: ONE.to_dataset().par.map(never, "x", output_core_dims={"one": []}),
        TypeError,
        "got {'one': .*}; a dict by variable is for groups",
    ),
    "sizes of no kind": (
        lambda: ONE.par.map(never, "x", output_sizes=3),
        TypeError,
        "must be a dict of lengths .* got 3",
    ),
    "argument of datasets": (
        lambda: ONE.par.map(never, "x", on_missing_dim="drop"),
        TypeError,
        "on_missing_dim= is an argument of .par.map of a Dataset",
    ),
    "no option at all": (lambda: ONE.par.map(never, "x", xyzzy=2), TypeError, "the options are .*, out$"),
    "sizes": (
        lambda: ONE.par.map(pair, "x", output_core_dims=["q"], output_sizes={"q": 3}),
        ValueError,
        r"output_sizes says 3 for 'q', but func returns results of shape \(2,\)",
    ),
    "blocks of groups": (
        lambda: ONE.par.map_groups(counting, "x", vectorized=True, keep_attrs=False),
        ValueError,
        "'vectorized', 'keep_attrs': not for groups, which func gets whole",
    ),
    "missing": (
        lambda: ONE.to_dataset().par.map(same, "x", on_missing_dim="keep"),
        ValueError,
        "'copy', 'drop' or 'raise', got 'keep'",
    ),
    "dataset": (lambda: ONE.to_dataset().par.map(same, "y"), ValueError, "no dimension 'y'; it has 'x'"),
    "tree": (
        lambda: xr.DataTree.from_dict({"/a": ONE.to_dataset()}).par.map(same, "y"),
        ValueError,
        "no node of the tree has a dimension 'y'; there are 'x'",
    ),
}


if not hasattr(xr, "DataTree"):
    del BAD["tree"]


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()


def test_the_names_of_apply_ufunc():
    for name, value, text in (
        ("vectorize", True, "leave it out: the function is called once for each element"),
        ("dask", "parallelized", "leave it out: calls on Dask's blocks stay lazy"),
        ("input_core_dims", [["x"]], "leave it out: .par.map"),
        ("dtype", float, r"write output_dtypes=\[\.\.\.\]"),
        ("n_jobs", 2, "write workers=2"),
    ):
        with pytest.raises(TypeError, match=f"unknown option '{name}': {text}"):
            ONE.par.map(same, "x", **{name: value})


def test_what_the_function_got_is_told_by_dimension():
    cube = make_cube()
    with pytest.raises(ValueError, match="mismatch") as error:
        cube.par.map(lambda a: a @ np.zeros(99), ("lat", "lon"))
    shape = (cube.sizes["time"],)
    assert f"func got an array of shape {shape}; 'lat', 'lon' are what is mapped over" in notes_of(error)


def test_a_variable_without_other_dimensions():
    series = make_cube().rename("series")
    dataset = series.to_dataset().assign(mask=series.isel(time=0, drop=True))

    def slope(y):
        return np.polyfit(np.arange(len(y)), y, 1)[0]

    with pytest.raises(TypeError) as error:
        dataset.par.map(slope, ("lat", "lon"))
    assert (
        "in variable 'mask', which has no dimensions but those mapped over: func got single values, not arrays. To "
        "leave it as it is: ds.drop_vars('mask').par.map(...).assign({'mask': ds['mask']})"
    ) in notes_of(error)
    ds = dataset
    got = ds.drop_vars("mask").par.map(slope, ("lat", "lon")).assign({"mask": ds["mask"]})
    assert got["mask"].identical(ds["mask"])


def test_the_warning_of_gaps_has_labels():
    cube = make_cube()
    bad = float(cube[4].sum())

    def f(a):
        return 1 / 0 if float(a.sum()) == bad else a.sum()

    with pytest.warns(parwise.GapWarning) as log:
        cube.par.map(f, "time", errors="ignore")
    warning = log[0].message
    assert warning.indices == [4]
    assert warning.labels["time"].tolist() == cube["time"].to_numpy()[[4]].tolist()
    assert isinstance(warning.errors[4], ZeroDivisionError)
    with pytest.warns(parwise.GapWarning) as log:
        cube.chunk(time=3).par.map(f, "time", errors="ignore", output_core_dims=[], output_dtypes=[float]).compute()
    assert log[0].message.indices == [4]


@pytest.mark.parametrize("lazy", [False, True])
def test_the_warning_of_gaps_names_the_variable(lazy):
    cube = make_cube()
    bad = float(cube[4].sum())

    def f(a):
        return 1 / 0 if float(a.sum()) == bad else a.sum()

    ds = xr.Dataset({"wind": cube * 2, "heat": cube})
    how = {"errors": "ignore"}
    if lazy:
        ds, how = ds.chunk(time=-1), how | {"output_core_dims": [], "output_dtypes": [float]}
    with pytest.warns(parwise.GapWarning) as log:
        ds.par.map(f, "time", **how).compute()
    assert [one.message.variable for one in log] == ["heat"]
    assert "of 12 elements of variable 'heat', which are gaps now: 4. The first one, in element" in str(log[0].message)
    assert pickle.loads(pickle.dumps(log[0].message)).variable == "heat"
    with pytest.warns(parwise.GapWarning) as log:
        cube.par.map(f, "time", errors="ignore")
    assert log[0].message.variable is None
    assert "variable" not in str(log[0].message)
