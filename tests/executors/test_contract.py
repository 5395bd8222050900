"""One suite for all executors: each returns the result of the plain loop."""

from __future__ import annotations

import decimal
import warnings
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from parwise import options, parallel_apply
from parwise._core.kernel import Kernel

from ..support.oracle import assert_same, blocks, loop

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:distributed")

rng = np.random.default_rng(3)
CUBE = rng.standard_normal((7, 5, 6))
Pair = namedtuple("Pair", "low high")


@pytest.mark.pairs
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3, (1, 2), (0, 1), (2, 0), (-1, -2), (0, 1, 2)])
@pytest.mark.parametrize("func", [np.sum, np.cumsum, lambda x: np.multiply.outer(np.ravel(x)[:2], [1.0, 2, 3])])
def test_axis(runner, axis, func):
    assert_same(parallel_apply(func, CUBE, axis=axis, **runner), loop(func, CUBE, axis=axis))


def test_several_arrays_args_and_kwargs(runner):
    def f(x, y, z, k, *, power):
        return (x * y).sum() + z * k**power

    args = (CUBE, CUBE[::-1] * 2, np.arange(7))
    got = parallel_apply(f, *args, args=(3,), kwargs={"power": 2}, **runner)
    assert_same(got, loop(f, *args, args=(3,), kwargs={"power": 2}))


def test_closure_with_array(runner):
    weights = rng.standard_normal((50_000,))
    weights_f = np.asfortranarray(rng.standard_normal((40, 300)))[::2, ::3]

    def f(x):
        return x.sum() * weights.sum() + (weights_f @ weights_f.T)[0, 1]

    assert_same(parallel_apply(f, CUBE, **runner), loop(f, CUBE))


def test_tuple_results(runner):
    def f(x):
        return x.min(), np.argmax(x), x[0]

    assert_same(parallel_apply(f, CUBE, **runner), loop(f, CUBE))


def test_named_tuple_results(runner):
    got = parallel_apply(lambda x: np.linalg.eigh(x @ x.T), CUBE, **runner)
    assert type(got).__name__ == "EighResult"
    assert_same(tuple(got), loop(lambda x: tuple(np.linalg.eigh(x @ x.T)), CUBE))


@pytest.mark.parametrize(
    "func",
    [
        lambda x: int(x) if x % 3 else float(x),
        lambda x: [np.int8(x), np.uint16(x), np.float16(x)][int(x) % 3],
        lambda x: "abc"[: int(x) % 4],
        lambda x: None if x > 9 else int(x),
        lambda x: {"x": int(x)},
        lambda x: 2**70 if x == 5 else 1,
        lambda x: 2**63 if x == 5 else 1,
        lambda x: np.datetime64(int(x), "D") if x < 9 else np.datetime64(int(x), "s"),
        lambda x: np.array(x, dtype=">f8"),
        lambda x: np.arange(3, dtype=">i2") * int(x),
        lambda x: np.arange(2, dtype=np.float32) if x < 11 else np.arange(2, dtype=np.int64),
        lambda x: [1, 2.5, int(x)],
        lambda x: np.longdouble(x) / 3,
        lambda x: complex(x, -0.0),
        lambda x: x > 3,
        lambda x: np.array([(int(x), x / 3)], dtype=[("i", "i4"), ("f", "f8")]),
        lambda x: np.array([x, None], dtype=object),
        lambda x: np.zeros((0, 3)),
        lambda x: b"ab" * int(x),
        lambda x: x.reshape(1, 1),
        lambda x: np.matrix([[x, x]]),
    ],
)
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_dtype_comes_from_all_results(runner, func):
    a = np.arange(13.0)
    assert_same(parallel_apply(func, a, **runner), loop(func, a))


@pytest.mark.pairs
@pytest.mark.parametrize(
    "dtype",
    ["?", "i1", "u8", ">i4", "f2", ">f4", "f8", "g", "c8", ">c16", "G", "M8[s]", "m8[D]", "U3", "S5", ">U2", "O", "V7"],
)
@pytest.mark.parametrize("ndim", [1, 2])
def test_dtypes(runner, dtype, ndim):
    a = np.arange(24).astype(dtype) if dtype != "V7" else np.arange(24).astype("S7").view("V7")
    a = a.reshape(-1) if ndim == 1 else a.reshape(6, 4)
    assert_same(parallel_apply(lambda x: x, a, **runner), loop(lambda x: x, a))


def test_structured(runner):
    a = np.zeros(9, dtype=[("x", "f4"), ("s", "S3"), ("n", "i8", (2,))])
    a["x"], a["n"] = np.arange(9), np.arange(18).reshape(9, 2)
    assert_same(parallel_apply(lambda r: r["x"] + r["n"].sum(), a, **runner), loop(lambda r: r["x"] + r["n"].sum(), a))
    assert_same(parallel_apply(lambda r: r, a, **runner), loop(lambda r: r, a))
    records = a.view(np.recarray)
    assert_same(parallel_apply(lambda r: r.x * 2, records, **runner), loop(lambda r: r.x * 2, records))


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (1,), (1, 3), (3, 1), (2, 0, 3)])
def test_empty_and_length_one(runner, shape):
    a = np.ones(shape)
    assert_same(parallel_apply(np.sum, a, **runner), loop(np.sum, a))


def test_empty_grid(runner):
    assert_same(parallel_apply(np.sum, np.ones((2, 0, 3)), axis=(0, 1), **runner), np.zeros((2, 0)))


def test_input_is_never_changed(runner):
    def f(x):
        x += 1
        return x.sum()

    a = CUBE.copy()
    assert_same(parallel_apply(f, a, **runner), loop(f, CUBE.copy()))
    assert a.tobytes() == CUBE.tobytes()


def test_read_only_and_broadcast(runner):
    a = CUBE.copy()
    a.flags.writeable = False
    wide = np.broadcast_to(CUBE[:, :, :1], CUBE.shape)
    same = np.broadcast_to(CUBE[0], (4, 5, 6))
    for one in (a, wide, same):
        assert_same(parallel_apply(np.cumsum, one, **runner), loop(np.cumsum, one))
        assert not parallel_apply(lambda x: x.flags.writeable, one, **runner).any()


def test_out(runner):
    out = np.empty((7, 5), np.float32)
    got = parallel_apply(lambda x: x.sum(axis=1), CUBE, out=out, **runner)
    assert got is out
    assert out.tobytes() == CUBE.sum(axis=2).astype(np.float32).tobytes()


def test_out_tuple_and_place(runner):
    outs = np.empty((5, 6)), np.empty((9, 5, 6), order="F")[::3]
    got = parallel_apply(lambda x: (x.sum(), x[:3]), CUBE, axis=(1, 2), out=outs, **runner)
    want = loop(lambda x: (x.sum(), x[:3]), CUBE, axis=(1, 2))
    assert got[0] is outs[0]
    assert got[1] is outs[1]
    assert_same(got, want)


def test_out_may_be_the_input(runner):
    a = CUBE.copy()
    want = loop(np.cumsum, a.reshape(7, 30))
    parallel_apply(np.cumsum, a.reshape(7, 30), out=a.reshape(7, 30), **runner)
    assert_same(a.reshape(7, 30), want)
    b = np.arange(10.0)
    parallel_apply(lambda x: x + 1, b[:-1], out=b[1:], **runner)
    assert b.tolist() == [0.0, *np.arange(1.0, 10)]


@pytest.mark.pairs
@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_block_functions(runner, chunk, axis):
    a = rng.standard_normal((7, 9)) if axis == 0 else rng.standard_normal((4, 7))
    chunk = chunk and min(chunk, a.shape[axis])
    bounds = {
        None: [(0, 7)],
        1: [(k, k + 1) for k in range(7)],
        2: [(0, 2), (2, 4), (4, 7)],
        3: [(0, 3), (3, 7)],
        7: [(0, 7)],
    }[chunk]
    for func in (np.negative, lambda b: b - b.mean(), lambda b: np.repeat(b, 2, axis=axis), lambda b: b.astype("f4")):
        got = parallel_apply(func, a, axis=axis, vectorized=True, chunk=chunk, **runner)
        assert_same(got, blocks(func, a, bounds, axis))


def test_blocks_of_mixed_dtype_and_length(runner):
    def f(block):
        return block.astype(np.int16) if block[0] < 4 else block[block > 6]

    a = np.arange(12.0)
    got = parallel_apply(f, a, vectorized=True, chunk=4, **runner)
    assert_same(got, blocks(f, a, [(0, 4), (4, 8), (8, 12)]))


def test_block_tuple_and_empty(runner):
    got = parallel_apply(lambda b: (b * 2, b.astype(int)), np.arange(5.0), vectorized=True, chunk=2, **runner)
    assert_same(got, (np.arange(5.0) * 2, np.arange(5)))
    assert_same(parallel_apply(np.negative, np.zeros((0, 3)), vectorized=True, **runner), np.zeros((0, 3)) * -1)


def test_exception_of_lowest_index(runner):
    def f(x):
        if x >= 11:
            raise KeyError("from f", int(x))
        return x

    with pytest.raises(KeyError) as caught:
        parallel_apply(f, np.arange(40), **runner)
    assert caught.value.args == ("from f", 11)
    assert any("element 11 along axis 0" in note for note in caught.value.__notes__)


def test_remote_traceback_is_the_cause(process_executor, dask_client):
    def f(x):
        return 1 / (x - 5)

    for one in (
        {"isolate": True},
        {"executor": process_executor, "isolate": True},
        {"executor": dask_client, "isolate": True},
    ):
        with pytest.raises(ZeroDivisionError) as caught:
            parallel_apply(lambda x: f(int(x)), np.arange(9), **one)
        assert "return 1 / (x - 5)" in str(caught.value.__cause__)
        assert "_kernel.py" not in str(caught.value.__cause__)


@pytest.mark.parametrize("raised", [StopIteration, SystemExit, GeneratorExit])
def test_unusual_exceptions(runner, raised):
    def f(x):
        if x == 3:
            raise raised
        return x

    with pytest.raises(raised):
        parallel_apply(f, np.arange(5), **runner)
    assert_same(parallel_apply(np.negative, np.arange(5), **runner), -np.arange(5))


@pytest.mark.parametrize(
    "result", [str, float, lambda x: np.ones(2), lambda x: (x,)], ids=["text", "numbers", "arrays", "tuples"]
)
@pytest.mark.parametrize("at", [5, 6, 8])
def test_no_element_of_a_task_follows_one_that_raises_stop_iteration(at, result):
    """`map` goes on with the next one, if it is asked again."""
    computed = []

    def f(x):
        computed.append(int(x))
        if x == at:
            raise StopIteration
        return result(x)

    outcome = Kernel(f, (), {}, False).run([np.arange(5, 9)], 5, 9)
    assert type(outcome.error) is StopIteration
    assert outcome.index == at
    assert computed == list(range(5, at + 1))


def test_ragged_results(runner):
    with pytest.raises(ValueError, match=r"shape \(0,\) in element 0.*but \(1,\) in element 1"):
        parallel_apply(lambda x: np.zeros(int(x)), np.arange(4), **runner)


def test_tuples_of_different_length(runner):
    with pytest.raises(ValueError, match="returned"):
        parallel_apply(lambda x: (1,) * (1 + int(x) // 3), np.arange(6), **runner)
    with pytest.raises(ValueError, match="tuple"):
        parallel_apply(lambda x: (1,) if x < 3 else 1, np.arange(6), **runner)


def test_masked_result_is_refused(runner):
    with pytest.raises(TypeError, match="mask would be lost"):
        parallel_apply(lambda x: np.ma.masked_less(x, 0), CUBE, **runner)


def test_scalar_block_result_is_refused(runner):
    with pytest.raises(ValueError, match="keeps the mapped axis"):
        parallel_apply(np.sum, CUBE, vectorized=True, chunk=3, **runner)


def test_arithmetic_context_is_the_callers(runner):
    def f(x):
        return (
            str(decimal.Decimal(1) / decimal.Decimal(7)),
            repr(np.float64(x) / 3),
            np.geterr()["over"],
            np.getbufsize(),
        )

    with (
        decimal.localcontext(prec=5),
        np.errstate(over="ignore"),
        np.printoptions(precision=3, floatmode="fixed"),
    ):
        size = np.setbufsize(4096)
        try:
            got = parallel_apply(f, np.arange(8.0), **runner)
            assert_same(got, loop(f, np.arange(8.0)))
        finally:
            np.setbufsize(size)


def test_errstate_raise(runner):
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        parallel_apply(lambda x: np.float64(1.0) / x, np.arange(4.0)[::-1], **runner)


def test_nested_call(runner):
    def f(row):
        return parallel_apply(np.sqrt, np.abs(row), workers=2)

    assert_same(parallel_apply(f, CUBE[0], **runner), loop(lambda r: np.sqrt(np.abs(r)), CUBE[0]))


def test_array_like_read_by_block(runner):
    class File:
        """A data set on disk, as h5py or zarr give it: no ndarray, reads by slices."""

        def __init__(self, data):
            self._data = data
            self.shape, self.dtype = data.shape, data.dtype
            self.reads = []

        def __getitem__(self, index):
            assert isinstance(index, tuple)
            self.reads.append(index)
            return self._data[index].copy()

        def __setitem__(self, index, value):
            self._data[index] = value

    data = rng.standard_normal((30, 8))
    for axis in (0, 1, (0, 1)):
        file = File(data.copy())
        assert_same(parallel_apply(np.sum, file, axis=axis, **runner), loop(np.sum, data, axis=axis))
    file = File(data.copy())
    got = parallel_apply(np.negative, file, vectorized=True, chunk=7, **runner)
    assert_same(got, -data)
    target = File(np.zeros((8, 30)))
    assert parallel_apply(np.negative, data, axis=1, out=File(np.zeros((30, 8))), **runner) is not None
    parallel_apply(np.negative, data.T, out=target, **runner)
    assert_same(target._data, -data.T.copy())


def test_memmap(runner, tmp_path):
    a = np.memmap(tmp_path / "a", dtype="f8", mode="w+", shape=(20, 30))
    a[:] = rng.standard_normal((20, 30))
    assert_same(parallel_apply(np.sort, a, **runner), loop(np.sort, np.asarray(a)))
    assert parallel_apply(lambda x: type(x).__name__, a, **runner)[0] == "memmap"
    del a


def test_scoped_options(runner):
    with options(**runner):
        assert_same(parallel_apply(np.sort, CUBE), loop(np.sort, CUBE))


def test_verify_and_blas_options(runner):
    for more in ({"verify": True}, {"verify": False}, {"blas_threads": 1}, {"blas_threads": "inherit"}):
        isolated = runner.get("isolate") or getattr(runner.get("executor"), "initialized", False)
        if more.get("verify") and isolated:  # verify calls the function here too
            continue
        executor = runner.get("executor")
        if more.get("blas_threads") == 1 and (executor == "threads" or isinstance(executor, ThreadPoolExecutor)):
            with pytest.raises(ValueError, match="threadpool_limits"):
                parallel_apply(np.sort, CUBE, **runner, **more)
            continue
        assert_same(parallel_apply(np.sort, CUBE, **runner, **more), loop(np.sort, CUBE))


@pytest.mark.parametrize("isolate", [True, False])
def test_warnings_reach_the_caller(eager, isolate):
    def f(x):
        warnings.warn(f"odd {x}", UserWarning, stacklevel=1)
        return x

    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        parallel_apply(f, np.arange(30), isolate=isolate, workers=2)
    assert [str(one.message) for one in log] == [f"odd {k}" for k in range(30)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="odd 0"):
            parallel_apply(f, np.arange(30), isolate=isolate, workers=2)


@pytest.mark.parametrize("shape", [(2, 1, 5, 3), (30, 2, 1), (1, 4, 1, 2), (1, 1, 1)])
def test_axes_of_length_one(runner, shape):
    a = rng.standard_normal(shape)
    for axis in [(0, 1), (1, 0), tuple(range(len(shape))), (len(shape) - 1, 0), (0, 1, len(shape) - 1)]:
        assert_same(parallel_apply(lambda x: x, a, axis=axis, **runner), loop(lambda x: x, a, axis=axis))


def test_out_may_be_an_argument(runner):
    a = np.arange(6.0)
    b = a.copy()
    parallel_apply(lambda x, b: x + b.sum(), a, args=(b,), out=b, **runner)
    assert_same(b, a + 15.0)
    c = a.copy()
    parallel_apply(lambda x: x + c.sum(), a, out=c, **runner)
    assert_same(c, a + 15.0)


def test_out_of_blocks_that_change_their_length(runner):
    a = np.array([1.0, 2.0, -1.0, 3.0])
    out = np.empty(3)
    assert parallel_apply(lambda x: x[x > 0], a, vectorized=True, chunk=2, out=out, **runner) is out
    assert out.tolist() == [1.0, 2.0, 3.0]
