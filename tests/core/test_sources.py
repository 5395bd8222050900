"""Arrays that are not in memory: each chunk is read once, and what is read counts, not what is declared."""

from __future__ import annotations

import contextlib
import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parwise import apply_along_axis, options, parallel_apply, plan, vectorize
from parwise._core.inputs import source
from parwise._core.inputs.foreign import chunk_ends
from parwise._core.inputs.source import ReadAhead

from ..support.examples import examples
from ..support.oracle import assert_same
from ..support.oracle import loop as plain_loop
from ..support.scripts import run_script
from ..support.sources import Duck, Meters, Stored, masked

A = np.random.default_rng(0).normal(size=(170, 12))


def never(*args):
    raise AssertionError("func was called")


# Reads.


@pytest.mark.pairs
@pytest.mark.parametrize("chunks", [(43, 12), (170, 3), (50, 5), (7, 12)], ids=str)
@pytest.mark.parametrize("axis", [0, 1, (0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("nbytes", [2**25, 43 * 12 * 8, 1000])
def test_each_chunk_is_read_once(chunks, axis, nbytes, runner, monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", nbytes)
    stored = Stored(A, chunks)
    got = parallel_apply(np.sum, stored, axis=axis, **runner)
    assert_same(got, plain_loop(np.sum, A, axis=axis))
    assert set(stored.reads_of_chunks().values()) == {1}


@pytest.mark.parametrize("boundary", [None, "nearest", "reflect"])
def test_each_chunk_is_read_once_for_blocks(boundary, runner, monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", 43 * 12 * 8)
    stored = Stored(A, (43, 12))
    how = {"vectorized": True, "chunk": 10, "depth": 3, "boundary": boundary}
    assert_same(parallel_apply(np.negative, stored, **how, **runner), -A)
    assert set(stored.reads_of_chunks().values()) == {1}
    assert stored.most_bytes == 43 * 12 * 8


@pytest.mark.parametrize("late", range(17))
def test_each_chunk_is_read_once_where_one_thread_is_late(late, monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", 43 * 12 * 8)
    stored = Stored(A, (43, 12))
    reader = ReadAhead(stored, [0], "array 0")
    assert reader.dtype == A.dtype  # as a call asks first
    for k in [*(k for k in range(17) if k != late), late]:  # blocks of 10 with a halo of 3
        rows = slice(max(0, 10 * k - 3), min(170, 10 * k + 13))
        assert_same(reader.read((rows, slice(0, 12))), A[rows])
    assert set(stored.reads_of_chunks().values()) == {1}


@pytest.mark.parametrize(("chunks", "axis"), [((170, 12), 0), ((170, 1), 0), ((1, 12), 1)], ids=str)
def test_reads_are_bounded(chunks, axis, monkeypatch):
    monkeypatch.setattr(source, "MAX_READ_BYTES", 6000)
    stored = Stored(A, chunks)
    reader = ReadAhead(stored, [axis], "array 0", nbytes=2000)
    for k in range(A.shape[axis]):  # a chunk is larger than the limit: it is read again, in large parts
        part = tuple(slice(k, k + 1) if d == axis else slice(0, n) for d, n in enumerate(A.shape))
        assert_same(np.ascontiguousarray(reader.read(part)), np.ascontiguousarray(A[part]))
    assert 5000 < stored.most_bytes <= 6000
    assert len(stored.reads) == 3


def test_arrays_without_chunks_and_of_one_read_are_read_once(runner):
    stored = Stored(A)
    parallel_apply(np.sum, stored, **runner)
    assert len(stored.reads) == 1
    assert len(Stored(A, (50, 5)).reads) == 0


def test_chunks_of_other_libraries():
    assert chunk_ends(Stored(A, ((100, 70), (12,))), 0) == [100, 170]
    assert chunk_ends(Stored(A, (100, 12)), 1) == [12]
    for strange in (None, (3,), "auto", (None, 12), ("a", "b"), (0, 3)):
        assert chunk_ends(Stored(A, strange), 0) is None


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["h5py", "dask"])
def test_chunks_of_real_arrays_are_read_once(name, axis, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", 50 * 12 * 8)
    read, load = [], ReadAhead._load

    def counting_load(self, region):
        assert region[0].start % 43 == 0
        if name == "h5py":
            read.append(region[0].stop - region[0].start)
        return load(self, region)

    monkeypatch.setattr(ReadAhead, "_load", counting_load)
    with contextlib.ExitStack() as stack:
        if name == "h5py":
            file = stack.enter_context(pytest.importorskip("h5py").File(tmp_path / "a.h5", "w"))
            stored = file.create_dataset("a", data=A, chunks=(43, 12))
        else:
            dask = pytest.importorskip("dask.array")
            stack.enter_context(pytest.importorskip("dask").config.set(scheduler="synchronous"))
            stored = dask.from_array(A, chunks=(43, 12)).map_blocks(lambda b: (read.append(len(b)), b)[1], meta=A)
        read.clear()
        got = parallel_apply(np.sum, stored, axis=axis, workers=2, isolate=True)
    assert_same(got, plain_loop(np.sum, A, axis=axis))
    assert sorted(read) == ([170] if (axis, name) == (1, "h5py") else [41, 43, 43, 43])


ZARR = """
import collections, time
import numpy as np, zarr
import parwise, parwise._core.inputs.source

reads = collections.Counter()

class Store(zarr.storage.MemoryStore):
    async def get(self, key, *args, **kwargs):
        reads[key] += "c/" in key
        return await super().get(key, *args, **kwargs)

if __name__ == "__main__":
    parwise._core.inputs.source.READ_BYTES = 50 * 12 * 8
    array = np.random.default_rng(0).normal(size=(170, 12))
    stored = zarr.create_array(store=Store(), shape=array.shape, chunks=(43, 12), dtype="f8")
    stored[:] = array
    for axis in 0, 1:
        for how in {"isolate": True, "workers": 2}, {"executor": "threads", "workers": 3}, {"workers": 2}:
            reads.clear()
            got = parwise.parallel_apply(lambda x: (time.sleep(0.001), x.sum())[1], stored, axis=axis, **how)
            assert got.tolist() == [part.sum() for part in np.moveaxis(array, axis, 0)]
            assert sorted(reads[key] for key in reads if "c/" in key) == [1, 1, 1, 1], (axis, how, reads)
"""


def test_chunks_of_zarr_are_read_once():
    if importlib.util.find_spec("zarr") is None:
        pytest.skip("needs zarr")
    done = run_script(ZARR)  # zarr leaves threads behind
    assert not done.stderr
    assert not done.returncode


@given(st.data())
@examples(200)
def test_any_order_of_reads_gives_the_data(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    array = np.arange(np.prod(shape)).reshape(shape)
    chunks = data.draw(st.none() | st.tuples(*(st.integers(1, n) for n in shape)))
    axes = data.draw(st.permutations(range(len(shape))))[: data.draw(st.integers(1, len(shape)))]
    reader = ReadAhead(Stored(array, chunks), axes, "array 0", nbytes=data.draw(st.integers(0, 300)))
    for _ in range(data.draw(st.integers(1, 8))):
        region = []
        for axis, n in enumerate(shape):
            start = data.draw(st.integers(0, n - 1)) if axis in axes else 0
            region.append(slice(start, data.draw(st.integers(start, n)) if axis in axes else n))
        assert_same(np.ascontiguousarray(reader.read(tuple(region))), array[tuple(region)].copy())
    assert reader.dtype == array.dtype


def test_a_source_may_use_its_memory_again(runner, monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", 1000)
    buffer = np.empty_like(A)

    def fill(part):
        view = buffer[: len(part)]
        view[...] = part
        return view

    how = {"vectorized": True, "chunk": 10, "depth": 4, **runner}
    assert_same(parallel_apply(np.negative, Stored(A, convert=fill), **how), -A)


# What is read.


@pytest.mark.parametrize("vectorized", [False, True])
def test_what_is_read_decides_about_the_dtype(vectorized, runner):
    raw = np.arange(60, dtype="i2").reshape(10, 6)

    def unpack(part):
        return part * 0.5 + 0.25

    def func(x):
        return x.mean(axis=-1)

    got = parallel_apply(func, Stored(raw, convert=unpack), vectorized=vectorized, **runner)
    assert_same(got, func(unpack(raw)))
    assert parallel_apply(lambda x: x.dtype.str, Stored(raw, convert=unpack), **runner).tolist() == ["<f8"] * 10


def test_plan_follows_what_is_read(monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", 1)
    raw = np.broadcast_to(np.zeros((), "i1"), (400, 400_000))
    wide = Stored(raw, convert=lambda part: part.astype("f8"))
    assert plan(wide) == plan(np.broadcast_to(0.0, raw.shape)) != plan(raw)


def test_masks_are_handed_on(runner):
    rows = np.arange(-20.0, 40.0).reshape(10, 6)
    stored = Stored(rows, convert=masked)

    def func(x):
        assert type(x) is np.ma.MaskedArray
        return x.filled(-1.0).sum(), x.count(), x.mean() if x.count() else -1.0

    for axis in 0, 1, (0,), -1:
        got = parallel_apply(func, stored, axis=axis, **runner)
        index = (slice(None),) * (1 if axis in (1, -1) else 0)
        want = [func(stored[(*index, k)]) for k in range(rows.shape[len(index)])]
        assert_same(got, tuple(np.asarray(list(column)) for column in zip(*want, strict=True)))
    got = parallel_apply(lambda x: np.ma.count_masked(x), stored, axis=(0, 1), **runner)
    assert_same(got, (rows < 0).astype(int))

    def block(x):
        assert type(x) is np.ma.MaskedArray
        return x.filled(0.0)

    how = {"vectorized": True, "chunk": 4, **runner}
    assert_same(parallel_apply(block, stored, **how), rows.clip(0))
    assert_same(parallel_apply(block, stored, depth=1, **how), rows.clip(0))
    both = parallel_apply(lambda x, y: x.count() + y.sum(), stored, rows, **runner)
    assert_same(both, np.array([masked(row).count() + row.sum() for row in rows]))


def test_masks_that_would_be_lost_are_refused():
    stored = Stored(A, convert=masked)
    with pytest.raises(TypeError, match="no masks for values beyond the ends of an array"):
        parallel_apply(never, stored, vectorized=True, chunk=2, depth=1, boundary="wrap")
    with pytest.raises(TypeError, match="func returned a MaskedArray, whose mask would be lost"):
        parallel_apply(lambda x: x * 2, stored, workers=2)


def test_masks_that_come_late_are_refused(monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", 100)

    def late(part):
        return masked(part) if part.min() < 0 else part.copy()

    rows = np.arange(100.0, -100.0, -1.0).reshape(-1, 2)
    with pytest.raises(TypeError, match="array 0 reads as masked arrays, whose masks would be lost"):
        parallel_apply(np.sum, Stored(rows, convert=late))


REFUSED = {
    "subclass": (lambda part: part.view(Meters), "array 0 reads as .*Meters, which would lose what makes it one"),
    "matrix": (lambda part: part.view(np.matrix), "array 0 reads as .*matrix, which would lose"),
    "duck": (Duck, "array 0 reads as .*Duck, which would lose"),
    "object": (
        lambda part: object(),
        "array 0 reads as builtins.object, which NumPy cannot make an array of numbers of",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_read_is_refused_before_any_work(name):
    convert, text = REFUSED[name]
    with pytest.raises(TypeError, match=text):
        parallel_apply(never, Stored(A, convert=convert))
    with pytest.raises(TypeError, match=text):
        parallel_apply(never, Stored(A, convert=convert), vectorized=True)


def test_reads_of_another_shape_or_dtype_are_refused(monkeypatch):
    for convert in (np.squeeze, lambda part: part[:1], lambda part: part.ravel()):
        with pytest.raises(
            ValueError, match=r"array 0 of shape \(4, 1\) returns an array of shape .* for \[0:4, 0:1\]"
        ):
            parallel_apply(never, Stored(np.ones((4, 1)), convert=convert), vectorized=True)
    monkeypatch.setattr(source, "READ_BYTES", 100)
    with pytest.raises(TypeError, match=r"array 0 returns float64 for \[.*, but int64 before"):
        parallel_apply(
            np.sum, Stored(np.arange(80).reshape(40, 2), convert=lambda part: part * (1 if part.max() < 40 else 0.5))
        )


def test_ducks_in_memory_are_refused():
    with pytest.raises(TypeError, match="array 0 is a .*Duck, which would lose what makes it one"):
        parallel_apply(never, Duck(A))
    with pytest.raises(TypeError, match="array 1 is a .*Duck"):
        parallel_apply(never, A, Duck(A))
    for out in Duck(np.zeros(170)), np.zeros(170).view(Meters):
        with pytest.raises(TypeError, match="out is a .*(Duck|Meters), whose unit or the like"):
            parallel_apply(never, A, out=out)


@pytest.mark.parametrize("make", [lambda x: x.view(Meters), Duck], ids=["subclass", "duck"])
def test_results_that_have_more_than_values_are_refused(make, runner):
    for how in {}, {"vectorized": True, "chunk": 2}:
        with pytest.raises(TypeError, match="func returned a .*(Meters|Duck), whose unit or the like would be lost"):
            parallel_apply(make, A[:4], **how, **runner)
    with pytest.raises(TypeError, match="would be lost"):
        parallel_apply(lambda x: (1, make(x)), A[:4], **runner)


@pytest.mark.parametrize(
    "value", [masked(A), A.view(Meters), Duck(A), A.view(np.matrix)], ids=lambda v: type(v).__name__
)
def test_arguments_keep_their_types(value, runner):
    def func(row, given, *, named):
        assert type(given) is type(named)
        return type(given).__name__

    got = parallel_apply(func, A[:3], args=(value,), kwargs={"named": value}, **runner)
    assert got.tolist() == [type(value).__name__] * 3


def test_numpy_itself_takes_sources_of_its_drop_ins():
    rows = np.arange(-6.0, 6.0).reshape(4, 3)
    with options(workers=2):
        got = vectorize(lambda x: x * 2)(masked(rows))
        assert_same(np.ma.getmaskarray(got), rows < 0)
        summed = apply_along_axis(np.ma.sum, 1, masked(rows))
    assert np.ma.getmaskarray(summed).tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", ["h5py", "memmap"])
def test_out_may_be_the_source_itself(name, tmp_path, runner, monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", 1)
    how = {"vectorized": True, "chunk": 4, "depth": 2, **runner}
    values = np.arange(40.0)
    want = parallel_apply(lambda b: b + np.roll(b, 1), values, **how)
    with contextlib.ExitStack() as stack:
        if name == "h5py":
            file = stack.enter_context(pytest.importorskip("h5py").File(tmp_path / "a", "w"))
            file["x"] = values
            stored, out = file["x"], file["x"]
        else:
            stored = np.memmap(tmp_path / "a", "f8", "w+", shape=(40,))
            stored[:] = values
            out = np.memmap(tmp_path / "a", "f8", "r+", shape=(40,))
        parallel_apply(lambda b: b + np.roll(b, 1), stored, out=out, **how)
        assert_same(np.array(out[:]), want)
