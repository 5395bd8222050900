"""By default one border between two blocks is tried, in workers; what the function sees beyond it is told."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, median_filter, uniform_filter1d
from scipy.signal import lfilter

from parwise import Pool, ReproducibilityWarning, parallel_apply
from parwise._executors.job.job import Job
from parwise._executors.processes.dispatcher import Dispatcher
from parwise._verify import border, seam
from parwise._workers.shared_memory import SLOTS

from ..support.oracle import assert_same

rng = np.random.default_rng(3)
A = rng.standard_normal((600, 40))


@pytest.fixture(autouse=True)
def no_limit_of_time(monkeypatch, eager):
    """A short call may spend seconds, so that a busy machine does not decide what is tested."""
    monkeypatch.setattr(seam, "SHARE", 1e4)
    monkeypatch.setattr(seam, "MORE_SECONDS", 1e2)


def blocks(func, a=A, **how):
    """Isolated, since otherwise this process may be done before a worker is up."""
    return parallel_apply(func, a, **{"vectorized": True, "chunk": 60, "workers": 2, "isolate": True} | how)


def told(func, a=A, **how):
    """What the default check tells; the result is that of the blocks in any case."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = blocks(func, a, **how)
    assert_same(got, blocks(func, a, **how, verify=False))
    assert all(one.category is ReproducibilityWarning and one.filename == __file__ for one in caught)
    return [str(one.message) for one in caught]


LOCAL = {
    "gaussian": (lambda b: gaussian_filter(b, 2), 8),
    "median": (lambda b: median_filter(b, (5, 1)), 2),
    "next": (lambda b: np.concatenate([b[1:], b[-1:]]), 1),
    "trailing mean": (lambda b: uniform_filter1d(b, 9, axis=0, origin=4), 8),
    "wide": (lambda b: uniform_filter1d(b, 41, axis=0), 20),
    "of the second result": (lambda b: (b, np.diff(b, axis=0, prepend=b[:1])), 1),
    "of integers": (lambda b: np.diff((b * 100).astype(int), axis=0, prepend=0), 1),
    "of text": (lambda b: np.roll(b.astype(str), 1, axis=0), 1),
}


def test_windows_that_overlap_in_memory_are_not_tried():
    """To change one of them changes others."""
    windows = np.lib.stride_tricks.sliding_window_view(A[:, 0], 5)
    assert told(lambda b: b.sum(axis=1), windows) == []
    dilated = np.lib.stride_tricks.sliding_window_view(A.ravel(), 11)[:, ::10]  # windows of two have nothing in common
    assert told(lambda b: b.sum(axis=1), dilated, chunk=2000) == []
    images = np.lib.stride_tricks.sliding_window_view(A, (3, 3))
    assert told(lambda b: b.max(axis=(2, 3)), images, axis=(0, 1), chunk=(60, 10)) == []
    assert len(told(np.cumsum, A[::-1, 0])) == 1
    assert len(told(lambda b: np.cumsum(b, axis=0), np.broadcast_to(A[:, :1], A.shape))) == 1


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("depth", [0, 1])
def test_the_depth_that_would_do_is_named(name, depth):
    func, enough = LOCAL[name]
    if name == "of the second result":
        with pytest.warns(ReproducibilityWarning, match="depth=1 would do"):
            blocks(func)
        return
    if depth < enough:
        (text,) = told(func, depth=depth)
        assert f"looks further than depth={depth}: in block" in text
        assert f"depth={enough} would do" in text
    assert told(func, depth=enough) == []
    assert told(func, depth=enough + 3) == []


WHOLE = {
    "mean": lambda b: b - b.mean(),
    "running sum": lambda b: np.cumsum(b, axis=0),
    "recursive filter": lambda b: lfilter([1.0], [1.0, -0.99999], b, axis=0),
    "spectrum": lambda b: np.abs(np.fft.fft(b, axis=0)),
    "sorted": lambda b: np.sort(b, axis=0),
    "numbered": lambda b: b + np.arange(len(b))[:, None],
    "length": lambda b: b * len(b),
}


@pytest.mark.parametrize("name", WHOLE)
def test_functions_of_the_whole_block(name):
    (text,) = told(WHOLE[name])
    assert "results depend on where its blocks begin and end" in text
    assert "verify=False" in text
    assert told(WHOLE[name], chunk=600) == []
    assert told(WHOLE[name], workers=1, isolate=False) == []


W = rng.standard_normal((40, 40))


@pytest.mark.parametrize(
    "func",
    [
        np.sin,
        np.exp,
        lambda b: b @ W,
        lambda b: np.sort(b, axis=1),
        lambda b: b.sum(axis=1),
        lambda b: (b.mean(axis=1), b.astype("f4")),
        lambda b: b[::2],
        lambda b: b - np.add.reduce(b, axis=1, keepdims=True),
        lambda b: np.linalg.svd(b, compute_uv=False)[:1],
        lambda b: b.astype(object),
        lambda b: np.full(b.shape, np.nan),
        lambda b: b[np.newaxis, 0],
        lambda b: np.random.random(b.shape),
    ],
    ids=[
        "sin",
        "exp",
        "matmul",
        "sort",
        "sum",
        "tuple",
        "half",
        "residues",
        "one row",
        "objects",
        "nan",
        "first",
        "random",
    ],
)
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_no_false_alarm(func, dtype):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        blocks(func, A.astype(dtype))
    # Random numbers are found by the handshake.
    assert not any("looks further" in str(one.message) or "whole block" in str(one.message) for one in caught)


@pytest.mark.parametrize(
    "how", [{"blas_threads": 1}, {"timeout": 60}, {"axis": 1, "chunk": 4}, {"axis": -1, "chunk": 4}]
)
def test_in_all_ways(how):
    axis = how.get("axis", 0)
    assert "depth=1 would do" in told(lambda b: np.diff(b, axis=axis, prepend=0), **how)[0]
    several = [A, A[::-1], np.asfortranarray(A)]
    given = {"vectorized": True, "isolate": True, "chunk": 60} | how
    with pytest.warns(ReproducibilityWarning, match="depth=2 would do"):
        parallel_apply(lambda a, b, c: a + np.roll(b, 2, axis) + c, *several, **given)


def test_a_pool():
    with Pool(2) as pool:
        assert "depth=1 would do" in told(LOCAL["next"][0], executor=pool)[0]


def test_beside_the_callers_own_blocks():
    here, caller = [], os.getpid()

    def f(b):
        if os.getpid() == caller:
            here.append(len(b))
        sum(range(20000))
        return np.cumsum(b, axis=0)

    for _ in range(100):
        here.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            blocks(f, isolate=False)
        assert set(here) == {60}
        if len(here) < 10:  # workers have computed a part
            break
    assert ["where its blocks begin" in str(one.message) for one in caught if "changes" not in str(one.message)] == [
        True
    ]


def test_nothing_of_it_is_seen(capfd, caplog):
    """Neither prints nor warnings and log records."""

    def f(b):
        print("block", len(b))
        os.write(2, b"raw\n")
        warnings.warn("of f", RuntimeWarning, stacklevel=1)
        logging.getLogger("seam").warning("logged")
        return np.cumsum(b, axis=0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        blocks(f)
    assert [one.category for one in caught].count(RuntimeWarning) == 10
    assert [one.category for one in caught].count(ReproducibilityWarning) == 1
    assert len(caplog.records) == 10
    assert capfd.readouterr().out == "block 60\n" * 10


def test_a_worker_that_dies_in_it_costs_nothing(monkeypatch):
    dead, on_exit = [], Dispatcher._on_exit

    def note_exit(self, worker, *killed_for):
        dead.append(worker.pid)
        on_exit(self, worker, *killed_for)

    def f(b):
        if len(b) != 60:
            os._exit(3)
        return b * 2

    monkeypatch.setattr(Dispatcher, "_on_exit", note_exit)
    for _ in range(3):
        assert_same(blocks(f), A * 2)
        assert dead  # the border was tried
        dead.clear()


def test_a_block_that_hangs_in_it_costs_no_result():
    """Made-up values may take for ever: the timeout of the call then ends a worker, and not the call."""

    def f(b):
        if len(b) != 60:
            threading.Event().wait()
        return b * 2

    for how in ({}, {"errors": "ignore"}, {"retries": 1}):
        assert_same(blocks(f, timeout=1.0, **how), A * 2)
    assert_same(blocks(np.negative), -A)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "once it has memory"])
def test_a_check_that_fails_costs_no_result(monkeypatch, late):
    stage, failed = border.Border._stage_changed, []

    def fails(*given):
        if late:
            stage(*given)
        failed.append(late)
        raise OSError("no memory for windows")

    monkeypatch.setattr(border.Border, "_stage_changed", fails)
    for _ in range(2 * SLOTS + 1):
        assert_same(blocks(WHOLE["running sum"], timeout=20), blocks(WHOLE["running sum"], verify=False, timeout=20))
    assert len(failed) == 2 * SLOTS + 1


@pytest.mark.skipif(os.environ.get("PARWISE_DIRECT") == "always", reason="workers read all arguments themselves")
def test_its_windows_take_no_more_memory_than_blocks(monkeypatch):
    staged = []
    whole = Job.stage

    def stage(job, task, get_memory):
        staged.append(len(task))
        return whole(job, task, get_memory)

    monkeypatch.setattr(Job, "stage", stage)
    for limit, longest in ((2**26, 16), (10 * A[0].nbytes, 8), (A[0].nbytes, 2)):
        staged.clear()
        monkeypatch.setattr(border, "BLOCK_BYTES", limit)
        blocks(np.negative, chunk=2)
        assert max(staged) == longest


def test_it_changes_no_files(tmp_path):
    """A function that names files by its values would write to that of a block."""

    def save(b):
        path = tmp_path / f"{A[:, 0].tolist().index(b[0, 0])}.npy"
        np.save(path, b)
        (tmp_path / "last").unlink(missing_ok=True)
        os.mkdir(tmp_path / "last") if len(b) != 60 else None
        return b * 2

    def tries(b):
        with contextlib.suppress(OSError):
            save(b)
        return np.cumsum(b, axis=0)

    assert_same(blocks(save), A * 2)
    assert "where its blocks begin" in told(tries)[0]
    found = {path.name: np.load(path) for path in tmp_path.iterdir()}
    assert sorted(found) == sorted(f"{lo}.npy" for lo in range(0, 600, 60))
    for name, block in found.items():
        lo = int(name.removesuffix(".npy"))
        assert_same(block, A[lo : lo + 60])
    assert_same(blocks(save), A * 2)  # files can be written again


def test_errors_and_gaps_leave_it_out():
    def f(b):
        if b[0, 0] == A[120, 0]:
            raise KeyError("no")
        return np.cumsum(b, axis=0)

    with pytest.raises(KeyError):
        blocks(f)
    with pytest.warns(ReproducibilityWarning), pytest.warns(RuntimeWarning, match="KeyError"):
        blocks(f, errors="ignore")

    def short(b):
        if len(b) < 60:
            raise ValueError("too short")
        return np.cumsum(b, axis=0)

    assert told(short) == []


def test_random_numbers_are_drawn_as_before():
    def f(b, rng):
        return b + rng.standard_normal(b.shape)

    assert_same(blocks(f, rng=5), blocks(f, rng=5, verify=False))


def test_it_ends_in_time(monkeypatch):
    """What takes longer than planned is left; the next call is right."""
    monkeypatch.setattr(seam, "SHARE", 0.0)
    monkeypatch.setattr(border.Border, "_pays", lambda *_: True)
    for _ in range(3):
        assert_same(blocks(lambda b: b - 1), A - 1)
        assert_same(blocks(np.negative), -A)


def test_one_block_is_the_loop():
    calls = []

    def f(b):
        calls.append(b.shape)
        return np.cumsum(b, axis=0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(blocks(f, chunk=600, isolate=False), np.cumsum(A, axis=0))
    assert calls == [A.shape]
