"""Graphs of lazy maps: as small as those of `apply_ufunc`, fused with their neighbours, and with one copy of much."""

from __future__ import annotations

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from ..support.labelled import assert_alike, make_cube
from ..support.oracle import assert_same


def total(x):
    return x.sum()


def tasks(lazy):
    """Tasks of the data before and after Dask's optimizer."""
    (optimized,) = dask.optimize(lazy.data)
    return len(dict(lazy.data.__dask_graph__())), len(dict(optimized.__dask_graph__()))


def parwise_and_xarray(array, func, dims, outputs=1):
    core = [d for d in array.dims if d not in dims]
    dtypes = [array.dtype] * outputs
    how = {"output_core_dims": [[]] * outputs if outputs > 1 else [], "output_dtypes": dtypes}
    return array.par.map(func, dims, **how), xr.apply_ufunc(
        func,
        array,
        input_core_dims=[core],
        output_core_dims=[[]] * outputs,
        vectorize=True,
        dask="parallelized",
        output_dtypes=dtypes,
    )


@pytest.mark.parametrize("dims", [("lat", "lon"), ("lat",), ("time", "lat", "lon")])
@pytest.mark.parametrize("outputs", [1, 2])
def test_no_more_tasks_than_those_of_apply_ufunc(dims, outputs):
    lazy = make_cube().drop_vars(["hours", "season"]).chunk(dict.fromkeys(dims, 1))
    func = total if outputs == 1 else lambda x: (x.min(), x.max())
    ours, theirs = parwise_and_xarray(lazy + 1, func, dims, outputs)
    ours, theirs = (one if isinstance(one, tuple) else (one,) for one in (ours, theirs))
    for mine, other in zip(ours, theirs, strict=True):
        assert all(a <= b for a, b in zip(tasks(mine), tasks(other), strict=True))
        assert_same(mine.compute().to_numpy(), other.compute().to_numpy())
    assert tasks(ours[0] * 2)[1] == tasks(ours[0])[1]  # what is behind is part of the same task


def test_blocks_as_they_lie_take_no_more_tasks_than_those_of_apply_ufunc():
    """Dask's blocks are the function's: no layer cuts or turns them, and Dask's optimizer has fewer to fuse."""
    a = xr.DataArray(da.ones((40, 10), chunks=(4, 10)), dims=("x", "y"))
    ours = a.par.map(np.negative, "x", vectorized=True, chunk=4, output_dtypes=float)
    theirs = xr.apply_ufunc(np.negative, a, dask="parallelized", output_dtypes=[float])
    assert tasks(ours) == (20, 20)
    assert all(mine <= other for mine, other in zip(tasks(ours), tasks(theirs), strict=True))
    assert_same(ours.compute().to_numpy(), theirs.compute().to_numpy())


def test_results_of_blocks_are_apart():
    """A function may write to its block, and give the same memory for each."""
    memory = np.empty((4, 10))

    def f(block):
        block += 1
        memory[...] = block
        return memory

    a = xr.DataArray(np.arange(400.0).reshape(40, 10), dims=("x", "y")).chunk(x=4).persist()
    before = a.compute().to_numpy().copy()
    lazy = a.par.map(f, "x", vectorized=True, chunk=4, output_dtypes=float)
    assert_same(lazy.compute(scheduler="sync").to_numpy(), before + 1)
    assert_same(a.compute().to_numpy(), before)


@pytest.mark.parametrize("dims", [("x", "y"), ("y", "x")])
def test_each_chunk_is_told_where_it_is(dims):
    """By one number for all mapped dimensions; labels, random numbers and errors follow from it."""
    a = xr.DataArray(np.arange(60.0).reshape(10, 6), {"x": np.arange(10) * 2, "y": list("abcdef")}, ("x", "y"))
    lazy = a.chunk(x=(3, 4, 3), y=(1, 5))
    how = {"output_dtypes": float, "output_core_dims": []}
    seen = lazy.par.map(lambda v: v + 100 * v.x, dims, as_xarray=True, **how)
    assert_same(seen.compute().transpose("x", "y").to_numpy(), (a + 100 * a.x).to_numpy())

    def noisy(v, rng):
        return v + rng.random()

    assert_same(lazy.par.map(noisy, dims, rng=1, **how).compute().to_numpy(), a.par.map(noisy, dims, rng=1).to_numpy())

    def fail(v):
        if v == 53:
            raise KeyError("this one")
        return v

    with pytest.raises(KeyError) as found:
        lazy.par.map(fail, dims, **how).compute(scheduler="sync")
    note = found.value.__notes__[0]
    assert "x=16" in note
    assert "y=f" in note


def test_each_block_is_one_task():
    """However many blocks, there is no layer for each."""
    a = xr.DataArray(da.from_array(np.arange(400).reshape(40, 10), (10, 10)), dims=("x", "y"))
    for how in ({}, {"depth": 2}):
        lazy = a.par.map(np.negative, "x", vectorized=True, chunk=4, output_dtypes=int, **how)
        assert len(lazy.__dask_graph__().layers) <= len(a.__dask_graph__().layers) + 4
        assert tasks(lazy)[1] <= tasks(a)[1] + 2 * 4 + 4 * 10
        assert_same(lazy.compute().to_numpy(), -a.compute().to_numpy())


@pytest.mark.parametrize("kind", ["closure", "kwargs", "blocks", "groups"])
def test_a_large_function_is_once_in_the_graph(kind):
    table = np.arange(200_000.0)
    a = xr.DataArray(np.arange(80.0).reshape(20, 4), {"x": np.arange(20) // 4}, ("x", "y")).chunk(x=2)
    if kind == "closure":
        lazy = a.par.map(lambda x: x.sum() + table[3], "x", output_dtypes=float, output_core_dims=[])
    elif kind == "kwargs":
        how = {"kwargs": {"t": table}, "output_dtypes": float, "output_core_dims": []}
        lazy = a.par.map(lambda x, t: x.sum() + t[3], "x", **how)
    elif kind == "blocks":
        lazy = a.par.map(lambda x: x + table[3], "x", vectorized=True, chunk=4, output_dtypes=float)
    else:
        lazy = a.par.map_groups(lambda x: x + table[3], "x", output_dtypes=float)
    for one in (lazy, *dask.optimize(lazy)):
        sizes = [len(cloudpickle.dumps(task)) for task in dict(one.__dask_graph__()).values()]
        assert sum(size > 100_000 for size in sizes) == 1
    want = a.compute() + 3 if kind in ("blocks", "groups") else a.compute().sum("y") + 3
    assert_same(lazy.compute().to_numpy(), want.to_numpy())


def test_what_cannot_be_pickled_is_shared_by_threads(cube):
    unique = (k for k in range(10))
    lazy = cube.chunk(lat=1).par.map(lambda x: x.sum() + 0 * (unique is None), "lat", **LIKE)
    assert_same(lazy.compute().to_numpy(), cube.chunk(lat=1).par.map(total, "lat", **LIKE).compute().to_numpy())


LIKE = {"output_dtypes": float, "output_core_dims": []}


def test_the_same_map_has_the_same_keys(cube):
    """Dask computes it once if it is asked for twice."""
    lazy = cube.chunk(lat=1)
    assert lazy.par.map(total, "lat", **LIKE).data.name == lazy.par.map(total, "lat", **LIKE).data.name
    assert lazy.par.map(total, "lat", **LIKE).data.name.startswith("total-")
    assert lazy.par.map(total, "lat", **LIKE).data.name != (lazy + 1).par.map(total, "lat", **LIKE).data.name
    assert lazy.par.map(total, "lat", **LIKE).data.name != lazy.par.map(np.max, "lat", **LIKE).data.name


def test_random_numbers_are_the_same_when_dask_computes_a_task_again(cube):
    def noisy(x, rng):
        return x + rng.random()

    plain = cube.copy(data=cube.data)
    lazy = plain.copy(data=cube.chunk(time=5).data)
    want = plain.par.map_groups(noisy, "season", rng=3)
    got = lazy.par.map_groups(noisy, "season", rng=3, output_dtypes=float)
    for _ in range(2):
        assert_same(got.compute().to_numpy(), want.to_numpy())
    got = cube.chunk(lat=1).par.map(noisy, "lat", rng=3, output_dtypes=float, output_core_dims=["time", "lon"])
    for _ in range(2):
        assert_same(got.compute().to_numpy(), cube.par.map(noisy, "lat", rng=3).to_numpy())


@pytest.mark.parametrize("chunks", [(1, 1, 10), (5, 5, 2), (12,), (1,) * 12])
@pytest.mark.parametrize(("chunk", "depth"), [(2, 5), (5, 1), (12, 3), (1, 2)])
@pytest.mark.parametrize("boundary", [None, "wrap"])
def test_halos_over_any_chunks(cube, chunks, chunk, depth, boundary):
    def smooth(x):
        return x - 0.5 * np.roll(x, depth, 0)

    how = {"vectorized": True, "chunk": chunk, "depth": depth, "boundary": boundary}
    got = cube.chunk(time=chunks, lon=2).par.map(smooth, "time", output_dtypes=float, **how)
    assert got.chunks[0] == chunks
    assert_alike(got.compute(), cube.par.map(smooth, "time", **how))


def test_a_function_may_write_to_blocks_that_nobody_may_write_to(cube):
    def spoil(x):
        x -= x.mean()
        return x

    def frozen(x):
        x = np.array(x, order="C")
        x.flags.writeable = False
        return x

    lazy = cube.copy(data=cube.chunk(lat=1).data.map_blocks(frozen, dtype=float))
    got = lazy.par.map(spoil, "lat", vectorized=True, chunk=1, output_dtypes=float)
    assert_same(got.compute().to_numpy(), cube.par.map(spoil, "lat", vectorized=True, chunk=1).to_numpy())
    first = cube.transpose("lat", ...)
    got = lazy.transpose("lat", ...).par.map(spoil, "lat", output_dtypes=float, output_core_dims=["time", "lon"])
    assert_same(got.compute().to_numpy(), first.par.map(spoil, "lat").to_numpy())


@pytest.mark.parametrize("how", [LIKE, {"vectorized": True, "chunk": 1, "output_dtypes": float}])
def test_blocks_of_another_length_are_refused(cube, how):
    lazy = cube.chunk(lat=1)
    lying = lazy.copy(data=lazy.data.map_blocks(lambda x: np.concatenate([x, x], 1), dtype=float))
    with pytest.raises(ValueError, match=r"has length\(s\) \(2,\) .* but the array's chunks say \(1,\)"):
        lying.par.map(total, "lat", **how).compute()


@pytest.mark.parametrize("length", [-1, 2.5, "3", True])
def test_bad_output_sizes(cube, length):
    with pytest.raises(ValueError, match=f"an int from 0 on for each dimension, got {length!r} for 'q'"):
        cube.chunk(lat=1).par.map(total, "lat", output_dtypes=float, output_core_dims=["q"], output_sizes={"q": length})


def test_a_result_unlike_the_declared_one_names_its_part(cube):
    lazy = cube.chunk(lat=1, lon=2)
    got = lazy.par.map(lambda x: x[:2], ("lat", "lon"), **LIKE)
    with pytest.raises(ValueError, match=r"shape \(2,\), but .* have shape \(\)") as caught:
        got[2:, 2:].compute()
    assert caught.value.__notes__ == ["in the part with indices lat=2:3, lon=2:4"]
    got = lazy.par.map(total, "time", vectorized=True, chunk=5, output_dtypes=float)
    with pytest.raises(ValueError, match="keeps the mapped axis"):
        got.compute()
    for array in (cube, lazy):
        with pytest.raises(
            TypeError, match="output_dtypes says int64, but func returned results of dtype float64.*cast"
        ):
            array.par.map(total, ("lat", "lon"), output_dtypes=int, output_core_dims=[]).compute()
