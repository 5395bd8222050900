"""One contract for the executors of others: each gives the loop's results, errors, gaps, random numbers and prints.

``PARWISE_EXECUTORS=loky,mpi pytest tests/executors`` runs it, and the long contract, over some of them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings

import numpy as np
import pytest

import parwise
from parwise import parallel_apply, parallel_imap, parallel_map

from ..conftest import FOREIGN, OPTIONAL, foreign_names
from ..support.oracle import assert_same, blocks, loop

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

ROWS = np.random.default_rng(5).standard_normal((40, 6))
THREADS = ("threads",)


@pytest.fixture(params=foreign_names(FOREIGN))
def name(request):
    return request.param


@pytest.fixture
def executor(name, foreign):
    return foreign(name)


@pytest.mark.parametrize("module", OPTIONAL)
def test_executors_that_need_not_be_installed(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def test_results_are_the_loops(executor):
    scale = np.arange(6.0)

    def f(row, k, *, power):
        return row @ scale, (row[:2] * k) ** power, np.argmax(row)

    got = parallel_apply(f, ROWS, args=(3,), kwargs={"power": 2}, executor=executor)
    assert_same(got, loop(f, ROWS, args=(3,), kwargs={"power": 2}))


def test_blocks_with_halos(executor):
    def f(block):
        return block + np.roll(block, 1, axis=0)

    got = parallel_apply(f, ROWS, vectorized=True, chunk=7, depth=1, boundary="reflect", executor=executor)
    assert_same(got, parallel_apply(f, ROWS, vectorized=True, chunk=7, depth=1, boundary="reflect", executor="serial"))
    got = parallel_apply(np.negative, ROWS, vectorized=True, chunk=9, executor=executor)
    bounds = [(0, 9), (9, 18), (18, 27), (27, 36), (36, 40)]
    assert_same(got, blocks(np.negative, ROWS, bounds, 0))


def test_most_work_is_done_there(name, executor):
    where = parallel_apply(lambda x: os.getpid(), np.arange(60), executor=executor, verify=False)
    assert (set(where) == {os.getpid()}) is (name in THREADS)


def test_lists_and_streams(executor):
    assert parallel_map(lambda x: x * "a", range(30), executor=executor) == [k * "a" for k in range(30)]
    assert list(parallel_imap(lambda x: x + 0.5, iter(range(30)), executor=executor)) == [k + 0.5 for k in range(30)]


class OwnError(Exception):
    """An exception that is rebuilt elsewhere."""

    def __init__(self, text, number):
        super().__init__(text, number)
        self.number = number


def test_the_error_of_the_lowest_index(name, executor):
    def f(x):
        if x >= 11:
            raise OwnError("from f", int(x))
        return x

    with pytest.raises(OwnError) as caught:
        parallel_apply(f, np.arange(40), executor=executor)
    assert caught.value.number == 11
    assert any("in element 11 along axis 0" in note for note in caught.value.__notes__)
    assert_same(parallel_apply(np.negative, ROWS, executor=executor), -ROWS)  # and goes on


def test_an_error_that_cannot_be_pickled(name, executor):
    def f(x):
        if x == 11:
            error = ValueError("with a frame")
            error.frame = sys._getframe()
            raise error
        return x

    kind = ValueError if name in THREADS else parwise.RemoteError
    with pytest.raises(kind, match="with a frame") as caught:
        parallel_apply(f, np.arange(40), executor=executor)
    assert any("in element 11 along axis 0" in note for note in caught.value.__notes__)


def test_a_result_that_cannot_be_sent(name, executor):
    def f(x):
        return sys._getframe() if x == 20 else x

    if name in THREADS:
        assert parallel_apply(f, np.arange(40), executor=executor).dtype == object
    else:
        with pytest.raises(TypeError, match="pickle"):
            parallel_apply(f, np.arange(40), executor=executor)


def test_gaps(executor):
    def f(x):
        if x % 7 == 3:
            raise ValueError("a seventh")
        return x / 3

    with pytest.warns(RuntimeWarning, match="a seventh"):
        got = parallel_apply(f, np.arange(40), errors="ignore", executor=executor)
    want = np.array([np.nan if k % 7 == 3 else k / 3 for k in range(40)])
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("chunk", [None, 7])
def test_random_numbers(executor, chunk):
    def f(row, rng):
        return row + rng.standard_normal(row.shape)

    how = {"rng": 8} if chunk is None else {"rng": 8, "vectorized": True, "chunk": chunk}
    assert_same(parallel_apply(f, ROWS, executor=executor, **how), parallel_apply(f, ROWS, executor="serial", **how))


def test_numeric_state_is_the_callers(executor):
    def f(x):
        return np.float64(1.0) / x

    with np.errstate(divide="raise"), pytest.raises(FloatingPointError) as caught:
        parallel_apply(f, np.arange(40.0)[::-1], executor=executor)
    assert any("in element 39" in note for note in caught.value.__notes__)


def test_blas_threads(name, executor):
    if name in THREADS:
        with pytest.raises(ValueError, match="threadpool_limits\\(1\\)"):
            parallel_apply(pytest.fail, np.arange(30), blas_threads=1, executor=executor)
        assert_same(parallel_apply(abs, np.arange(30), blas_threads="inherit", executor=executor), np.arange(30))
        return
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def count(x):
        found = [one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
        return max(found, default=1)

    got = parallel_apply(count, np.arange(30), blas_threads=1, isolate=True, executor=executor)
    assert set(got) == {1}


def test_setup(name, executor):
    def setup():
        import builtins

        builtins.parwise_contract = getattr(builtins, "parwise_contract", 0) + 1

    def clear(x):
        import builtins

        vars(builtins).pop("parwise_contract", None)
        return 0

    def see(x):
        import builtins

        return builtins.parwise_contract

    try:
        assert set(parallel_apply(see, np.arange(40), setup=setup, executor=executor)) == {1}
    finally:
        parallel_apply(clear, np.arange(40), executor=executor, verify=False)
        clear(0)


def test_an_error_in_setup(executor):
    def setup():
        raise OSError("no such library")

    with pytest.raises(OSError, match="no such library") as caught:
        parallel_apply(np.negative, np.arange(40), setup=setup, executor=executor)
    assert any("given as setup" in note for note in caught.value.__notes__)


def test_isolate(name, executor):
    if name in THREADS:
        with pytest.raises(ValueError, match="isolate=True needs worker processes"):
            parallel_apply(np.negative, ROWS, isolate=True, executor=executor)
        return
    got = parallel_apply(lambda row: os.getpid(), ROWS, isolate=True, executor=executor)
    assert os.getpid() not in got


@pytest.mark.parametrize(("option", "value"), [("timeout", 3.0), ("retries", 1)])
def test_what_only_workers_of_parwise_can_do_is_refused(executor, option, value):
    called = []
    with pytest.raises(ValueError, match=f"{option}={value}"):
        parallel_apply(called.append, ROWS, executor=executor, **{option: value})
    assert called == []


def test_calls_within_calls_are_serial(executor):
    def f(row):
        return parallel_apply(np.sqrt, np.abs(row), workers=2)

    assert_same(parallel_apply(f, ROWS, executor=executor), loop(lambda row: np.sqrt(np.abs(row)), ROWS))


def test_the_call_can_be_made_again_and_again(executor):
    def times(k):
        return lambda row: row @ (np.arange(6.0) * k)

    for k in range(12):  # a process keeps few sessions
        assert_same(parallel_apply(times(k), ROWS, executor=executor), loop(times(k), ROWS))


def test_a_large_closure(executor):
    table = np.arange(200_000.0)
    got = parallel_apply(lambda row: row + table[7], ROWS, executor=executor)
    assert_same(got, ROWS + 7)


def test_out(executor):
    out = np.empty((40, 6), np.float32)
    assert parallel_apply(np.negative, ROWS, out=out, executor=executor) is out
    assert out.tobytes() == (-ROWS).astype(np.float32).tobytes()


def test_verify(executor):
    assert_same(parallel_apply(np.sort, ROWS, verify=True, executor=executor), loop(np.sort, ROWS))


def test_another_value_there_is_a_warning(name, executor):
    here = os.getpid()
    if name in THREADS:
        return
    with pytest.warns(parwise.ReproducibilityWarning, match="a different value in a worker"):
        parallel_apply(lambda x: os.getpid() == here, np.arange(40), executor=executor)


def test_progress(executor):
    told = []
    parallel_apply(np.negative, ROWS, progress=lambda done, total: told.append((done, total)), executor=executor)
    assert told[-1] == (40, 40)
    assert told == sorted(told)


def test_prints_and_warnings_in_index_order(name, executor, capfd):
    def f(x):
        print(f"item {x}\n", end="")
        warnings.warn(f"odd {x}", UserWarning, stacklevel=1)
        return x

    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        parallel_map(f, range(40), executor=executor, verify=False)
    lines, texts = capfd.readouterr().out.splitlines(), [str(one.message) for one in log]
    if name in THREADS:  # they print at once
        lines, texts = sorted(lines), sorted(texts)
        assert (lines, texts) == (sorted(f"item {k}" for k in range(40)), sorted(f"odd {k}" for k in range(40)))
    else:
        assert (lines, texts) == ([f"item {k}" for k in range(40)], [f"odd {k}" for k in range(40)])


def test_bytes_written_to_the_buffer(name, executor, capfd):
    def f(x):
        sys.stdout.buffer.write(b"%d " % x)
        return x

    parallel_map(f, range(40), executor=executor)
    sys.stdout.flush()
    found = [int(one) for one in capfd.readouterr().out.split()]
    assert (sorted(found) if name in THREADS else found) == list(range(40))
