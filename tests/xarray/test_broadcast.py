"""Others that lack mapped dimensions, as xarray broadcasts them; core_dims; blocks along several dimensions."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import made
from ..support.examples import examples
from ..support.labelled import assert_alike, loop, make_cube


def both(x, *others):
    """A result of the slice's shape, whose bits depend on every item of every slice."""
    factor = 1.0
    for one in others:
        one = np.asarray(one)
        factor += float((one * np.arange(1.0, one.size + 1).reshape(one.shape)).sum())
    return (np.cumsum(x, axis=-1) if np.ndim(x) else x) * factor


def weights(cube, dims, seed=1):
    """An array over some dimensions of a cube, with its coordinates there."""
    values = np.random.default_rng(seed).standard_normal([cube.sizes[dim] for dim in dims])
    return xr.DataArray(values, {dim: cube[dim] for dim in dims if dim in cube.coords}, dims)


DIMS = [("time",), ("lat",), ("lat", "lon"), ("lon", "time"), ("time", "lat", "lon")]


@examples(60)
@given(
    dims=st.sampled_from(DIMS),
    own=st.lists(st.permutations(["time", "lat", "lon"]).flatmap(lambda p: st.sampled_from([p[:0], p[:1], p[:2], p]))),
    way=st.sampled_from([{"workers": 1}, {"workers": 2, "isolate": True}, {"executor": "threads", "workers": 2}]),
)
def test_others_are_broadcast(dims, own, way):
    cube = make_cube((5, 3, 4))
    others = [weights(cube, one, seed) for seed, one in enumerate(own[:3])]
    core = [dim for dim in cube.dims if dim not in dims]
    assert_alike(cube.par.map(both, dims, *others, **way), loop(both, cube, *others, dims=dims, core=core))


@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize("own", [(), ("lat",), ("lon", "lat"), ("time",)], ids=str)
def test_in_blocks_of_dask(cube, dims, own):
    core = [dim for dim in cube.dims if dim not in dims]
    chunks = dict.fromkeys(dims, 2)
    other = weights(cube, own)
    want = loop(both, cube, other, dims=dims, core=core)
    how = {"output_core_dims": core, "output_dtypes": float}
    assert_alike(cube.chunk(chunks).par.map(both, dims, other, **how).compute(), want)
    assert_alike(cube.par.map(both, dims, other.chunk(), **how).compute(), want)


def test_with_labels_and_executors(cube, runner):
    other = weights(cube, ("lat",))
    want = loop(both, cube, other, dims="time", core=["lat", "lon"])
    assert_alike(cube.par.map(both, "time", other, **runner), want)
    got = cube.par.map(lambda x, w: (x * w).sum("lat"), "time", other, as_xarray=True, **runner)
    slices = [(cube.isel(time=k) * other).sum("lat") for k in range(12)]
    assert got.to_numpy().tobytes() == np.stack([one.to_numpy() for one in slices]).tobytes()
    assert (got.dims, got.time.equals(cube.time)) == (("time", "lon"), True)


def test_a_reference_map_and_its_scalar_label(cube):
    """As in ``cube - cube.isel(time=0)``, the scalar label of the other is not that of the result."""
    first = cube.isel(time=0)
    got = cube.par.map(np.subtract, ("time", "lat", "lon"), first)
    xr.testing.assert_equal(got, cube - first)
    assert got.indexes["time"].equals(cube.indexes["time"])


def test_blocks(cube):
    other = weights(cube, ("lat",))
    got = cube.par.map(lambda x, w: x * w[..., None], "time", other, vectorized=True, chunk=5)
    assert_alike(got, (cube * other).rename("t2m").assign_attrs(cube.attrs))
    turned = cube.transpose("lat", "time", "lon")
    got = turned.par.map(lambda x, w: x * w[..., None], "time", other, vectorized=True, chunk=5)
    assert_alike(got, (turned * other).rename("t2m").assign_attrs(cube.attrs))


def test_datasets_and_files(cube, tmp_path):
    cube.encoding = {}
    ds = cube.to_dataset().assign(more=2 * cube)
    other = weights(cube, ("lat",)).rename("w")
    want = loop(both, cube, other, dims="time", core=["lat", "lon"])
    got = ds.par.map(both, "time", other)
    assert_alike(got.t2m, want)
    assert_alike(got.more, loop(both, ds.more, other, dims="time", core=["lat", "lon"]))
    assert_alike(ds.par.map(both, "time", xr.Dataset({"t2m": other, "more": other})).t2m, want)
    xr.Dataset({"t2m": cube, "w": other}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf", cache=False) as opened:
        xr.testing.assert_equal(opened.t2m.par.map(both, "time", opened.w), want)
        assert not opened.w.variable._in_memory


def never(*_):
    raise AssertionError("func was called")


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda c: weights(c, ("lat",)).rename(lat="y"), "other 1 has no dimension 'time'; it has 'y'"),
        (lambda c: weights(c, ("lat",)).assign_coords(lat=[1, 2, 3]), "the coordinate 'lat' of other 1 differs"),
        (lambda c: weights(c, ("lat",))[:2], "other 1 has length 2 along 'lat', the array 3"),
    ],
)
def test_what_may_be_meant_otherwise_is_refused(cube, other, text):
    with pytest.raises(ValueError, match=text):
        cube.par.map(never, "time", cube, other(cube))


def test_core_dims_leave_variables_alone(cube):
    cube = cube.drop_vars("hours")
    ds = xr.Dataset({"t2m": cube, "mask": cube.isel(time=0, drop=True) > 0, "flag": ("lat", [1, 2, 3])})
    got = ds.par.map(np.median, ("lat", "lon"), core_dims="time")
    assert_alike(got.t2m, loop(np.median, cube, dims=("lat", "lon")))
    assert_alike(got.mask, ds.mask)
    assert_alike(got.flag.drop_vars("height"), ds.flag.drop_vars("height"))
    assert list(ds.par.map(np.median, ("lat", "lon"), core_dims=("time",), on_missing_dim="drop")) == ["t2m"]
    with pytest.raises(ValueError, match="'mask', 'flag' lack some of the dimensions 'lat', 'lon', 'time'"):
        ds.par.map(never, ("lat", "lon"), core_dims="time", on_missing_dim="raise")
    with pytest.raises(ValueError, match="the dataset has no dimension 'day'"):
        ds.par.map(never, ("lat", "lon"), core_dims="day")
    with pytest.raises(ValueError, match="core_dims are dimensions of slices, which do not have 'lat'"):
        ds.par.map(never, ("lat", "lon"), core_dims="lat")
    tree = xr.DataTree.from_dict({"/": ds, "/more": ds.drop_vars("t2m")})
    mapped = tree.par.map(np.median, ("lat", "lon"), core_dims="time")
    assert_alike(mapped["/t2m"], got.t2m)
    assert_alike(mapped["/more/mask"], ds.mask)
    pair = ds.par.map(lambda x: (x.min(), x.max()), ("lat", "lon"), core_dims="time")
    assert [one.mask.dtype for one in pair] == [np.dtype(bool)] * 2


@pytest.mark.parametrize("boundary", [None, {"lon": "wrap"}, ("reflect", "nearest")], ids=str)
def test_blocks_along_several_dimensions(cube, boundary, runner):
    from parwise import parallel_apply

    cube = make_cube((3, 20, 14))
    f = lambda b: np.cumsum(np.cumsum(b, axis=1), axis=2)  # noqa: E731
    in_order = tuple(boundary.get(dim) for dim in ("lat", "lon")) if isinstance(boundary, dict) else boundary
    alike = {"vectorized": True, "verify": False}  # the sums are those of blocks
    want = parallel_apply(f, cube.data, axis=(1, 2), chunk=(6, 5), depth=(2, 1), boundary=in_order, **alike)
    how = {"chunk": {"lat": 6, "lon": 5}, "depth": {"lat": 2, "lon": 1}, "boundary": boundary, **alike}
    assert_alike(cube.par.map(f, ("lat", "lon"), **how, **runner), cube.copy(data=want))
    ds = cube.to_dataset().par.map(f, ("lat", "lon"), **how)
    assert_alike(ds.t2m, cube.copy(data=want))
    out = np.empty(cube.shape)
    assert_alike(cube.par.map(f, ("lat", "lon"), **how, out=out), cube.copy(data=want))


def test_blocks_along_several_dimensions_in_stores_and_errors(cube, tmp_path):
    made.append("zarr")  # its threads stay
    large = make_cube((4, 6, 9)).drop_vars("season")  # zarr has no word for strings of one length
    how = {"vectorized": True, "chunk": {"lat": 2, "lon": 4}}
    got = large.par.map(np.negative, ("lat", "lon"), **how, output_dtypes="f8", out=tmp_path / "s")
    assert got.encoding["preferred_chunks"] == {"time": 4, "lat": 2, "lon": 4}
    assert_alike(got.load().drop_attrs(), (-large).drop_attrs())
    with pytest.raises(ZeroDivisionError) as caught:
        large.par.map(lambda b: 1 / 0, ("lat", "lon"), vectorized=True, chunk=(2, 3))
    assert caught.value.__notes__ == ["in block 0:2, 0:3 along dimensions ('lat', 'lon'), lat=-30.0 to -18.0"]
    with pytest.raises(ValueError, match="blocks along several dimensions, 'lat', 'lon', are for data that is not in"):
        cube.chunk(lat=1).par.map(np.negative, ("lat", "lon"), vectorized=True, output_dtypes="f8")
    with pytest.raises(ValueError, match=r"depth=\{'y': 3\} has a value for 'y', but what is mapped"):
        cube.par.map(never, ("lat", "lon"), vectorized=True, depth={"y": 3})
    got = cube.par.map(np.negative, "time", vectorized=True, chunk={"time": 4}, depth={"time": 1})
    assert_alike(got, cube.copy(data=-cube.data))


def test_words_for_one_dimension_of_dask(cube):
    f = lambda b: np.cumsum(b, axis=0)  # noqa: E731
    want = cube.par.map(f, "time", vectorized=True, chunk=4, depth=2, boundary="wrap")
    for how in (
        {"chunk": {"time": 4}, "depth": {"time": 2}, "boundary": {"time": "periodic"}},
        {"chunk": (4,), "depth": (2,), "boundary": ("wrap",)},
    ):
        lazy = cube.chunk(time=5).par.map(f, "time", vectorized=True, **how, output_dtypes="f8")
        assert_alike(lazy.compute(), want)


def mean_with(x, *others):
    return x.mean() + sum(np.sum(one) for one in others)


WAYS = {
    "array": lambda a, b: a.par.map(mean_with, "t", b),
    "workers": lambda a, b: a.par.map(mean_with, "t", b, workers=2, isolate=True),
    "without attributes": lambda a, b: a.par.map(mean_with, "t", b, keep_attrs=False),
    "dask": lambda a, b: a.chunk(t=2).par.map(mean_with, "t", b, output_core_dims=[], output_dtypes=float),
    "out": lambda a, b: a.par.map(mean_with, "t", b, out=np.empty(4)),
    "dataset": lambda a, b: a.to_dataset(name="v").par.map(mean_with, "t", b)["v"],
    "datasets": lambda a, b: a.to_dataset(name="v").par.map(mean_with, "t", b.to_dataset(name="v"))["v"],
    "tuple": lambda a, b: a.to_dataset(name="v").par.map(lambda *x: (mean_with(*x),) * 2, "t", b)[1]["v"],
    "copied": lambda a, b: xr.Dataset({"v": a, "w": a.isel(t=0, drop=True)}).par.map(mean_with, "t", b)["v"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("z", [1, 2])
@pytest.mark.parametrize("q", [[1, 2, 3, 4], [1, 2, 3, 5]], ids=["same", "other"])
def test_coordinates_that_differ_are_left_out_as_by_apply_ufunc(way, z, q):
    a = xr.DataArray(np.arange(12.0).reshape(4, 3), dims=("t", "x"), coords={"t": range(4), "z": 1, "own": 5})
    a = a.assign_coords(q=("t", [1, 2, 3, 4]))
    b = xr.DataArray(np.arange(4.0), dims="t", coords={"t": range(4), "z": z, "q": ("t", q), "theirs": ("t", q)})
    want = xr.apply_ufunc(
        lambda x, y: x.mean(-1) + y, a, b, input_core_dims=[["x"], []], join="exact", keep_attrs="override"
    )
    assert {"own", "theirs"} <= set(want.coords)
    got = WAYS[way](a, b)
    xr.testing.assert_identical(got.compute().rename(None), want)


def test_a_coordinate_named_as_a_dimension_of_the_result_is_left_out():
    """That of ``cube.isel(x=0)``: no file can hold it beside the dimension."""
    a = xr.DataArray(np.arange(12.0).reshape(4, 3), dims=("t", "x"), name="v")
    b = xr.DataArray(np.arange(4.0), dims="t", coords={"x": 7})
    want = xr.DataArray(np.arange(12.0).reshape(4, 3) + np.arange(4.0)[:, None], dims=("t", "x"), name="v")
    xr.testing.assert_identical(a.par.map(np.add, "t", b), want)
    xr.testing.assert_identical(a.to_dataset().par.map(np.add, "t", b), want.to_dataset())
