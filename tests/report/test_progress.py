"""How far a call has come: by a function of the user's, and by a bar."""

from __future__ import annotations

import os
import signal
import sys
import threading

import numpy as np
import pytest

import parwise
from parwise import parallel_apply, parallel_map
from parwise._report import progress

from ..support.oracle import assert_same, blocks, loop

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:distributed")

A = np.arange(60.0).reshape(20, 3)
caller = os.getpid()


@pytest.fixture
def at_once(monkeypatch):
    """Tell of every step, however short."""
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.0)


class Seen(list):
    """What a progress function was told, and that it was told rightly."""

    def __init__(self):
        super().__init__()
        self._thread = threading.get_ident()

    def __call__(self, done, total):
        assert threading.get_ident() == self._thread
        assert os.getpid() == caller
        self.append((done, total))

    def check(self, count, total=...):
        total = count if total is ... else total
        assert self[-1] == (count, total)
        assert [each for _, each in self] == [total] * len(self)
        done = [each for each, _ in self]
        assert done == sorted(set(done)), "not each time more"
        assert count == 0 or done[0] > 0


@pytest.mark.usefixtures("at_once", "small_tasks")
def test_every_executor_tells(runner):
    seen = Seen()
    assert_same(parallel_apply(np.sum, A, progress=seen, **runner), loop(np.sum, A))
    seen.check(20)


@pytest.mark.usefixtures("at_once", "eager")
@pytest.mark.parametrize("isolate", [False, True])
def test_it_moves_on_the_way(isolate):
    """Workers have no more than four of the twenty blocks at a time."""
    seen = Seen()
    how = {"vectorized": True, "chunk": 1, "workers": 2, "isolate": isolate}
    assert_same(parallel_apply(lambda x: x + 1, A, progress=seen, **how), A + 1)
    seen.check(20)
    assert len(seen) > 3


def test_it_is_told_only_now_and_then(monkeypatch):
    """By time: a clock that stands still lets it be told once, at the end."""
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 3600.0)
    seen = Seen()
    parallel_apply(np.sum, A, progress=seen, workers=1)
    assert seen == [(20, 20)]


@pytest.mark.usefixtures("at_once")
def test_small_calls_and_empty_ones():
    for count in (100, 1, 0):
        seen = Seen()
        assert_same(parallel_apply(np.negative, np.arange(float(count)), progress=seen), -np.arange(float(count)))
        assert seen[-1] == (count, count)
        assert seen.count((count, count)) == 1  # on a machine that is held up there are more before it


@pytest.mark.usefixtures("at_once")
def test_blocks_count_their_elements(runner):
    seen = Seen()
    got = parallel_apply(np.cumsum, A[:, 0], vectorized=True, chunk=6, progress=seen, verify=False, **runner)
    assert_same(got, blocks(np.cumsum, A[:, 0], [(0, 6), (6, 12), (12, 18), (18, 20)]))
    seen.check(20)
    assert {done for done, _ in seen} <= {2, 6, 8, 12, 14, 18, 20}
    if runner in ({"executor": "serial"}, {"workers": 1}):
        assert [done for done, _ in seen] == [6, 12, 18, 20]


@pytest.mark.usefixtures("at_once", "eager")
def test_several_axes():
    seen = Seen()
    cube = np.arange(24.0).reshape(2, 3, 4)
    assert_same(parallel_apply(np.sum, cube, axis=(0, 2), progress=seen, workers=2), loop(np.sum, cube, axis=(0, 2)))
    seen.check(8)


@pytest.mark.usefixtures("at_once")
def test_iterators_have_no_total(runner):
    seen = Seen()
    assert parallel_map(str, iter(range(15)), progress=seen, **runner) == list(map(str, range(15)))
    seen.check(15, total=None)
    seen = Seen()
    assert parallel_map(str, range(15), progress=seen, **runner) == list(map(str, range(15)))
    seen.check(15)


def odd_ones_raise(x):
    if x % 2:
        raise ValueError(x)
    return x


@pytest.mark.usefixtures("at_once")
def test_gaps_are_done_too(runner):
    seen = Seen()
    a = np.arange(10.0)
    with pytest.warns(RuntimeWarning, match="no result for 5 of 10"):
        got = parallel_apply(odd_ones_raise, a, errors="ignore", progress=seen, **runner)
    assert_same(got, np.where(a % 2, np.nan, a))
    seen.check(10)


@pytest.mark.usefixtures("at_once", "small_tasks")
@pytest.mark.parametrize("options", [{"retries": 1}, {"errors": "ignore"}])
def test_lost_elements_count_once(tmp_path, options):
    """A worker dies at an element; that, and what else it had, is computed again, or is a gap."""

    def f(x):
        if x == 7:
            try:
                os.mkdir(tmp_path / "been here")
            except FileExistsError:
                return x
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    seen, a = Seen(), np.arange(30.0)
    want = a.copy()
    if "errors" in options:
        want[7] = np.nan
        with pytest.warns(RuntimeWarning, match="no result for 1 of 30"):
            got = parallel_apply(f, a, isolate=True, workers=2, progress=seen, **options)
    else:
        got = parallel_apply(f, a, isolate=True, workers=2, progress=seen, **options)
    assert_same(got, want)
    seen.check(30)


class Stop(Exception):
    pass


@pytest.mark.usefixtures("at_once", "small_tasks")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_an_exception_in_it_ends_the_call(runner, error, last):
    def tell(done, total):
        if not last or done == total:
            raise error

    with pytest.raises(error):
        parallel_apply(np.sum, A, progress=tell, **runner)
    seen = Seen()
    assert_same(parallel_apply(np.sum, A, progress=seen, **runner), loop(np.sum, A))
    seen.check(20)


@pytest.mark.usefixtures("at_once")
def test_an_error_is_raised_as_without(runner):
    seen = Seen()
    with pytest.raises(ValueError, match="1"):
        parallel_apply(odd_ones_raise, np.arange(10.0), progress=seen, **runner)
    assert all(done < total for done, total in seen)


@pytest.mark.usefixtures("at_once")
def test_a_block_that_raises_is_not_done():
    def f(block):
        return np.sqrt(odd_ones_raise(int(block[0]) // 4)) + block

    seen = Seen()
    with pytest.raises(ValueError, match="1"):
        parallel_apply(f, np.arange(10.0), vectorized=True, chunk=2, progress=seen, executor="serial")
    assert seen == [(2, 10), (4, 10)]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("verify", [True, "full"])
def test_what_verify_computes_again_does_not_count(verify):
    seen = Seen()
    assert_same(parallel_apply(np.sum, A, progress=seen, verify=verify, workers=2), loop(np.sum, A))
    seen.check(20)


@pytest.mark.usefixtures("at_once")
def test_calls_in_a_mapped_function_show_none():
    seen = Seen()

    def f(row):
        return parallel_apply(np.negative, row).sum()

    with parwise.options(progress=seen):
        assert_same(parallel_apply(f, A, workers=2), -loop(np.sum, A))
    seen.check(20)


@pytest.mark.usefixtures("at_once", "eager")
def test_every_entry_point_takes_it():
    seen = Seen()
    with parwise.options(progress=seen, workers=2):
        assert_same(parwise.apply_along_axis(np.sum, 1, A), np.apply_along_axis(np.sum, 1, A))
    seen.check(20)
    for workers in (1, 2):
        seen = Seen()
        double = parwise.vectorize(lambda x: 2 * x, progress=seen, workers=workers)
        assert_same(double(np.arange(50)), 2 * np.arange(50))
        seen.check(50)
        seen = Seen()
        inner = parwise.vectorize(np.dot, signature="(n),(n)->()", progress=seen, workers=workers)
        assert_same(inner(A, A), np.vectorize(np.dot, signature="(n),(n)->()")(A, A))
        seen.check(20)
    seen = Seen()
    assert parwise.parallel(workers=2, progress=seen)(odd_ones_raise).parallel([2, 4, 6]) == [2, 4, 6]
    seen.check(3)


@pytest.mark.usefixtures("at_once")
def test_xarray_takes_it():
    xr = pytest.importorskip("xarray")
    pytest.importorskip("parwise.xarray")
    array = xr.DataArray(A, {"time": np.arange(20) // 5}, ("time", "x"))
    seen = Seen()
    got = array.par.map(np.sum, "time", progress=seen, workers=2)
    assert_same(got.to_numpy(), loop(np.sum, A))
    seen.check(20)
    seen = Seen()
    got = array.par.map_groups(lambda group: group.mean("time"), "time", progress=seen, workers=2)
    xr.testing.assert_identical(got, array.groupby("time").map(lambda group: group.mean("time")))
    seen.check(4)
    seen = Seen()
    got = array.par.map_windows(np.median, time=3, dim="x", progress=seen, workers=2)
    seen.check(60)


@pytest.mark.usefixtures("at_once")
def test_none_for_each_of_dasks_blocks():
    xr = pytest.importorskip("xarray")
    pytest.importorskip("dask.array")
    pytest.importorskip("parwise.xarray")
    seen = Seen()
    lazy = xr.DataArray(A, dims=("time", "x")).chunk(time=5)
    with parwise.options(progress=seen):
        made = lazy.par.map(np.sum, "time", output_core_dims=[], output_dtypes=float)
        assert_same(made.compute(scheduler="synchronous").to_numpy(), loop(np.sum, A))
    assert seen == []
    with pytest.raises(ValueError, match="progress"):
        lazy.par.map(np.sum, "time", output_core_dims=[], output_dtypes=float, progress=seen)


# The bar.


def test_a_bar(capsys, runner):
    pytest.importorskip("tqdm")

    def total(row):
        return row.sum()

    assert_same(parallel_apply(total, A, progress=True, **runner), loop(total, A))
    shown = capsys.readouterr().err
    assert shown.startswith("\rtotal:   0%|")
    assert "total: 100%|" in shown
    assert "| 20/20 [" in shown
    assert shown.endswith("\n")


def test_a_bar_without_a_total(capsys):
    pytest.importorskip("tqdm")
    assert parallel_map(lambda x: x, iter(range(9)), progress=True, workers=1) == list(range(9))
    assert capsys.readouterr().err.splitlines()[-1].startswith("9it [")


@pytest.fixture
def bars(monkeypatch):
    """Every bar that is made."""
    pytest.importorskip("tqdm")
    made, make = [], progress._bar_class()

    def remember(**given):
        made.append(make(**given))
        return made[-1]

    monkeypatch.setattr(progress, "_bar_class", lambda: remember)
    return made


@pytest.mark.usefixtures("at_once")
def test_a_bar_is_closed_on_error(runner, bars, capsys):
    with pytest.raises(ValueError, match="1"):
        parallel_apply(odd_ones_raise, np.arange(10.0), progress=True, **runner)
    (bar,) = bars
    assert bar.disable  # what tqdm says of closed ones
    assert bar.n < 10
    assert capsys.readouterr().err.endswith("\n")


@pytest.mark.usefixtures("at_once", "capsys")
def test_a_bar_moves_beside_a_long_element_of_the_caller(monkeypatch):
    """The caller's first element ends when the bar has shown others to be done."""
    pytest.importorskip("tqdm")
    move = progress.Progress._move
    shown = []

    def note(self, done, total):
        move(self, done, total)
        shown.append(done)
        self.moved.set()

    monkeypatch.setattr(progress.Progress, "_move", note)
    monkeypatch.setattr(progress.Progress, "moved", threading.Event(), raising=False)

    def f(x):
        if os.getpid() == caller and x == 0:
            assert progress.Progress.moved.wait(60)
        return x

    assert_same(parallel_apply(f, np.arange(40.0), progress=True, workers=2, verify=False), np.arange(40.0))
    assert shown == sorted(set(shown))
    assert shown[0] < 40
    assert shown[-1] == 40


@pytest.mark.usefixtures("at_once", "small_tasks")
def test_a_function_catches_up_after_a_long_element_of_the_caller(tmp_path):
    """It is told of what workers did meanwhile, in the caller's thread."""

    def f(x):
        if os.getpid() == caller and x == 0:
            with open(fifo) as file:  # until a worker has come to the last element
                file.read()
        elif x == 39:
            with open(fifo, "w"):
                pass
        return x

    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    seen = Seen()
    assert_same(parallel_apply(f, np.arange(40.0), progress=seen, workers=2, verify=False), np.arange(40.0))
    seen.check(40)


def test_tqdm_is_missing(monkeypatch):
    def never(x):
        raise AssertionError("was called")

    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="pip install tqdm"):  # not of parwise, which no index has yet
        parallel_apply(never, A, progress=True)
    with pytest.raises(ImportError, match="tqdm"), parwise.options(progress=True):
        raise AssertionError("not reached")
