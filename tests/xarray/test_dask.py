"""Arrays in Dask's blocks: lazy results with the bits of those in memory."""

from __future__ import annotations

import builtins

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import parwise.xarray

from ..support.examples import examples
from ..support.labelled import assert_alike, counting, ends, labelled, loop, quantiles, same
from ..support.oracle import assert_same


@given(labelled(), st.data())
@examples(30)
def test_any_array_in_blocks_of_dask(case, data):
    array, dims = case
    rest = [d for d in array.dims if d not in dims]
    chunks = {d: data.draw(st.integers(1, array.sizes[d])) for d in dims}
    lazy = array.chunk(chunks)
    got = lazy.par.map(same, dims, output_core_dims=rest, output_dtypes=array.dtype)
    assert got.chunks == lazy.chunks
    want = loop(same, array, dims=dims, core=rest)
    assert_alike(got.compute(), want.astype(array.dtype))


def test_dask_chunks_of_several_lengths_and_no_name(cube):
    lazy = cube.rename(None).chunk(time=-1, lat=(1, 2), lon=(3, 1))
    got = lazy.par.map(np.sum, ("lat", "lon"), output_core_dims=[], output_dtypes=float)
    assert (got.chunks, got.name) == (((1, 2), (3, 1)), None)
    assert_alike(got.compute(), loop(np.sum, cube, dims=("lat", "lon")).rename(None))


def test_dask_gives_no_name(cube):
    lazy = cube.chunk(lat=1).rename(None)
    assert lazy.par.map(np.mean, ("lat", "lon"), output_dtypes=float, output_core_dims=[]).name is None


def test_dask_is_lazy(cube):
    lazy = cube.chunk(lat=2, lon=1)
    never = lazy.par.map(counting, ("lat", "lon"), output_dtypes=[float], output_core_dims=["q"], output_sizes={"q": 3})
    assert never.chunks == ((2, 1), (1, 1, 1, 1), (3,))
    assert (never.name, never.attrs, never.dtype) == ("t2m", {"units": "K"}, np.dtype(float))
    lazy.par.map(counting, "lat", vectorized=True, output_dtypes=float)
    cube.copy(data=lazy.data).par.map_groups(counting, "season", output_dtypes=float)
    lazy.par.map_windows(counting, time=3, dim=("lat", "lon"), output_dtypes=float, output_core_dims=[])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_dask_elements(cube, scheduler, thread_executor):
    with dask.config.set(scheduler=scheduler, pool=thread_executor):
        _elements_of_dask(cube)


def _elements_of_dask(cube):
    lazy = cube.chunk(lat=2, lon=3)
    with parwise.options(isolate=True):
        got = lazy.par.map(
            quantiles, ("lon", "lat"), output_dtypes=float, output_core_dims=["q"], output_sizes={"q": 3}
        ).compute()
    assert_alike(got, loop(quantiles, cube, dims=("lat", "lon"), core=["q"]))
    got = lazy.par.map(ends, ("lat", "lon"), output_dtypes=["f8", "f4"], output_core_dims=[[], []])
    assert [one.dtype for one in got] == ["f8", "f4"]
    assert_alike(got[0].compute(), loop(ends, cube, dims=("lat", "lon"), outputs=2)[0])
    other = xr.DataArray(np.arange(24.0).reshape(4, 3, 2), {"lat": cube.lat}, ("lon", "lat", "time"))
    got = lazy.par.map(lambda x, y: x.sum() + y[1], ("lat", "lon"), other, output_dtypes=float, output_core_dims=[])
    assert_alike(got.compute(), cube.par.map(lambda x, y: x.sum() + y[1], ("lat", "lon"), other))


def test_dask_labels(cube):
    def func(x):
        assert_alike(x, cube.sel(time=x.time, lat=x.lat))
        return x.max() * x.time.dt.day

    want = cube.par.map(func, ("lat", "time"), as_xarray=True)
    got = cube.chunk(time=5, lat=2).par.map(
        func, ("lat", "time"), as_xarray=True, output_dtypes=float, output_core_dims=[]
    )
    assert got.chunks == ((5, 5, 2), (2, 1))
    assert_same(got.compute().data, want.data)
    assert set(got.coords) == {"time", "lat", "season", "hours", "height"}


@pytest.mark.parametrize("length", [1, 2, 5])
def test_dask_objects_of_labelled_functions_are_what_they_are(length):
    """Of those that happen to be in one chunk NumPy would make strings, or floats."""
    data = np.empty(5, object)
    data[:] = [3, "x", 2.5, 3, None]
    array = xr.DataArray(xr.Variable("t", data, fastpath=True))
    got = array.chunk(t=length).par.map(lambda x: x, "t", as_xarray=True, output_dtypes=object).compute()
    assert_alike(got, array)
    assert_alike(got, array.par.map(lambda x: x, "t", as_xarray=True))


@pytest.mark.parametrize("length", [1, 2, 4, 7])
def test_dask_objects_are_what_they_are(length):
    values = [3, "x", 2.5, 3, np.float32(1.5), None, {"a": 1}]
    array = xr.DataArray(np.arange(7), {"t": np.arange(7)}, "t")
    lazy, how = array.chunk(t=length), {"output_dtypes": object, "output_core_dims": []}
    for obj in lazy, array:
        got = obj.par.map(lambda k: values[k], "t", **how)
        assert repr(got.compute().to_numpy().tolist()) == repr(values)
    for obj in lazy, array:
        got = obj[:4].par.map(lambda k: xr.DataArray(values[int(k)]), "t", as_xarray=True, **how)
        assert repr(got.compute().to_numpy().tolist()) == repr(values[:4])
    both = lazy.par.map(
        lambda k: (values[k], k, [values[k]]),
        "t",
        output_dtypes=[object, int, object],
        output_core_dims=[[], [], ["q"]],
        output_sizes={"q": 1},
    )
    found = dask.compute(*both)
    assert repr(found[0].to_numpy().tolist()) == repr(values)
    assert_same(found[1].to_numpy(), array.to_numpy())
    for func in (lambda k: np.float64(k)), (lambda k: int(k)), (lambda k: "a" * int(k)):
        assert_alike(lazy.par.map(func, "t", **how).compute(), array.par.map(func, "t", **how))


@pytest.mark.parametrize("as_xarray", [False, True])
@pytest.mark.parametrize("name", ["mixed", "numbers", "text"])
def test_gaps_among_objects_are_alike_in_memory_and_in_dasks_blocks(name, as_xarray):
    """None; xarray itself makes NaN of None among text, if pandas does."""
    values = {"mixed": [3, "x", 2.5, 2**60 + 1], "numbers": [3, 2.5, 2**60 + 1, 4], "text": ["a", "bc", "d", "e"]}[name]
    array = xr.DataArray(np.arange(5), {"t": np.arange(5)}, "t")

    def func(k):
        value = [*values[:2], None, *values[2:]][int(k)]
        if value is None:
            raise ValueError
        return xr.DataArray(value) if as_xarray else value

    how = {"output_dtypes": object, "output_core_dims": [], "errors": "ignore", "as_xarray": as_xarray}
    with pytest.warns(RuntimeWarning, match="no result for 1"):
        got = [obj.par.map(func, "t", **how).compute() for obj in (array, array.chunk(t=2))]
    want = xr.DataArray(np.array([*values[:2], None, *values[2:]], object), {"t": np.arange(5)}, "t")
    for one in got:
        assert one.dtype == object
        assert repr(one.to_numpy().tolist()) == repr(want.to_numpy().tolist())


@pytest.mark.parametrize("boundary", [None, "reflect", "nearest", "symmetric", "wrap", ("constant", 2.0)])
def test_dask_blocks(cube, boundary):
    def smooth(x):
        return x - 0.5 * np.roll(x, 1, 0) + 0.1 * np.roll(x, -1, 0)

    how = {"vectorized": True, "chunk": 4, "depth": 1, "boundary": boundary}
    lazy = cube.chunk(time=5, lat=1)
    got = lazy.par.map(smooth, "time", output_dtypes=float, **how)
    assert got.chunks[0] == (5, 5, 2)
    assert_alike(got.compute(), cube.par.map(smooth, "time", **how))

    def draw(x, rng):
        return x + rng.random()

    got = lazy.par.map(draw, "time", output_dtypes=float, vectorized=True, chunk=4, rng=3)
    assert_alike(got.compute(), cube.par.map(draw, "time", vectorized=True, chunk=4, rng=3))


@pytest.mark.parametrize("boundary", ["reflect", "nearest", "symmetric", "wrap", "constant"])
@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_dask_blocks_with_a_halo_as_long_as_the_array(length, boundary):
    """Where `dask.array.pad` pads too little, or raises."""
    array = xr.DataArray(np.arange(float(length)) + 1, dims="x")
    seen = []

    def see(x):
        seen.append(x.tolist())
        return x

    for depth in (1, 2, 3, 7):
        how = {"vectorized": True, "chunk": max(1, min(2, length)), "depth": depth, "boundary": boundary}
        seen.clear()
        array.par.map(see, "x", executor="serial", **how)
        want = sorted(seen)
        seen.clear()
        assert_alike(array.chunk(x=1).par.map(see, "x", output_dtypes=float, **how).compute(), array)
        assert sorted(seen) == want


@pytest.mark.parametrize(
    ("dtype", "value"), [("S2", b"q"), ("U3", "abcd"), ("S2", None), (object, "x"), ("M8[s]", None)]
)
def test_dask_blocks_between_constants(dtype, value):
    array, seen = xr.DataArray(np.arange(12).astype(dtype).reshape(2, 6), dims=("y", "x")), []

    def see(x):
        seen.append(repr((x.dtype, x.tolist())))
        return np.zeros(x.shape)

    boundary = "constant" if value is None else ("constant", value)
    how = {"vectorized": True, "chunk": 3, "depth": 2, "boundary": boundary, "output_dtypes": float}
    array.par.map(see, "x", executor="serial", **how)
    want = sorted(seen)
    seen.clear()
    array.chunk(x=2, y=1).par.map(see, "x", **how).compute()
    assert sorted(seen) == want


@pytest.mark.parametrize("dim", ["time", "lat"])
def test_dask_labelled_blocks(cube, dim):
    def func(x):
        assert_alike(x, cube.sel({dim: x[dim]}))
        return (x * x[dim].dt.day if dim == "time" else x + x.lat).transpose("lon", ...)

    how = {"vectorized": True, "chunk": 2, "as_xarray": True}
    lazy = cube.chunk(time=5, lat=1)
    got = lazy.par.map(func, dim, output_dtypes=float, **how)
    assert got.chunks == (lazy.chunks[0] if dim == "time" else (12,), lazy.chunks[1] if dim == "lat" else (3,), (4,))
    assert_same(got.compute().data, cube.par.map(func, dim, **how).transpose(*cube.dims).data)
    assert set(got.coords) == set(cube.coords)

    def reduced(x, rng):
        return x.max("lon"), x.sum("lon") * rng.random()

    how = {**how, "rng": 3}
    dims = [["time" if dim == "lat" else "lat"]] * 2
    got = lazy.par.map(reduced, dim, output_dtypes=[float, float], output_core_dims=dims, **how)
    for one, other in zip(got, cube.par.map(reduced, dim, **how), strict=True):
        assert_same(one.to_numpy(), other.to_numpy())
    with pytest.raises(ValueError, match="dimensions 'time', 'lat', but output_core_dims says .*'lon'"):
        lazy.par.map(lambda x: x.max("lon"), dim, output_dtypes=float, **{**how, "rng": None}).compute()


def test_dask_groups_and_windows(cube):
    def anomaly(x):
        return x - x.mean("time")

    got = cube.copy(data=cube.chunk(time=5).data).par.map_groups(anomaly, "season", output_dtypes=float)
    assert got.chunks is not None
    with xr.set_options(keep_attrs=True):  # as by default from xarray 2025.11 on
        want = cube.groupby("season").map(anomaly)
        means = cube.groupby("season").map(lambda x: x.mean("time"))
    assert_alike(got.compute(), want)
    got = cube.copy(data=cube.chunk(time=5).data).par.map_groups(
        lambda x: x.mean("time"), "season", output_dtypes=float, output_core_dims=["lat", "lon"]
    )
    assert_alike(got.compute(), means)
    got = cube.chunk(time=5).par.map_windows(
        np.sum, time=3, dim=("lat", "lon"), min_periods=3, output_dtypes=float, output_core_dims=[]
    )
    want = cube.par.map_windows(np.sum, time=3, dim=("lat", "lon"), min_periods=3)
    assert_alike(got.compute(), want)


def test_options_hold_where_the_map_is_made(cube):
    calls = []

    def bad(x):
        return x.sum() if x[0] > 0 else 1 / 0

    how = {"output_dtypes": float, "output_core_dims": []}
    lazy = cube.chunk(lat=1)
    with parwise.options(errors="ignore", setup=lambda: calls.append(1)):
        made = lazy.par.map(bad, ("lat", "lon"), **how)
        with pytest.warns(parwise.GapWarning):
            want = cube.par.map(bad, ("lat", "lon"), executor="serial")
        groups = cube.copy(data=lazy.data).par.map_groups(
            lambda x: x.isel(time=0) if (x.season != "b").all() else 1 / 0,
            "season",
            **{**how, "output_core_dims": ["lat", "lon"]},
        )
    before = len(calls)
    with pytest.warns(parwise.GapWarning):
        assert_alike(made.compute(), want)
    assert len(calls) == before + 1
    with pytest.warns(parwise.GapWarning):
        assert groups.compute().isnull().all(("lat", "lon")).data.tolist() == [False, True, False]
    strict = lazy.par.map(bad, ("lat", "lon"), **how)
    with parwise.options(errors="ignore"), pytest.raises(ZeroDivisionError):
        strict.compute()


@pytest.mark.parametrize("kind", ["numbers", "objects", "file"])
def test_arrays_beside_those_of_dask(cube, kind, tmp_path):
    """Dask would cut them along all dimensions where they are larger than its chunks."""

    def both(x, y):
        return x.size * 1000 + np.ravel(y).astype(float).sum()

    # Sums of integers have the same bits in any order.
    other = cube.round().rename("v").reset_coords(drop=True).transpose("lat", "time", "lon")
    if kind == "objects":
        other = other.astype(object)
    beside = other
    if kind == "file":
        other.drop_encoding().to_dataset().to_netcdf(tmp_path / "v.nc")
        beside = xr.open_dataset(tmp_path / "v.nc")["v"]
    how = {"output_dtypes": float, "output_core_dims": []}
    with dask.config.set({"array.chunk-size": "128B"}):
        for lazy, dims in (cube.chunk(lat=1, time=-1, lon=-1), "lat"), (cube.chunk(lat=(2, 1), lon=3), ("lat", "lon")):
            want = cube.par.map(both, dims, other)
            assert_alike(lazy.par.map(both, dims, beside, **how).compute(), want)
            got = beside.par.map(lambda y, x: both(x, y), dims, lazy, **how)
            assert got.chunksizes == {dim: lazy.chunksizes[dim] for dim in got.dims}
            assert_same(got.compute().to_numpy(), want.to_numpy())
        blocks = beside.par.map(
            lambda y, x: y.astype(float).sum((1, 2)),
            "lat",
            cube.transpose("lat", ...).chunk(lat=1),
            vectorized=True,
            chunk=2,
            **how,
        )
        want = other.par.map(lambda y: y.astype(float).sum((1, 2)), "lat", vectorized=True, chunk=2)
        assert_same(blocks.compute().to_numpy(), want.to_numpy())
    beside.close()


def test_dask_on_a_cluster(cube, dask_client):
    lazy = cube.chunk(lat=1)
    got = lazy.par.map(lambda x: x.sum() / 3, ("lat", "lon"), output_dtypes=float, output_core_dims=[])
    assert_alike(got.compute(), loop(lambda x: x.sum() / 3, cube, dims=("lat", "lon")))


BAD_LAZY = {
    "dtypes": ({"output_core_dims": []}, "pass output_dtypes"),
    "core dims": ({"output_dtypes": float}, r"pass (the dimensions|those) of func's results, output_core_dims=\[\]"),
    "sizes": ({"output_dtypes": float, "output_core_dims": ["q"]}, "pass output_sizes={'q': ...}"),
    "workers": (
        {"output_dtypes": float, "output_core_dims": [], "workers": 3},
        "'workers' have no effect on data in Dask's blocks",
    ),
    "depth": (
        {"output_dtypes": float, "output_core_dims": [], "depth": 1},
        "depth=1 is for block functions",
    ),
    "chunk": (
        {"output_dtypes": float, "output_core_dims": [], "chunk": 2},
        "chunk=2 is the length of blocks",
    ),
    "blas_threads": (
        {"output_dtypes": float, "output_core_dims": [], "blas_threads": 1},
        "'blas_threads' have no effect on data in Dask's blocks",
    ),
}


@pytest.mark.parametrize("case", BAD_LAZY)
def test_bad_input_for_dask(case, cube):
    how, message = BAD_LAZY[case]
    with pytest.raises(ValueError, match=message):
        cube.chunk(lat=1).par.map(same, "lat", **how)


def test_more_bad_input_for_dask(cube):
    lazy = cube.chunk(time=3)
    with pytest.raises(ValueError, match=r"func needs all of 'time' at once, which is in 4 chunks"):
        lazy.par.map(same, "lat", output_dtypes=float, output_core_dims=[])
    with pytest.raises(TypeError, match=r"output_dtypes must be a dtype.*'t2m'.*a dict by variable is for groups"):
        lazy.to_dataset().par.map(same, "time", output_dtypes={"t2m": float}, output_core_dims=[])
    with pytest.raises(ValueError, match="pass output_dtypes"):
        cube.copy(data=lazy.data).par.map_groups(same, "season")
    with pytest.raises(ValueError, match=r"results of shape \(12,\), but .* have shape \(12, 4\)"):
        cube.chunk(lat=1).par.map(
            lambda x: x[:, 0], "lat", output_dtypes=float, output_core_dims=["time", "lon"]
        ).compute()
    for as_xarray in False, True:
        how = {"vectorized": True, "output_dtypes": float, "output_core_dims": [], "as_xarray": as_xarray}
        with pytest.raises(
            ValueError, match=r"keep the mapped axis 1, but .* has 1 dimension.*transpose\('lat', ...\)"
        ):
            cube.chunk(lat=1).par.map(same, "lat", **how)
    got = cube.transpose("lat", ...).chunk(lat=1).par.map(lambda x: x.max(("time", "lon")), "lat", **how)
    assert_same(got.to_numpy(), cube.max(("time", "lon")).to_numpy())
    with pytest.raises(TypeError, match="same_kind"):
        cube.chunk(lat=1).par.map(np.sum, "lat", output_dtypes=int, output_core_dims=[]).compute(
            scheduler="synchronous"
        )
    with pytest.raises(ValueError, match="dimensions 'time', but output_core_dims says 'lon'"):
        cube.chunk(lat=1).par.map(
            lambda x: x[:, 0], "lat", output_dtypes=float, output_core_dims=["lon"], as_xarray=True
        ).compute()


@pytest.mark.parametrize("how", [{}, {"vectorized": True}])
def test_errors_say_what_the_function_got(cube, how):
    one, notes = cube.isel(lat=[0]), []
    told = {"output_dtypes": float, "output_core_dims": ["time", "lon"]}
    for array in one, one.chunk():
        with pytest.raises(AttributeError) as caught:
            array.par.map(lambda x: x.nothing, "lat", **how, **told).compute()
        notes.append(caught.value.__notes__)
    assert notes[0] == notes[1]
    assert len(notes[0]) == 2


def test_chunks_of_unknown_lengths(cube):
    """After a selection by values, as in the arrays that `to_dask_array` of a dataframe gives."""
    lazy, how = cube.chunk(time=5).data, {"output_dtypes": float, "output_core_dims": []}
    chosen = xr.DataArray(lazy[lazy[:, 0, 0] > float(cube[:, 0, 0].median())], dims=cube.dims)
    for case in {}, {"vectorized": True}:
        with pytest.raises(ValueError, match=r"the length of 'time' is not known.*compute_chunk_sizes\(\)"):
            chosen.par.map(same, "time", **how, **case)
    want = np.asarray([one.max() for one in chosen.to_numpy()])
    chosen.data.compute_chunk_sizes()
    assert_same(chosen.par.map(np.max, "time", **how).to_numpy(), want)


class Quantity(np.ndarray):
    """An array with a unit."""


def test_blocks_of_dask_that_are_more_than_arrays_are_refused(cube):
    lazy = cube.chunk(lat=1)
    with pytest.raises(TypeError, match="Quantity, which would lose what makes it one"):
        lazy.copy(data=lazy.data.map_blocks(lambda x: x.view(Quantity))).par.map(
            counting, "lat", vectorized=True, output_dtypes=float
        )
    masks = lazy.data.map_blocks(lambda x: np.ma.masked_less(x, 0), dtype=float, meta=np.empty((0, 0, 0)))
    lying = lazy.copy(data=masks)
    for dim, how in (("lat", "lon"), {"output_core_dims": []}), ("lat", {"vectorized": True}):
        with pytest.raises(TypeError, match="a block of Dask's reads as masked arrays, whose masks would be lost"):
            lying.par.map(counting, dim, output_dtypes=float, **how).compute()


def test_blocks_of_dask_of_another_dtype_are_what_they_are(cube):
    lazy = cube.chunk(lat=1)
    lying = lazy.copy(data=lazy.data.map_blocks(lambda x: x.astype("f4"), dtype=float, meta=np.empty((0, 0, 0))))
    got = lying.par.map(np.sum, ("lat", "lon"), output_dtypes=float, output_core_dims=[])
    want = loop(np.sum, cube.astype("f4"), dims=("lat", "lon")).astype(float)
    assert_same(got.compute().to_numpy(), want.to_numpy())


def test_setup_runs_once_in_each_process(dask_client):
    """Each of the blocks brings the function."""

    def setup():
        builtins.parwise_mark = getattr(builtins, "parwise_mark", 0) + 1

    a = xr.DataArray(np.zeros((12, 3)), dims=("x", "y")).chunk({"x": 2})
    found = a.par.map(
        lambda row: float(builtins.parwise_mark), "x", setup=setup, output_dtypes=float, output_core_dims=[]
    )
    assert set(np.asarray(found.compute())) == {1.0}
    dask_client.run(lambda: vars(builtins).pop("parwise_mark", None))
    vars(builtins).pop("parwise_mark", None)
