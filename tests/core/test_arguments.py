"""Bad arguments and options raise a clear error before any work."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr

from parwise import options, parallel_apply

A = np.arange(12.0).reshape(3, 4)
MATRIX = A.view(np.matrix)


def never(*args, **kwargs):
    raise AssertionError("func was called")


class Labelled:
    """Indexed by label, as pandas and xarray objects are."""

    shape, dtype, loc = (3,), np.dtype("f8"), None


class Quantity(np.ndarray):
    """A subclass with a unit that would be lost."""


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "text"),
    [
        ((3, A), {}, TypeError, "func must be callable, got int"),
        ((never,), {}, TypeError, "no array to map over"),
        ((never, [1, 2]), {}, TypeError, r"array 0 is a list, not an array; pass np.asarray\(x\)"),
        ((never, range(3)), {}, TypeError, "array 0 is a range"),
        ((never, {1: 2}), {}, TypeError, r"array 0 is a dict, not an array; use parallel_map\(func, x\)"),
        ((never, iter([1])), {}, TypeError, "not an array; use parallel_map"),  # np.asarray makes one object of it
        ((never, None), {}, TypeError, "array 0 is a NoneType, not an array; pass it in args"),
        ((never, xr.Dataset({"a": ("x", [1])})), {}, TypeError, r"pass its values, x\['name'\].to_numpy\(\)"),
        ((never, A, 5.0), {}, TypeError, r"array 1 is a scalar of type float; pass it in args"),
        ((never, np.float64(3)), {}, TypeError, "scalar of type float64"),
        ((never, np.ma.masked_less(A, 3)), {}, TypeError, "MaskedArray, whose mask would be lost"),
        ((never, MATRIX), {}, TypeError, "subclass matrix.*np.asarray"),
        ((never, A.view(Quantity)), {}, TypeError, "subclass Quantity"),
        ((never, Labelled()), {}, TypeError, "Labelled, whose labels would be lost"),
        ((never, np.array(3.0)), {}, ValueError, "axis 0 is out of bounds for array 0.*0 dimension"),
        ((never, A), {"axis": 2}, ValueError, r"axis 2 is out of bounds.*shape \(3, 4\)"),
        ((never, A), {"axis": -3}, ValueError, "axis -3 is out of bounds"),
        ((never, A, A[0]), {"axis": 1}, ValueError, "axis 1 is out of bounds for array 1"),
        ((never, A), {"axis": 0.5}, TypeError, "axis must be an int or a tuple of ints, got 0.5"),
        ((never, A), {"axis": True}, TypeError, "axis must be an int"),
        ((never, A), {"axis": [0, 1]}, TypeError, "axis must be an int or a tuple"),
        ((never, A), {"axis": ()}, ValueError, "at least one axis"),
        ((never, A), {"axis": (0, 0)}, ValueError, "one axis twice"),
        ((never, A), {"axis": (0, -1)}, ValueError, "mix signs"),
        ((never, A, A[:2]), {}, ValueError, r"differ in length along axis 0: array 0 has \(3,\), array 1 has \(2,\)"),
        ((never, A), {"args": 3}, TypeError, r"args must be a tuple, got int; for one argument write args=\(x,\)"),
        ((never, A), {"args": [3]}, TypeError, "args must be a tuple, got list"),
        ((never, A), {"kwargs": [1]}, TypeError, "kwargs must be a dict, got list"),
        ((never, A), {"kwargs": {1: 2}}, TypeError, "names for keys"),
        ((never, A), {"vectorized": 1}, TypeError, "vectorized must be a bool, got 1"),
        ((never, A), {"chunk": 2}, ValueError, "chunk=2 is the length of blocks"),
        ((never, A), {"chunk": 0, "vectorized": True}, ValueError, "chunk must be at least 1, got 0"),
        (
            (never, A),
            {"chunk": 4, "vectorized": True},
            ValueError,
            "chunk=4 is longer than the mapped axis, which has 3",
        ),
        ((never, A), {"chunk": 1.5, "vectorized": True}, TypeError, "chunk must be an int or None, got 1.5"),
        ((never, A), {"depth": 1}, ValueError, "depth=1 is for block functions"),
        ((never, A), {"depth": -1, "vectorized": True}, ValueError, "depth must not be negative"),
        ((never, A), {"depth": "1"}, TypeError, "depth must be an int"),
        ((never, A), {"boundary": "wrap"}, ValueError, "boundary='wrap' is for block functions"),
        ((never, A), {"out": [1, 2, 3]}, TypeError, "out must be an array.*got list"),
        ((never, A), {"out": np.empty(())}, ValueError, "too few dimensions"),
        ((never, A), {"out": np.empty(4)}, ValueError, r"out has shape \(4,\).*the result has \(3,\) there"),
        ((never, A), {"out": np.broadcast_to(0.0, 3)}, ValueError, "out is read-only"),
        ((never, A), {"out": np.ma.zeros(3)}, TypeError, "out is a MaskedArray"),
        ((never, A), {"workers": 0}, ValueError, "workers must be at least 1, got 0; workers=None takes every CPU"),
        ((never, A), {"workers": -1}, ValueError, "workers must be at least 1, got -1"),
        ((never, A), {"workers": 2.0}, TypeError, "workers must be an int or None, got 2.0 of type float"),
        ((never, A), {"workers": True}, TypeError, "workers must be an int"),
        ((never, A), {"executor": "gpu"}, ValueError, "executor must be one of 'processes', 'threads', 'serial'"),
        ((never, A), {"executor": ProcessPoolExecutor}, TypeError, "got the class ProcessPoolExecutor; call it first"),
        ((never, A), {"executor": 3}, TypeError, "executor must be a name"),
        ((never, A), {"isolate": 1}, TypeError, "isolate must be a bool"),
        ((never, A), {"isolate": True, "executor": "threads"}, ValueError, "isolate=True needs worker processes"),
        ((never, A), {"verify": True, "isolate": True}, ValueError, "verify=True calls func in this process too"),
        ((never, A), {"verify": "full", "timeout": 3}, ValueError, "which timeout=3 rules out"),
        ((never, A), {"verify": "some"}, ValueError, "verify must be None, True, False or 'full'"),
        ((never, A), {"blas_threads": 0}, ValueError, "blas_threads must be at least 1"),
        ((never, A), {"blas_threads": "all"}, TypeError, "blas_threads must be an int, 'inherit' or None"),
        ((never, A), {"errors": "skip"}, ValueError, "errors must be 'raise' or 'ignore'"),
        ((never, A), {"errors": "ignore", "out": np.zeros(3, int)}, ValueError, "no value for a gap"),
        ((never, A), {"timeout": 0}, ValueError, "timeout must be more than 0 seconds, got 0"),
        ((never, A), {"timeout": float("nan")}, ValueError, "timeout must be more than 0 seconds"),
        ((never, A), {"timeout": True}, TypeError, "timeout must be a number of seconds or None, got True"),
        ((never, A), {"timeout": 1, "executor": "threads"}, ValueError, "needs worker processes that can be killed"),
        ((never, A), {"retries": -1}, ValueError, "retries must not be negative, got -1"),
        ((never, A), {"retries": 1.5}, TypeError, "retries must be an int, got 1.5"),
        (
            (never, A),
            {"progress": 1},
            TypeError,
            r"progress must be True, a label, or a function of \(done, total\), got an o",
        ),
        ((never, A), {"progress": Labelled}, TypeError, "got the class Labelled"),
        ((never, A), {"progress": lambda done: None}, TypeError, r"two arguments \(done, total\), got \(done\)"),
        ((never, A), {"resume": 3}, TypeError, "resume must be a path or None, got 3 of type int"),
        ((never, A), {"resume": ""}, ValueError, "resume must be a path as a str, got ''"),
        ((never, A), {"resume": "j", "verify": "full"}, ValueError, "verify='full' computes everything again"),
        ((never, A), {"worker": 2}, TypeError, "unknown option 'worker': did you mean 'workers'"),
        ((never, A), {"n_jobs": 2}, TypeError, "unknown option 'n_jobs': write workers=2"),
    ],
)
def test_bad_input(args, kwargs, error, text):
    with pytest.raises(error, match=text):
        parallel_apply(*args, **kwargs)


def test_isolate_in_somebody_elses_threads():
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="ThreadPoolExecutor"):
        parallel_apply(never, A, executor=executor, isolate=True)


@pytest.mark.parametrize("how", [{}, {"vectorized": True, "chunk": 2}], ids=["elements", "blocks"])
def test_out_that_would_cut_text(how, runner):
    text = np.array(["a", "abc", "abcd", "ab", "abcdef"], "U6")
    results = {"arrays": lambda x: np.array(x), "text": str} if not how else {"arrays": np.copy}
    for func in results.values():
        for out, whole in [(np.full(4, "?", "U4"), text[:4]), (np.full(4, "?", "U9"), text[:4])]:
            assert parallel_apply(func, whole, out=out, **how, **runner) is out
            assert out.tolist() == whole.tolist()
        with pytest.raises(
            ValueError, match="out has dtype <U4, but func returned text of 6 characters, which would be"
        ):
            parallel_apply(func, text, out=np.empty(5, "U4"), **how, **runner)


def test_out_that_does_not_fit_the_results():
    with pytest.raises(ValueError, match=r"out has shape \(3, 5\), but the result has \(3, 4\)"):
        parallel_apply(np.sort, A, out=np.empty((3, 5)))
    with pytest.raises(TypeError, match="cannot be stored in out of dtype int64"):
        parallel_apply(np.sort, A, out=np.empty((3, 4), int))
    with pytest.raises(ValueError, match="out has 1 array"):
        parallel_apply(lambda x: (x, x), A, out=np.empty((3, 4)))


@pytest.mark.parametrize("same", [lambda z: z, lambda z: z[:], lambda z: z.T[::-1].T[:, ::-1], lambda z: z[:, :]])
def test_out_with_one_array_for_two_results(same):
    """Only the last result would be left in it, without a word."""
    z = np.empty((3, 4))
    with pytest.raises(ValueError, match="out has one array for two results, of which only the last would be left"):
        parallel_apply(never, A, out=(z, same(z)))
    pairs = np.empty((3, 4, 2))
    parallel_apply(lambda x: (x, -x), A, out=(pairs[..., 0], pairs[..., 1]))
    assert pairs.tolist() == np.stack([A, -A], -1).tolist()


def test_scoped_options_are_checked_at_once_and_nest():
    with pytest.raises(ValueError, match="workers"), options(workers=0):
        raise AssertionError("not reached")
    with pytest.raises(TypeError, match="unknown option"), options(jobs=2):
        raise AssertionError("not reached")
    with options(executor="serial"), options(workers=2):
        assert parallel_apply(np.sum, A).tolist() == [6.0, 22.0, 38.0]
        with pytest.raises(ValueError, match="isolate"):
            parallel_apply(np.sum, A, isolate=True)
        assert parallel_apply(np.sum, A, isolate=True, executor="processes").tolist() == [6.0, 22.0, 38.0]
