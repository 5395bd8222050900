"""Arrays that workers open themselves: nothing of them passes through the caller."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sys
import threading
import time
import types
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import parwise
from parwise import parallel_apply, parallel_map
from parwise._core.inputs import source
from parwise._core.inputs.foreign import UnreadableError
from parwise._core.inputs.recipes import FileInput, recipe_of
from parwise._core.inputs.source import ReadAhead
from parwise._core.outputs.sink import FileSink
from parwise._core.outputs.stored import FileOutput
from parwise._executors import futures
from parwise._executors.job import files
from parwise._executors.remote import runner
from parwise._workers import remote
from parwise._workers.pool.default_pool import default_pool

from ..conftest import made
from ..support.oracle import assert_same
from ..support.oracle import loop as plain_loop
from ..support.sources import Stored

with contextlib.suppress(ImportError):
    import netCDF4  # noqa: F401 - here, since it sets environment variables

A = np.random.default_rng(0).normal(size=(120, 6, 8))


def plus(x):
    return x + 1


def neighbours(block):
    return block + np.roll(block, 1, 0)


def layout(x):
    """What a function can see of its argument's memory."""
    return np.array([*x.strides, x.ctypes.data % 64, x.flags.writeable, x.flags.owndata], float)


def mean_of_row(x):
    return x.ravel() @ x.ravel()


@pytest.fixture(scope="module")
def other_processes():
    """Processes that are not parwise's own, in which nothing is imported yet."""
    made.append("elsewhere")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        list(executor.map(time.sleep, [0.05] * 2))  # both processes are there from the start
        yield executor


def read_also_small_ones(monkeypatch):
    """Have own workers open small files too, and the caller read no more ahead than to the end of a chunk."""
    monkeypatch.setattr(files, "OWN_BYTES", 0)
    monkeypatch.setattr(source, "READ_BYTES", 1)
    monkeypatch.setattr(files, "READ_BYTES", 1)


@pytest.fixture(params=["other processes", "own workers"])
def elsewhere(request, monkeypatch):
    """An executor whose workers open files, also small ones."""
    if request.param == "other processes":
        yield request.getfixturevalue("other_processes")
        return
    read_also_small_ones(monkeypatch)
    with parwise.options(isolate=True, workers=2):  # else the caller computes until workers are up
        yield "processes"


@pytest.fixture
def counted(monkeypatch):
    """Bytes that this process reads and writes of files."""
    found = {"read": 0, "written": 0}
    load, write = ReadAhead._load, FileSink.write

    def counting_load(self, region):
        data = load(self, region)
        found["read"] += data.nbytes
        return data

    def counting_write(self, lo, rows):
        found["written"] += rows.nbytes
        return write(self, lo, rows)

    monkeypatch.setattr(ReadAhead, "_load", counting_load)
    monkeypatch.setattr(FileSink, "write", counting_write)
    return found


def memmaps(folder):
    """A memmap, and views of it: each reads as it lies in memory."""
    whole = np.memmap(folder / "m", "f8", "w+", offset=24, shape=A.shape)
    whole[:] = A
    whole.flush()
    read = np.memmap(folder / "m", "f8", "r", offset=24, shape=A.shape)
    fortran = np.memmap(folder / "f", "f8", "w+", shape=A.shape, order="F")
    fortran[:] = A
    views = {"whole": whole, "read": read, "part": whole[3::2, :, 1:5], "backwards": whole[::-1, ::-1], "F": fortran}
    return {**views, "transposed": read.transpose(1, 0, 2)}


@pytest.mark.parametrize("name", ["whole", "read", "part", "backwards", "F", "transposed"])
def test_memmaps_have_the_layout_that_they_have_here(name, tmp_path, other_processes):
    array = memmaps(tmp_path)[name]
    for func in layout, mean_of_row, np.sum:
        with parwise.report() as report:
            got = parallel_apply(func, array, executor=other_processes)
        assert_same(got, parallel_apply(func, array, executor="serial"))
        assert report.to_dict()["calls"][0]["bytes_direct"] >= array.nbytes * 0.8
    block = {"vectorized": True, "chunk": 5, "depth": 2, "boundary": "reflect"}
    got = parallel_apply(plus, array, executor=other_processes, **block)
    assert_same(got, np.asarray(array) + 1)


def test_what_other_processes_cannot_open(tmp_path):
    private = np.memmap(tmp_path / "c", "f8", "w+", shape=(4,))
    private.flush()
    for array in (np.memmap(tmp_path / "c", "f8", "c", shape=(4,)), np.zeros(3), Stored(A, (10, 6, 8)), "a"):
        assert recipe_of(array) is None
    os.unlink(tmp_path / "c")
    assert recipe_of(private) is None


def test_a_memmap_whose_name_another_file_has_taken(tmp_path, other_processes):
    """A program that writes results anew renames the new file over the old one, which stays mapped."""
    for name, values in (("old", A), ("new", A + 7)):
        file = np.memmap(tmp_path / name, "f8", "w+", shape=A.shape)
        file[:] = values
        file.flush()
    array = np.memmap(tmp_path / "old", "f8", "r", shape=A.shape)
    assert recipe_of(array) is not None
    os.replace(tmp_path / "new", tmp_path / "old")
    assert recipe_of(array) is None
    assert_same(parallel_apply(plus, array, executor=other_processes), A + 1)


def test_a_dataset_whose_data_is_in_other_files(tmp_path):
    """One of these may be open for writing here: what HDF5 has not written yet is seen in this process alone."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "parts", "w") as parts:
        part = parts.create_dataset("x", data=A)
        layout = h5py.VirtualLayout(A.shape, "f8")
        layout[:] = h5py.VirtualSource(part)
        with h5py.File(tmp_path / "all", "w") as file:
            file.create_virtual_dataset("virtual", layout)
            file.create_dataset("external", A.shape, "f8", external=[(str(tmp_path / "raw"), 0, A.nbytes)])
            file["own"] = A
        with h5py.File(tmp_path / "all", "r") as file:
            assert recipe_of(file["own"]) is not None
            assert recipe_of(file["virtual"]) is None
            assert recipe_of(file["external"]) is None


@pytest.mark.parametrize("library", ["h5py", "netCDF4"])
def test_files_open_for_reading_travel_by_path(library, tmp_path, elsewhere, counted):
    module = pytest.importorskip(library)
    with contextlib.ExitStack() as stack:
        if library == "h5py":
            with module.File(tmp_path / "a", "w") as file:
                file.create_dataset("g/x", data=A, chunks=(4, 6, 8))
            writable = stack.enter_context(module.File(tmp_path / "b", "w"))
            written = writable.create_dataset("x", data=A, chunks=(4, 6, 8))
            array = stack.enter_context(module.File(tmp_path / "a"))["g/x"]
        else:
            for name in "ab":
                file = module.Dataset(tmp_path / name, "w")
                for axis, n in zip("txy", A.shape, strict=True):
                    file.createDimension(axis, n)
                file.createVariable("x", "f8", tuple("txy"), chunksizes=(4, 6, 8))[:] = A
                if name == "a":
                    file.close()
            written = stack.enter_context(file)["x"]
            written.set_auto_mask(False)
            array = stack.enter_context(module.Dataset(tmp_path / "a"))["x"]
            array.set_auto_mask(False)
        assert recipe_of(written) is None  # what this process has not written yet is seen by nobody else
        assert_same(parallel_apply(mean_of_row, array, executor=elsewhere), plain_loop(mean_of_row, A))
        assert counted["read"] == A[:4].nbytes
        assert_same(parallel_apply(mean_of_row, written, executor=elsewhere), plain_loop(mean_of_row, A))
        assert counted["read"] == A[:4].nbytes + A.nbytes


@pytest.fixture
def stored(tmp_path):
    zarr = pytest.importorskip("zarr")
    if "zarr" not in made:
        made.append("zarr")  # it leaves threads behind
    array = zarr.create_array(tmp_path / "in", shape=A.shape, chunks=(4, 6, 8), dtype="f8")
    array[:] = A

    def make(name="out", shape=A.shape, chunks=(4, 6, 8), dtype="f8", **more):
        return zarr.create_array(tmp_path / name, shape=shape, chunks=chunks, dtype=dtype, **more)

    return array, make


def test_zarr_to_zarr_passes_nothing_through_the_caller(stored, elsewhere, counted):
    array, make = stored
    out = make()
    with parwise.report() as report:
        parallel_apply(plus, array, out=out, executor=elsewhere)
    assert_same(out[:], A + 1)
    assert counted == {"read": A[:4].nbytes, "written": A[:4].nbytes}  # those of the first element
    told = report.to_dict()["calls"][0]
    assert told["bytes_direct"] == told["files"]["written_elsewhere"] == A[4:].nbytes
    assert told["files"]["read"] == told["files"]["written"] == A[:4].nbytes
    assert "written by the workers themselves" in str(report)


def test_shards_other_chunks_and_casts(stored, elsewhere, counted):
    array, make = stored
    for number, more in enumerate(({"shards": (8, 6, 8)}, {"chunks": (8, 3, 8)}, {"dtype": "f4"})):
        out = make(f"out{number}", **more)
        parallel_apply(plus, array, out=out, executor=elsewhere)
        assert_same(out[:], (A + 1).astype(out.dtype))
    assert counted["written"] <= 3 * A[:8].nbytes
    means = make("means", (120,), (4,))
    parallel_apply(np.mean, array, out=means, executor=elsewhere)
    assert_same(means[:], plain_loop(np.mean, A))
    both = make("a"), make("b", (120,), (12,))
    parallel_apply(lambda x: (x + 1, x.sum()), array, out=both, executor=elsewhere)
    assert_same(both[0][:], A + 1)
    assert_same(both[1][:], plain_loop(np.sum, A))


def test_blocks_of_whole_chunks(stored, elsewhere, counted):
    array, make = stored
    how = {"vectorized": True, "executor": elsewhere}
    parallel_apply(plus, array, out=(out := make()), chunk=8, **how)
    assert_same(out[:], A + 1)
    # The first block, which isolated workers write too.
    assert counted == {"read": A[:8].nbytes, "written": 0 if elsewhere == "processes" else A[:8].nbytes}
    parallel_apply(plus, array, out=(out := make("o2")), chunk=7, **how)  # across chunks: the caller reads and writes
    assert_same(out[:], A + 1)
    want = parallel_apply(neighbours, A, chunk=8, depth=2, boundary="wrap", vectorized=True)
    got = parallel_apply(neighbours, array, chunk=8, depth=2, boundary="wrap", **how)
    assert_same(got, want)


def test_random_numbers_gaps_errors_and_odd_results(stored, elsewhere):
    array, make = stored

    def noisy(x, rng):
        return x + rng.normal()

    parallel_apply(noisy, array, rng=5, out=(out := make("noisy")), executor=elsewhere)
    assert_same(out[:], parallel_apply(noisy, A, rng=5))

    def fails(x):
        if (x > A.max() - 1e-9).any():
            raise ValueError("the largest")
        return x

    where = int(np.argmax(A.reshape(120, -1).max(1)))
    with pytest.raises(ValueError, match="the largest") as caught:
        parallel_apply(fails, array, out=make("e"), executor=elsewhere)
    assert f"in element {where} along axis 0" in caught.value.__notes__
    with pytest.warns(RuntimeWarning, match="no result for 1 of 120 elements"):
        parallel_apply(fails, array, out=(out := make("g")), executor=elsewhere, errors="ignore")
    assert np.flatnonzero(np.isnan(out[:]).any((1, 2))).tolist() == [where]
    for number, dtype in enumerate(("f8", "f4")):  # unlike the first, after many that are alike, and already written
        odd = make(f"odd{number}", dtype=dtype)
        both = (lambda x, i: x.astype("f4") if i >= 60 else x), array, np.arange(120)
        parallel_apply(*both, out=odd, executor=elsewhere)
        want = plain_loop(lambda x, i: x.astype("f4") if i >= 60 else x, A, np.arange(120))
        assert_same(odd[:], want.astype(dtype))


def test_a_file_that_is_another_one_there_is_read_by_the_caller(stored, elsewhere, tmp_path, monkeypatch):
    array, make = stored
    there = files.FileTasks

    class Moved(there):
        def __init__(self, *given):
            super().__init__(*given)
            shutil.rmtree(tmp_path / "in")
            again = make("in", shape=(120, 6, 8), chunks=(4, 6, 8), overwrite=False)
            again[:] = A

    monkeypatch.setattr(runner, "FileTasks", Moved)
    monkeypatch.setattr(files, "FileTasks", Moved)
    with parwise.report() as report:
        got = parallel_apply(mean_of_row, array, executor=elsewhere)
    assert_same(got, plain_loop(mean_of_row, A))
    assert report.to_dict()["calls"][0]["bytes_staged"] >= A.nbytes
    memory = np.memmap(tmp_path / "m", "f8", "w+", shape=(4, 3))
    recipe = recipe_of(memory)
    os.unlink(tmp_path / "m")
    with pytest.raises(UnreadableError, match="FileNotFoundError"):
        recipe.open()


def test_the_output_is_not_written_there_if_the_function_reads_it(stored, elsewhere, counted):
    array, _ = stored
    with parwise.report() as report:
        parallel_apply(plus, array, out=array, executor=elsewhere)
    assert_same(array[:], A + 1)
    assert report.to_dict()["calls"][0]["files"]["written_elsewhere"] == 0
    array[:] = A
    how = {"vectorized": True, "chunk": 4, "depth": 1, "boundary": "wrap"}
    parallel_apply(neighbours, array, out=array, executor=elsewhere, **how)
    assert_same(array[:], parallel_apply(neighbours, A, **how))


def test_the_input_under_another_name_is_the_output(stored, elsewhere, tmp_path, monkeypatch):
    array, _ = stored
    zarr = pytest.importorskip("zarr")
    how = {"vectorized": True, "chunk": 4, "depth": 1, "boundary": "wrap"}
    want = parallel_apply(neighbours, A, **how)
    monkeypatch.chdir(tmp_path)
    os.symlink("in", "link")
    for name in "in", "link":
        array[:] = A
        parallel_apply(neighbours, array, out=zarr.open_array(name, mode="r+"), executor=elsewhere, **how)
        assert_same(array[:], want)


def test_the_file_of_a_memmap_under_another_name_is_the_output(tmp_path):
    how = {"vectorized": True, "chunk": 4, "depth": 1, "boundary": "wrap"}
    np.save(tmp_path / "a.npy", A)
    os.link(tmp_path / "a.npy", tmp_path / "b.npy")
    for form in np.asarray, np.asanyarray:
        given, out = form(np.load(tmp_path / "a.npy", mmap_mode="r")), form(np.load(tmp_path / "b.npy", mmap_mode="r+"))
        parallel_apply(neighbours, given, out=out, executor="serial", **how)
        assert_same(np.asarray(out), parallel_apply(neighbours, A, **how))
        out[:] = A
    parallel_apply(plus, given[:60], out=out[60:], executor="serial")  # other parts of it are not in the way
    assert_same(np.asarray(out), np.concatenate([A[:60], A[:60] + 1]))


def test_few_large_chunks_are_read_by_the_caller(stored, elsewhere, counted):
    _, make = stored
    array = make("large", chunks=(60, 6, 8))
    array[:] = A
    assert_same(parallel_apply(mean_of_row, array, executor=elsewhere), plain_loop(mean_of_row, A))
    assert counted["read"] == A.nbytes


def test_an_input_in_a_file_and_one_in_memory(stored, elsewhere, tmp_path, monkeypatch):
    array, make = stored
    many = make("many", (4000,), (500,))
    many[:] = np.arange(4000.0)
    kinds = np.memmap(tmp_path / "m", "f8", "w+", shape=(4000, 300))
    got = parallel_apply(lambda x, y: (type(y).__name__, y.flags.writeable), many, kinds, executor=elsewhere)
    assert set(got[0].tolist()) == {"memmap"}
    assert got[1].all()
    del kinds
    got = parallel_apply(lambda x, y, z: x @ z * y, array, np.arange(120.0), A[:, 0].copy(), executor=elsewhere)
    assert_same(got, plain_loop(lambda x, y, z: x @ z * y, A, np.arange(120.0), A[:, 0]))


def test_stores_of_fsspec(stored, tmp_path, elsewhere, counted):
    zarr, fsspec = pytest.importorskip("zarr"), pytest.importorskip("fsspec")
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from fsspec.implementations.dirfs import DirFileSystem

    def make(files, path):
        store = zarr.storage.FsspecStore(files, path=str(path))
        array = zarr.create_array(store, name="x", shape=A.shape, chunks=(4, 6, 8), dtype="f8")
        array[:] = A
        return array

    kinds = fsspec.filesystem("file", auto_mkdir=True), fsspec.filesystem("memory")
    disk, memory = (AsyncFileSystemWrapper(one, asynchronous=True) for one in kinds)
    array, out = make(disk, tmp_path / "there"), make(disk, tmp_path / "out")
    assert parallel_apply(plus, array, out=out, executor=elsewhere) is out
    assert_same(out[:], A + 1)
    assert counted["read"] == counted["written"] == A[:4].nbytes
    # Another process would find nothing there, which reads as zeros.
    within = make(DirFileSystem("/folder", memory, asynchronous=True), tmp_path)
    for hidden in make(memory, tmp_path), within, make(DirFileSystem(str(tmp_path), disk, asynchronous=True), "below"):
        assert recipe_of(hidden) is None
        assert_same(parallel_apply(plus, hidden, executor=elsewhere), A + 1)
    recipe = recipe_of(array)
    shutil.rmtree(tmp_path / "there")
    for identity in recipe.identity, None:  # as of a store elsewhere
        with pytest.raises(UnreadableError, match="NotFoundError"):
            recipe._replace(identity=identity).open()


def test_inputs_are_pickled_unopened(tmp_path):
    array = memmaps(tmp_path)["part"]
    calls = parwise._core.arguments.make_call(np.sum, (array,), settings=parwise._core.options.options.resolve({}))
    assert isinstance(files.FileTasks(calls, 2).inputs[0], FileInput)


def test_over_a_dask_client(stored, dask_client, counted):
    array, make = stored
    out = make()
    parallel_apply(plus, array, out=out, executor=dask_client)
    assert_same(out[:], A + 1)
    assert counted == {"read": A[:4].nbytes, "written": A[:4].nbytes}


def test_a_task_that_dask_has_cancelled_writes_nothing(monkeypatch):
    assert remote._is_wanted()
    states = {"a": types.SimpleNamespace(state="executing"), "b": types.SimpleNamespace(state="cancelled")}
    worker = types.SimpleNamespace(state=types.SimpleNamespace(tasks=states))
    module = types.SimpleNamespace(thread_state=types.SimpleNamespace(execution_state={"worker": worker}))
    monkeypatch.setitem(sys.modules, "distributed.worker", module)
    for key, wanted in {"a": True, "b": False, "forgotten": False}.items():
        module.thread_state.key = key
        assert remote._is_wanted() is wanted


class Threads(Executor):
    """Threads in the place of processes: the caller does not know."""

    def __init__(self):
        self._threads, self.futures = ThreadPoolExecutor(2), []

    def submit(self, func, /, *args, **kwargs):
        self.futures.append(self._threads.submit(func, *args, **kwargs))
        return self.futures[-1]

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def test_nothing_is_written_after_an_interrupted_call(stored, monkeypatch):
    """The call ends only when the tasks that may write have ended."""
    array, make = stored
    writing, interrupted, write, wait = threading.Event(), threading.Event(), FileOutput.write, futures.wait

    def slow(self, column, lo, hi):
        writing.set()
        assert interrupted.wait(20)
        time.sleep(0.1)  # time in which a call that did not wait would end
        return write(self, column, lo, hi)

    def interrupt(*given, **named):
        monkeypatch.setattr(futures, "wait", wait)
        assert writing.wait(20)
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(FileOutput, "write", slow)
    monkeypatch.setattr(futures, "wait", interrupt)
    with Threads() as executor:
        with pytest.raises(KeyboardInterrupt):
            parallel_apply(plus, array, out=make(), executor=executor, workers=2)
        assert all(future.done() for future in executor.futures)


@pytest.fixture
def own(monkeypatch):
    """Own workers that open small files too."""
    read_also_small_ones(monkeypatch)
    with parwise.options(workers=2):
        yield


def test_the_caller_computes_beside_workers_that_open_files(stored, own, counted):
    _, make = stored
    array = make("much", (4000, 6, 8), (40, 6, 8))
    array[:] = many = np.random.default_rng(1).normal(size=(4000, 6, 8))
    out = make("twice", (4000, 6, 8), (80, 6, 8))
    assert parallel_map(abs, [-1] * 8, isolate=True) == [1] * 8  # workers are up
    with parwise.report() as report:
        parallel_apply(busy, array, out=out)
    assert_same(out[:], many * 2)
    told = report.to_dict()["calls"][0]
    assert told["files"]["written_elsewhere"]
    assert told["files"]["written_elsewhere"] + told["files"]["written"] == many.nbytes
    assert counted["read"] + told["bytes_direct"] <= many.nbytes + many[:80].nbytes  # of a chunk that both began with


def busy(x):
    """Take 0.1 ms."""
    end = time.perf_counter() + 1e-4
    while time.perf_counter() < end:
        pass
    return x * 2


def test_a_worker_that_dies_is_replaced(stored, own, tmp_path):
    array, make = stored
    parent = os.getpid()

    def dies_once(x):
        if x[0, 0] == A[70, 0, 0] and os.getpid() != parent and not os.path.exists(tmp_path / "died"):
            os.mkdir(tmp_path / "died")
            os._exit(1)
        return x + 1

    parallel_apply(dies_once, array, out=(out := make()), retries=1, isolate=True)
    assert os.path.exists(tmp_path / "died")
    assert_same(out[:], A + 1)


def test_nothing_is_written_after_a_call_that_failed(stored, own, tmp_path):
    """A worker that is behind the element with the error finds that its results are not wanted any more."""
    array, make = stored

    def wait_for(name):
        while not os.path.exists(tmp_path / name):
            time.sleep(0.001)

    def fails(x):
        if x[0, 0] == A[4, 0, 0]:
            wait_for("begun")
            raise ValueError("the first of a run")
        if x[0, 0] == A[100, 0, 0]:
            os.mkdir(tmp_path / "begun")
            wait_for("failed")
        return x + 1

    out = make()
    with pytest.raises(ValueError, match="the first of a run"):
        parallel_apply(fails, array, out=out, isolate=True)
    workers = [one for one in default_pool().workers if one.assignments]
    assert workers
    os.mkdir(tmp_path / "failed")
    while not all(one.catch_up() for one in workers):  # until they have told that they are done
        time.sleep(0.001)
    assert_same(out[4:8], np.zeros_like(A[4:8]))
    assert_same(out[100:104], np.zeros_like(A[100:104]))
