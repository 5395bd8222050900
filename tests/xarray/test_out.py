"""`out` and `resume` of `.par.map`: the result is in a file, with xarray's labels over it."""

from __future__ import annotations

import gc
import os

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import parwise

from ..conftest import made
from ..support.internals import TaskQueue
from ..support.labelled import make_cube
from ..support.stopping import Stopping


@pytest.fixture(autouse=True)
def _files_are_closed():
    made.append("zarr")  # its threads stay
    yield
    gc.collect()


@pytest.fixture
def short_tasks(monkeypatch):
    """Tasks of one element: of a task in which the function raises nothing counts."""
    monkeypatch.setattr(TaskQueue, "_size", lambda *arguments: 1)


def memmap(path, shape, dtype="f8"):
    mode = "r+" if path.exists() else "w+"
    return np.lib.format.open_memmap(path, mode=mode, shape=shape, dtype=dtype)


def zarr_array(path, shape, dtype="f8"):
    return zarr.open_array(path, mode="a", shape=shape, chunks=(2, *shape[1:]), dtype=dtype)


def dataset(path, shape, dtype="f8"):
    return h5py.File(path, "a").require_dataset("x", shape, dtype, exact=True)


OUTS = {
    "memmap": memmap,
    "zarr": zarr_array,
    "hdf5": dataset,
    "memory": lambda _, shape, dtype="f8": np.empty(shape, dtype),
}


def assert_identical(result, expected):
    """Compare all labels, attributes and the bytes of the values."""
    xr.testing.assert_identical(result, expected)
    assert (result.dims, result.dtype) == (expected.dims, expected.dtype)
    assert result.to_numpy().tobytes() == expected.to_numpy().tobytes()


MAPS = {
    "slices": (np.cumsum, "time", {"output_core_dims": ["point"]}, (12, 12)),
    "scalars": (np.sum, "time", {}, (12,)),
    "pixels": (np.ptp, ("lat", "lon"), {}, (3, 4)),
    "pixels, in another order": (np.ptp, ("lon", "lat"), {}, (3, 4)),
    "a new dimension": (np.cumsum, ("lat", "lon"), {"output_core_dims": ["q"]}, (3, 4, 12)),
    "the last one": (np.cumsum, "lon", {"output_core_dims": ["q"]}, (4, 36)),
}


@pytest.mark.parametrize("what", MAPS)
@pytest.mark.parametrize("kind", OUTS)
def test_the_result_is_in_out_with_labels(tmp_path, cube, kind, what):
    func, dim, how, shape = MAPS[what]
    out = OUTS[kind](tmp_path / "out", shape)
    expected = cube.par.map(func, dim, **how)
    result = cube.par.map(func, dim, out=out, **how)
    assert np.asarray(out[...]).tobytes() == expected.to_numpy().tobytes()
    if kind in ("zarr", "hdf5"):
        assert not result.variable._in_memory
    else:
        assert np.shares_memory(result.to_numpy(), out)
    assert_identical(result, expected)
    if kind != "memory":
        reopened = OUTS[kind](tmp_path / "out", shape)
        assert np.asarray(reopened[...]).tobytes() == expected.to_numpy().tobytes()


def test_slices_keep_their_dimensions(tmp_path, cube):
    for number, kind in enumerate(OUTS):
        out = OUTS[kind](tmp_path / str(number), (12, 3, 4))
        assert_identical(cube.par.map(np.negative, "lat", out=out), cube.par.map(np.negative, "lat"))


def test_other_arrays_and_halo(tmp_path, cube):
    def smooth(block, other):
        return np.roll(block, 1, 0) + other

    how = {"vectorized": True, "chunk": 2, "depth": 1, "boundary": "wrap"}
    expected = cube.par.map(smooth, "time", 2 * cube, **how)
    for number, kind in enumerate(OUTS):
        out = OUTS[kind](tmp_path / str(number), (12, 3, 4))
        assert_identical(cube.par.map(smooth, "time", 2 * cube, out=out, **how), expected)


def test_results_made_in_another_order(tmp_path, cube):
    """A memmap is written by a transposed view; a file cannot be."""
    how = {"output_core_dims": ["lon", "lat"]}
    expected = cube.par.map(np.transpose, "time", **how)
    assert expected.dims == ("time", "lat", "lon")
    assert_identical(cube.par.map(np.transpose, "time", out=memmap(tmp_path / "out", (12, 3, 4)), **how), expected)
    with pytest.raises(
        ValueError, match=r"results are made with the dimensions 'time', 'lon', 'lat'.*pass a np.memmap"
    ):
        cube.par.map(np.transpose, "time", out=zarr_array(tmp_path / "zarr", (12, 3, 4)), **how)


def test_the_result_is_read_only_where_it_is_used(tmp_path, cube):
    out = zarr_array(tmp_path / "out", (12, 3, 4))
    result = cube.par.map(np.negative, "time", out=out)
    assert_identical(result[3:9:2, ::-1], -cube[3:9:2, ::-1])
    assert_identical(result.isel(lat=[2, 0]), -cube.isel(lat=[2, 0]))
    assert not result.variable._in_memory
    # A map of it reads from the file in turn.
    assert result.encoding["preferred_chunks"] == {"time": 2, "lat": 3, "lon": 4}
    assert_identical(result.par.map(np.negative, "time"), cube)
    result[0, 0, 0] = 7.0
    assert out[0, 0, 0] == -cube.to_numpy()[0, 0, 0]


@pytest.mark.usefixtures("short_tasks")
@pytest.mark.parametrize("kind", ["memmap", "zarr", "hdf5"])
def test_a_stopped_run_goes_on(tmp_path, kind):
    cube, f = numbered(), Stopping(tmp_path, np.negative)
    how = {"resume": tmp_path / "journal", "workers": 1}
    with f.stopped_at(7):
        cube.par.map(f, "time", out=OUTS[kind](tmp_path / "out", cube.shape), **how)
    assert f.calls() == list(range(8))
    result = cube.par.map(f, "time", out=OUTS[kind](tmp_path / "out", cube.shape), **how)
    assert f.calls() == list(range(6 if kind == "zarr" else 7, 12))
    assert_identical(result, cube.par.map(np.negative, "time"))
    again = cube.par.map(f, "time", out=OUTS[kind](tmp_path / "out", cube.shape), **how)
    assert f.calls() == []
    assert_identical(again, result)


@pytest.mark.parametrize("engine", ["netcdf4", "zarr"])
def test_an_array_in_a_file_is_known_by_its_values(tmp_path, engine):
    cube = make_cube().drop_encoding().drop_vars("season")
    path = tmp_path / "cube"
    opened = write(cube, path, engine)
    how = {"out": memmap(tmp_path / "out", cube.shape), "resume": tmp_path / "journal", "workers": 1}
    assert_identical(opened.par.map(np.negative, "time", **how), cube.par.map(np.negative, "time"))
    again = write(cube, tmp_path / "moved", engine)
    assert_identical(again.par.map(np.negative, "time", **how), cube.par.map(np.negative, "time"))
    other = write(cube + 1, tmp_path / "other", engine)
    with pytest.raises(ValueError, match="array 0 changed"):
        other.par.map(np.negative, "time", **how)


def write(cube, path, engine):
    if engine == "zarr":
        cube.to_zarr(path, consolidated=False)
        return xr.open_zarr(path, chunks=None, consolidated=False)[cube.name]
    cube.to_netcdf(path, engine=engine)
    return xr.open_dataset(path, engine=engine)[cube.name]


def numbered():
    """A cube whose slices along time begin with their number."""
    cube = make_cube().drop_encoding().drop_vars("season")
    cube[:, 0, 0] = np.arange(12.0)
    return cube


STORE = {"output_core_dims": ["lat", "lon"], "output_dtypes": "f8"}


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "u1", "c16"])
def test_a_store_reads_as_the_result(tmp_path, dtype):
    cube = make_cube(dtype=dtype).drop_encoding().drop_vars("season")
    how = {"output_core_dims": ["lat", "lon"], "output_dtypes": dtype}
    expected = cube.par.map(np.negative, "time", **how)
    result = cube.par.map(np.negative, "time", out=tmp_path / "store", **how)
    assert not result.variable._in_memory
    assert_identical(result, expected)
    read = xr.open_zarr(tmp_path / "store", chunks=None)
    assert list(read.data_vars) == ["t2m"]
    assert_identical(read["t2m"], expected)
    assert sorted(os.listdir(tmp_path)) == ["store"]
    with pytest.raises(FileExistsError, match="exists; pass another path"):
        cube.par.map(np.negative, "time", out=tmp_path / "store", **how)


def test_a_store_of_a_function_that_changes_the_working_directory(tmp_path, monkeypatch):
    def f(row):
        os.chdir(tmp_path / "elsewhere")
        return np.negative(row)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    cube = make_cube().drop_encoding().drop_vars("season")
    how = {"output_core_dims": ["lat", "lon"], "output_dtypes": cube.dtype}
    result = cube.par.map(f, "time", out="store", workers=1, **how)
    assert_identical(result, cube.par.map(np.negative, "time", **how))
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "store"]


STORES = {
    "a new dimension": (np.cumsum, ("lat", "lon"), {"output_core_dims": ["q"], "output_sizes": {"q": 12}}),
    "scalars": (np.sum, ("lat", "lon"), {"output_core_dims": []}),
    "blocks": (np.negative, "time", {"vectorized": True, "chunk": 5}),
    "blocks by plan": (np.negative, "lon", {"vectorized": True}),
}


@pytest.mark.parametrize("what", STORES)
def test_stores_of_all_shapes(tmp_path, what):
    func, dim, how = STORES[what]
    cube = numbered()
    result = cube.par.map(func, dim, out=str(tmp_path / "store"), output_dtypes="f8", **how)
    assert_identical(result, cube.par.map(func, dim, output_dtypes="f8", **how))
    assert_identical(xr.open_zarr(tmp_path / "store", chunks=None)["t2m"], result)


def test_chunks_are_whole_results(tmp_path):
    long = xr.DataArray(np.zeros((64, 3, 5)), dims=("x", "y", "z"), name="a")
    how = {"output_core_dims": ["y", "z"], "output_dtypes": "f8"}
    long.par.map(np.negative, "x", out=tmp_path / "store", **how)
    assert zarr.open_group(tmp_path / "store")["a"].chunks == (4, 3, 5)


@pytest.mark.parametrize("values", [np.full(4, -0.0, "c16"), np.full(4, 0x7FF8000000000001, "u8").view("f8")])
def test_a_store_keeps_all_bits(tmp_path, values):
    """zarr leaves out chunks that it takes for the fill value."""
    array = xr.DataArray(values, dims="x", name="a")
    array.par.map(lambda x: x, "x", out=tmp_path / "store", output_dtypes=values.dtype)
    assert zarr.open_group(tmp_path / "store")["a"][:].tobytes() == values.tobytes()
    assert xr.open_zarr(tmp_path / "store", chunks=None)["a"].to_numpy().tobytes() == values.tobytes()


@pytest.mark.usefixtures("short_tasks")
def test_a_store_goes_on(tmp_path):
    cube, f = numbered(), Stopping(tmp_path, np.negative)
    how = {"out": tmp_path / "store", "resume": tmp_path / "journal", "workers": 1, **STORE}
    with f.stopped_at(7):
        cube.par.map(f, "time", **how)
    # Until all is there nobody can take it for the result.
    assert not (tmp_path / "store").exists()
    assert f.calls() == list(range(8))
    with pytest.raises(ValueError, match=r"different labels or attributes than the result of this call, in 'lat'"):
        cube.assign_coords(lat=[1.0, 2.0, 3.0]).par.map(f, "time", **how)
    with pytest.raises(ValueError, match="array 0 changed"):
        (cube + 1).assign_attrs(cube.attrs).par.map(f, "time", **how)
    with pytest.raises(FileExistsError, match="a run that was killed, or is at work"):
        cube.par.map(f, "time", out=tmp_path / "store", **STORE)
    assert f.calls() == []
    result = cube.par.map(f, "time", **how)
    assert f.calls() == list(range(7, 12))
    assert_identical(result, cube.par.map(np.negative, "time"))
    assert_identical(xr.open_zarr(tmp_path / "store", chunks=None)["t2m"], result)
    # All is there: nothing is computed.
    assert_identical(cube.par.map(f, "time", **how), result)
    assert f.calls() == []
    # Killed after its end was noted, before it got its name.
    os.rename(tmp_path / "store", tmp_path / "store.partial")
    assert_identical(cube.par.map(f, "time", **how), result)
    assert f.calls() == []
    assert (tmp_path / "store").exists()


def test_a_store_without_a_journal_is_begun_anew_or_refused(tmp_path):
    cube = numbered()
    how = {"out": tmp_path / "store", "resume": tmp_path / "journal", **STORE}
    (tmp_path / "store.partial").mkdir()  # of a run that was killed before its journal was begun
    (tmp_path / "store.partial" / "half").write_text("")
    result = cube.par.map(np.negative, "time", **how)
    assert_identical(result, cube.par.map(np.negative, "time"))
    with pytest.raises(FileExistsError, match="is no journal of a run that has made it"):
        cube.par.map(np.negative, "time", **{**how, "resume": tmp_path / "another"})
    os.rename(tmp_path / "store", tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="journal"):
        cube.par.map(np.negative, "time", **how)


def test_no_store_is_left_of_a_call_that_failed(tmp_path):
    def fail(element):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        numbered().par.map(fail, "time", out=tmp_path / "store", **STORE)
    assert os.listdir(tmp_path) == []


def never(*_):
    raise AssertionError("called")


REFUSED = [
    ({"out": 3}, TypeError, "out must be an array of NumPy .*, got builtins.int"),
    ({"out": (np.empty(12), np.empty(12))}, ValueError, "for a function with one result"),
    ({"out": np.empty(12), "output_dtypes": ["f8", "f8"]}, ValueError, "for a function with one result"),
    ({"out": np.empty(12), "as_xarray": True}, ValueError, "out= is for functions of arrays"),
    ({"out": np.empty(11)}, ValueError, r"out has shape \(11,\), but the result has \(12,\), of the dimensions 'time'"),
    ({"out": np.empty((12, 4, 3))}, ValueError, r"but the result has \(12, 3, 4\)"),
    ({"out": np.empty((12, 3))}, ValueError, "which are not told; pass output_core_dims"),
    ({"out": np.empty((12, 3)), "output_core_dims": []}, ValueError, "pass output_core_dims with one name"),
    ({"out": np.empty(12), "output_dtypes": "f4"}, ValueError, "output_dtypes says float32, but out has dtype float64"),
    ({"out": np.empty(12), "resume": "j"}, ValueError, "resume needs an out in a file that keeps results"),
    ({"resume": "j"}, ValueError, "resume='j' needs an array in files where results are kept: pass out="),
    ({"out": "s"}, ValueError, r"pass (the dimensions|those) of func's results, output_core_dims=\[\] for scalars"),
    ({"out": "s", "output_core_dims": []}, ValueError, "pass output_dtypes"),
    ({"out": "s", **STORE, "output_dtypes": "M8[s]"}, ValueError, "xarray encodes results of dtype"),
    ({"out": "s", "output_core_dims": ["q"], "output_dtypes": "f8"}, ValueError, "pass output_sizes"),
    ({"out": "s3://bucket/s", **STORE}, ValueError, "must be a path on this machine"),
    (
        {"out": "s", "vectorized": True, "output_dtypes": "f8", "resume": "j"},
        ValueError,
        "all of 'time' is one block of 12 elements; pass a smaller one as chunk=",
    ),
]


@pytest.mark.parametrize("how", [{}, {"vectorized": True}], ids=["elements", "blocks"])
@pytest.mark.parametrize("kind", [*OUTS, "store"])
def test_integers_beyond_the_range_are_an_error(tmp_path, kind, how):
    """Also where results go to a file: 195 became -61."""
    array = xr.DataArray(np.arange(0, 300, 15), dims="x", name="a")
    out = tmp_path / "store" if kind == "store" else OUTS[kind](tmp_path / "out", (20,), "i1")
    with pytest.raises(ValueError, match="135, which lies beyond its range; pass output_dtypes='int64'"):
        array.par.map(lambda x: x, "x", out=out, output_dtypes="i1", **how)
    out = tmp_path / "second" if kind == "store" else OUTS[kind](tmp_path / "second", (20,), "i2")
    assert (
        array.par.map(lambda x: x, "x", out=out, output_dtypes="i2", **how).to_numpy().tolist() == array.values.tolist()
    )


@pytest.mark.parametrize(("how", "error", "words"), REFUSED)
def test_refused_before_any_work(tmp_path, monkeypatch, cube, how, error, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        cube.par.map(never, "time", **how)
    assert os.listdir(tmp_path) == []


def test_maps_without_out(tmp_path, cube):
    data, out = cube.to_dataset(), np.empty(12)
    tree = xr.DataTree.from_dict({"/": data})
    calls = {
        "a Dataset": lambda: data.par.map(never, "time", out=out),
        "a DataTree": lambda: tree.par.map(never, "time", out=out),
        "map_groups": lambda: cube.par.map_groups(never, "season", out=out),
        "map_windows": lambda: cube.par.map_windows(never, time=3, out=out),
    }
    for what, call in calls.items():
        with pytest.raises(ValueError, match=f"not for {what}; map one variable at a time"):
            call()
    with pytest.raises(ValueError, match="resume='j' needs an array in files"):
        data.par.map(never, "time", resume="j")
    with pytest.raises(ValueError, match="out= is not for data in Dask's blocks.*to_zarr"):
        cube.chunk().par.map(never, "time", out=out)
    with pytest.raises(ValueError, match="the name of the array is None.*rename"):
        cube.rename(None).par.map(never, "time", out=tmp_path / "s", **STORE)


def test_out_in_the_file_that_is_read(tmp_path, cube):
    cube = cube.drop_encoding().drop_vars("season")
    opened = write(cube, tmp_path / "store", "zarr")
    own = zarr.open_group(tmp_path / "store")["t2m"]
    for array in (opened, cube):
        result = array.par.map(np.negative, "time", out=zarr_array(tmp_path / "out", cube.shape))
    for array, out in ((opened, own), (result, zarr_array(tmp_path / "out", cube.shape))):
        with pytest.raises(ValueError, match="from which the array is read during the call"):
            array.par.map(never, "time", out=out)
    with pytest.raises(ValueError, match="from which other 0 is read during the call"):
        cube.par.map(never, "time", opened, out=own)


def test_results_unlike_out(tmp_path, cube):
    for func in (lambda a: (a.sum(), a.min()), np.sum, lambda a: a[0]):
        with pytest.raises(ValueError, match="out"):
            cube.par.map(func, "time", out=zarr_array(tmp_path / "out", (12, 3, 4)))


def test_gaps(tmp_path, cube):
    def some(element):
        if element[0, 0] == first:
            raise RuntimeError("no")
        return element.sum()

    first = cube.to_numpy()[3, 0, 0]
    out = zarr_array(tmp_path / "out", (12,))
    with pytest.warns(RuntimeWarning, match="no result for 1 of 12"):
        result = cube.par.map(some, "time", out=out, errors="ignore")
    assert np.isnan(result.to_numpy()).tolist() == [k == 3 for k in range(12)]


def test_over_workers(tmp_path, cube):
    out = zarr_array(tmp_path / "out", (12, 3, 4))
    with parwise.options(isolate=True, workers=2):
        result = cube.par.map(np.negative, "time", out=out, resume=tmp_path / "journal")
    assert_identical(result, cube.par.map(np.negative, "time"))
