"""`errors="ignore"` leaves a gap where an element has no result, and warns once."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import threading
import time
import warnings
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import parwise
from parwise import GapWarning, parallel_apply, parallel_map

from ..support.examples import examples
from ..support.functions import ISOLATED
from ..support.oracle import assert_same

A = np.arange(23.0)


def failing(at, func):
    """Return `func` with a failure at the elements `at`."""

    def f(x, *more):
        if float(np.ravel(x)[0]) in at:
            raise ValueError(f"not for {float(np.ravel(x)[0]):g}")
        return func(x, *more)

    return f


def quietly(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return parallel_apply(*args, errors="ignore", **kwargs)


def test_gaps_are_nan_and_one_warning_names_them(runner):
    with pytest.warns(RuntimeWarning) as log:
        got = parallel_apply(failing((3, 7, 20), np.sqrt), A, errors="ignore", **runner)
    want = np.sqrt(A)
    want[[3, 7, 20]] = np.nan
    assert_same(got, want)
    assert [str(one.message) for one in log] == [
        "no result for 3 of 23 elements, which are gaps now: 3, 7, 20. "
        "The first one, in element 3 along axis 0: ValueError: not for 3"
    ]
    assert log[0].filename == __file__


def test_nothing_is_said_where_nothing_fails(runner):
    assert_same(parallel_apply(np.sqrt, A, errors="ignore", **runner), np.sqrt(A))


@pytest.mark.parametrize(
    ("func", "dtype", "gap"),
    [
        (lambda x: np.float32(x), "f4", np.nan),
        (lambda x: np.longdouble(x), "g", np.nan),
        (lambda x: complex(x), "c16", np.nan),
        (lambda x: int(x), "f8", np.nan),
        (lambda x: np.uint8(x), "f8", np.nan),
        (lambda x: bool(x), "O", None),
        (lambda x: str(x), "O", None),
        (lambda x: np.datetime64(int(x), "D"), "M8[D]", np.datetime64("NaT", "D")),
        (lambda x: np.timedelta64(int(x), "ms"), "m8[ms]", np.timedelta64("NaT", "ms")),
        (lambda x: {"x": x}, "O", None),
        (lambda x: np.float64(x) if x > 4 else np.float32(x), "f8", np.nan),
        (lambda x: [int(x), 2], "f8", np.nan),
        (lambda x: np.array((x, 1), "f8,i4"), "O", None),
    ],
)
def test_what_stands_in_a_gap(runner, func, dtype, gap):
    got = quietly(failing((0, 9), func), A, **runner)
    rest = np.asarray([func(x) for x in A if x not in (0, 9)])
    want = np.full((len(A), *rest.shape[1:]), gap, dtype)
    want[[k for k in range(len(A)) if k not in (0, 9)]] = rest
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if got.dtype == object:
        assert got.tolist() == want.tolist()
    else:
        assert_same(got, want)


def test_arrays_tuples_and_axes(runner):
    a = np.random.default_rng(0).standard_normal((6, 5, 4))
    bad = {float(a[2, 0, 0]), float(a[5, 0, 0])}
    got = quietly(failing(bad, np.sort), a, **runner)
    want = np.sort(a)
    want[[2, 5]] = np.nan
    assert_same(got, want)
    first, second = quietly(failing(bad, lambda x: (x.sum(), x.argmax())), a, **runner)
    assert np.flatnonzero(np.isnan(first)).tolist() == np.flatnonzero(np.isnan(second)).tolist() == [2, 5]
    bad = {float(a[0, 2, 1]), float(a[0, 4, 0])}
    got = quietly(failing(bad, np.cumsum), a, axis=(1, 2), **runner)
    want = a.cumsum(axis=0)
    want[:, [2, 4], [1, 0]] = np.nan
    assert_same(got, want)
    got = quietly(failing(bad, np.cumsum), a, axis=(2, 1), **runner)
    assert np.isnan(got).sum() == 12


def test_blocks(runner):
    a = np.arange(20.0)
    options = {"vectorized": True, "chunk": 5, **runner}
    with pytest.warns(RuntimeWarning, match=r"in blocks that cover 5 of 20 .*: 10, 11, 12, 13, 14.*in block 10:15"):
        got = parallel_apply(failing((10,), np.negative), a, errors="ignore", **options)
    want = -a
    want[10:15] = np.nan
    assert_same(got, want)
    got = quietly(failing((0,), lambda b: b[b % 2 == 0].astype("i2")), a, **options)
    assert_same(got, np.r_[[np.nan] * 5, [6, 8], [10, 12, 14], [16, 18]])
    assert_same(quietly(failing((0, 5, 10, 15), np.negative), a, **options), np.full(20, np.nan))


def test_all_fail(runner):
    a = np.arange(12.0).reshape(3, 4)
    assert_same(quietly(failing(A, np.sum), a, **runner), np.full(3, np.nan))
    assert_same(quietly(failing(A, np.sum), a, axis=(1, 0), **runner), np.full((3, 4), np.nan).T.copy().T)


def test_out(runner):
    a = np.arange(12.0).reshape(3, 4)
    for out in (np.empty((3, 4), "f4"), np.empty((4, 3), "f4").T, np.empty((3, 4), object), a.copy()):
        got = quietly(failing((4,), np.negative), out if out.dtype == "f8" else a, out=out, **runner)
        assert got is out
        assert out[2].tolist() == [-8, -9, -10, -11]
        assert all(one is None or np.isnan(one) for one in out[1])
    dates = np.empty(3, "M8[s]")
    quietly(failing((1,), lambda x: np.datetime64(int(x), "D")), np.arange(3.0), out=dates, **runner)
    assert np.isnat(dates).tolist() == [False, True, False]
    everything = np.ones(3)
    quietly(failing(A, np.sum), a, out=everything, **runner)
    assert np.isnan(everything).all()


@pytest.mark.parametrize(
    ("func", "gap"),
    [(float, np.nan), (int, np.nan), (bool, None), (lambda x: np.array([f"{x:g}", "long"]), None), (str, None)],
    ids=["floats", "ints", "bools", "arrays of text", "text"],
)
def test_objects_keep_what_they_are_beside_a_gap(runner, func, gap):
    shape = np.shape(func(1.0))
    out = np.empty((len(A), *shape), object)
    quietly(failing((4,), func), A, out=out, **runner)
    want = [np.array(func(x), object).tolist() for x in A]
    want[4] = np.full(shape, gap, object).tolist()
    assert repr(out.tolist()) == repr(want)


def test_out_like_a_file(runner):
    class File:
        def __init__(self, data):
            self.data, self.shape, self.dtype = data, data.shape, data.dtype

        def __setitem__(self, index, value):
            self.data[index] = value

        def __getitem__(self, index):
            return self.data[index].copy()

    file = File(np.zeros((4, 3)))
    a = np.arange(12.0).reshape(3, 4)
    quietly(failing((1.0,), np.negative), a, axis=1, out=File(np.zeros((3, 4))), **runner)
    quietly(failing((4.0,), np.negative), a.T, axis=1, out=file, **runner)
    want = -a.T
    want[:, 1] = np.nan
    assert_same(file.data, want.copy())


def test_what_is_not_an_error_of_the_function(runner):
    """KeyboardInterrupt, SystemExit and results that fit no array are raised, and leave no gap."""
    for kind in (KeyboardInterrupt, SystemExit):

        def f(x, kind=kind):
            if x == 5:
                raise kind

        with pytest.raises(kind):
            quietly(f, A, **runner)
    with pytest.raises(ValueError, match="cannot be stacked"):
        quietly(failing((0,), lambda x: np.zeros(int(x))), A, **runner)


@pytest.mark.parametrize("act", [lambda: os._exit(1), lambda: ctypes.string_at(0)])
@pytest.mark.parametrize("at", [(0,), (22,), (4, 5, 6), tuple(range(23))])
def test_dead_workers_leave_gaps(act, at):
    def f(x):
        if x in at:
            act()
        return x

    with pytest.warns(RuntimeWarning, match=r"WorkerDiedError: worker process \d+ ended") as log:
        got = parallel_apply(f, A, errors="ignore", **ISOLATED)
    want = A.copy()
    want[list(at)] = np.nan
    assert_same(got, want)
    assert len(log) == 1
    got = quietly(lambda b: (f(b[0]), b)[1], A, vectorized=True, chunk=1, **ISOLATED)
    assert_same(got, want)


def test_late_elements_leave_gaps():
    def f(x):
        if x in (2, 11):
            time.sleep(60)
        return x

    with pytest.warns(RuntimeWarning, match="2 of 23 .*: 2, 11.*ElementTimeoutError: .*timeout=1 s"):
        got = parallel_apply(f, A, errors="ignore", workers=2, timeout=1.0)
    want = A.copy()
    want[[2, 11]] = np.nan
    assert_same(got, want)


@examples(30)
@given(
    bad=st.sets(st.integers(0, 40)),
    count=st.integers(1, 40),
    kind=st.sampled_from([float, int, np.float32, lambda x: np.arange(3) * x, lambda x: x if x % 2 else int(x)]),
    workers=st.integers(1, 3),
)
def test_any_gaps(bad, count, kind, workers):
    a = np.arange(float(count))
    got = quietly(failing(bad, kind), a, workers=workers, isolate=True)
    good = [k for k in range(count) if k not in bad]
    if not good:
        assert_same(got, np.full(count, np.nan))
        return
    rest = np.asarray([kind(a[k]) for k in good])
    if len(good) < count and rest.dtype.kind == "i":
        rest = rest.astype(float)
    want = np.full((count, *rest.shape[1:]), np.nan, rest.dtype) if len(good) < count else rest.copy()
    want[good] = rest
    assert_same(got, want)


def test_threads_with_gaps():
    """No thread sees a module that another thread is still importing."""
    found = []

    def work():
        found.extend(quietly(failing((0,), np.sqrt), np.arange(4.0), workers=1) for _ in range(5))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 30


def test_errors_name_the_element_that_had_it():
    def f(x):
        if x in (1, 2):
            raise ValueError
        return (x,) if x == 5 else (x, x)

    with pytest.raises(ValueError, match="2 results for element 3 but 1 for element 5"):
        quietly(f, np.arange(8.0), workers=1)


def test_mixed_results_in_an_out_of_floats():
    out = np.empty(6)
    quietly(failing((2,), lambda x: bool(x) if x % 2 else np.bool_(x)), np.arange(6.0), out=out, **ISOLATED)
    assert out[np.arange(6) != 2].tolist() == [0, 1, 1, 1, 1]
    assert np.isnan(out[2])


def caught(function):
    with pytest.warns(parwise.GapWarning) as log:
        function()
    (one,) = log
    return one.message


def test_the_warning_has_indices_and_errors(runner):
    warning = caught(lambda: parallel_apply(failing((3, 7, 20), np.sqrt), A, errors="ignore", **runner))
    assert isinstance(warning, RuntimeWarning)
    assert warning.indices == [3, 7, 20]
    assert {index: repr(error) for index, error in warning.errors.items()} == {
        index: f"ValueError('not for {index}')" for index in (3, 7, 20)
    }
    grid = A[:20].reshape(4, 5)
    warning = caught(lambda: parallel_apply(failing((7, 13), np.sqrt), grid, axis=(0, 1), errors="ignore", **runner))
    assert warning.indices == list(warning.errors) == [(1, 2), (2, 3)]
    warning = caught(
        lambda: parallel_apply(failing((5,), np.negative), A[:20], vectorized=True, chunk=5, errors="ignore", **runner)
    )
    assert warning.indices == [5, 6, 7, 8, 9]
    assert list(map(str, warning.errors.values())) == ["not for 5"]
    assert list(warning.errors) == [5]
    items = [str(x) for x in range(20)]
    warning = caught(lambda: parallel_map(lambda x: 1 // (int(x) % 6), items, errors="ignore", **runner))
    assert warning.indices == list(warning.errors) == [0, 6, 12, 18]
    assert {type(error) for error in warning.errors.values()} == {ZeroDivisionError}


class Odd(Exception):
    """It cannot be pickled."""

    def __init__(self, a, b):
        super().__init__("odd")

    def __reduce__(self):  # Dask teaches pickle exceptions whose `__init__` takes something else
        raise TypeError("no")


def test_the_warning_can_be_pickled():
    def f(x):
        raise Odd(1, 2) if x else ValueError("even")

    warning = caught(lambda: parallel_map(f, [0, 1], errors="ignore"))
    again = pickle.loads(pickle.dumps(warning))
    assert (str(again), again.indices, dict(again.labels)) == (str(warning), [0, 1], {})
    assert repr(again.errors[0]) == "ValueError('even')"
    assert isinstance(again.errors[1], parwise.RemoteError)
    assert again.errors[1].type_name.endswith("Odd")


def test_errors_that_are_kept_are_few_and_light():
    """They hold no variables of the function, which may be large arrays, and no more than a bounded number is kept."""
    made = []

    class Large:
        pass

    def f(x):
        large = Large()
        made.append(weakref.ref(large))
        raise ValueError(f"not for {x:g}")

    warning = caught(lambda: parallel_apply(f, np.arange(5000.0), errors="ignore", workers=1))
    gc.collect()
    assert len(made) == len(warning.indices) == 5000
    assert not any(one() for one in made)
    assert 10 <= len(warning.errors) <= 1000
    assert all(str(error) == f"not for {index}" for index, error in warning.errors.items())
    assert warning.errors[0].__traceback__.tb_frame.f_code.co_name == "f"


def test_a_lost_worker_is_among_the_errors():
    def f(x):
        return os._exit(3) if x == 5 else x

    warning = caught(lambda: parallel_map(f, range(9), errors="ignore", **ISOLATED))
    assert warning.indices == [5]
    assert isinstance(warning.errors[5], parwise.WorkerDiedError)


def raises_from_itself(x):
    try:
        return 1 // x
    except ZeroDivisionError as error:
        raise error from error


def raises_in_a_circle(x):
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    if x == 0:
        raise first
    return 1 // x


def raises_a_group(x):
    if x == 0:
        raise ExceptionGroup("all", [ValueError("one"), ExceptionGroup("more", [KeyError("two")])])
    return 1 // x


@pytest.mark.parametrize("func", [raises_from_itself, raises_in_a_circle, raises_a_group])
def test_chains_of_exceptions_of_any_kind(runner, func):
    with pytest.warns(GapWarning) as log:
        assert parallel_map(func, [1, 0, 2], errors="ignore", **runner) == [1, None, 0]
    assert log[0].message.indices == [1]


def test_a_generator_that_waits_goes_on():
    """An exception that it has caught refers to its frame."""

    def source():
        k = 0
        while True:
            try:
                raise ValueError(k)
            except ValueError as error:
                caught = error
            yield k, caught
            k += 1

    numbers = source()

    def f(x):
        k, caught = next(numbers)
        if k == 1:
            raise caught
        return k

    with pytest.warns(GapWarning):
        assert parallel_map(f, range(4), errors="ignore", workers=1) == [0, None, 2, 3]
