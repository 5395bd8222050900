"""`verify` names the cause of different bits, and passes functions whose bits are equal."""

from __future__ import annotations

import io
import locale
import os
import random
import re
import subprocess
import sys
import textwrap
import threading
import time
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.ndimage
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

from parwise import NotReproducibleError, ReproducibilityWarning, parallel_apply, parallel_imap, vectorize
from parwise._core.effects import readers
from parwise._core.results import Results, Stack
from parwise._system.blas import ThreadLimit, read_threads
from parwise._system.platforms.floating_point import floats, read_floats, set_floats
from parwise._verify import audit
from parwise._verify.block_invariance import insert_special, to_large, to_nan
from parwise._verify.difference import array_difference, difference
from parwise._verify.fingerprint import REMEDIES, environment_differences, read_fingerprint
from parwise._workers.pickling import multiprocessing_objects

from ..support.examples import examples
from ..support.oracle import assert_same, loop
from ..support.strategies import arrays, axes, make_array

rng = np.random.default_rng(12)
NUMBERS = np.arange(200.0)
CALLS = iter(range(10**6))


def kind_of(func, array, **options):
    with pytest.raises(NotReproducibleError) as caught:
        parallel_apply(func, array, **{"workers": 2, "verify": True} | options)
    return caught.value


def join(x):
    return ",".join({"alpha", "beta", "gamma", "delta", f"number {int(x) % 3}"})


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("verify", [True, "full"])
def test_other_bits_on_each_call(verify, early, request):
    if early:
        request.getfixturevalue("eager")
    for func in (lambda x: np.random.random(), lambda x: next(CALLS), lambda x: os.times().elapsed + next(CALLS)):
        error = kind_of(func, NUMBERS, verify=verify)
        assert error.kind == "unstable"
        assert "returns different bits each time it is called in element" in str(error)


def test_a_global_generator_is_named():
    remedy = "Pass rng=seed, and take rng= in the function"
    text = str(kind_of(lambda x: np.random.random(), NUMBERS))
    assert "It draws from np.random, a global generator: each worker process has its own" in text
    assert remedy in text
    assert "It draws from the module random, a global generator" in str(kind_of(lambda x: random.random(), NUMBERS))
    text = str(kind_of(lambda x: next(CALLS), NUMBERS))
    assert "Does it use random numbers, the clock, or state that earlier calls changed?" in text


class Draws:
    def __init__(self, generator):
        self.generator = generator

    def draw(self, x):
        return self.generator.random()

    def __call__(self, x):
        return self.generator.random()


GENERATOR = np.random.default_rng(1)
MAKE_GENERATOR = {
    "Generator": lambda: np.random.default_rng(1),
    "MT19937": lambda: np.random.Generator(np.random.MT19937(1)),
    "RandomState": lambda: np.random.RandomState(1),
    "Random": lambda: random.Random(1),
}


@pytest.mark.parametrize("kind", MAKE_GENERATOR)
def test_a_generator_of_the_functions_own_is_named(kind):
    """Each worker has a copy of it: half of the numbers would come twice."""
    generator = MAKE_GENERATOR[kind]()
    unused = MAKE_GENERATOR[kind]()
    ways = {
        "generator": (lambda x: generator.random() if x is not unused else 0.0, {}),
        "self.generator": (Draws(generator).draw, {}),
        r"args\[0\]": (lambda x, g, other: g.random(), {"args": (generator, unused)}),
        r"kwargs\['g'\]": (lambda x, g: g.random(), {"kwargs": {"g": generator}}),
    }
    for name, (func, how) in ways.items():
        text = str(kind_of(func, NUMBERS, **how))
        assert re.search(f"It draws from {name}, a generator of which each worker has a copy, so several", text)
    assert "It draws from self.generator, a" in str(kind_of(Draws(generator), NUMBERS))
    assert "It draws from GENERATOR, a generator of which" in str(kind_of(lambda x: GENERATOR.random(), NUMBERS))
    text = str(kind_of(Draws(generator), NUMBERS, executor="threads"))
    assert "It draws from self.generator, one generator for all elements" in text


def mapped_lazily(func, items, **how):
    return list(parallel_imap(func, items, **how))


@pytest.mark.parametrize("entry", [parallel_apply, mapped_lazily], ids=["apply", "imap"])
@pytest.mark.parametrize("kind", ["generator", "iterator"])
def test_copies_that_begin_as_this_process_does(kind, entry):
    """Workers get the function while this process is in its first element, and return its bits for that one."""
    generator, numbers, here = np.random.default_rng(1), iter(range(10**6)), os.getpid()

    def draw(x):
        time.sleep(0.5 if x == 0 and os.getpid() == here else 0.005)
        return generator.random() if kind == "generator" else next(numbers)

    with pytest.warns(ReproducibilityWarning, match="of which each worker has a copy, so several") as caught:
        entry(draw, NUMBERS[:100], workers=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("entry", [parallel_apply, mapped_lazily], ids=["apply", "imap"])
@pytest.mark.parametrize("name", ["process_executor", "dask_client"])
def test_copies_in_executors_of_others(name, entry, request):
    """They have the function before this process computes its first element."""
    generator, executor = np.random.default_rng(1), request.getfixturevalue(name)
    text = "the function draws from generator, a generator of which"
    with pytest.warns(ReproducibilityWarning, match=text) as caught:
        entry(lambda x: generator.random(), NUMBERS, executor=executor)
    assert len(caught) == 1


@pytest.mark.parametrize("kind", [io.BytesIO, io.StringIO])
def test_a_file_in_memory_stays_where_it_is(kind):
    """The function may be reading it in another thread while it is looked at."""
    text = "".join(f"{k}\n" for k in range(50_000))
    data, found = kind(text.encode() if kind is io.BytesIO else text), []
    assert readers.held_readers([("data", data)])["data"][1] == b"%d" % len(text)

    def read():
        while line := data.readline():
            found.append(line)

    reading = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        reading.start()
        while reading.is_alive():
            readers.held_readers([("data", data)])
        reading.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(found) == 50_000


def test_a_text_file_is_not_pickled_while_the_function_reads_it(monkeypatch, tmp_path):
    """Its text is read from its start on: a line that the function read meanwhile was empty, at any place."""
    path, threads = tmp_path / "lines.txt", []
    path.write_text("\n".join(map(str, range(10_000))))
    reduce = multiprocessing_objects._REDUCERS[io.TextIOWrapper]

    def noted(obj, attachments):
        found = reduce(obj, attachments)
        threads.append(threading.get_ident())
        return found

    monkeypatch.setitem(multiprocessing_objects._REDUCERS, io.TextIOWrapper, noted)
    with open(path) as lines:

        def read(x):
            time.sleep(0.03)
            return int(lines.readline()) >= 0

        for _ in range(2):
            assert all(mapped_lazily(read, range(20), workers=2, verify=False))
    assert set(threads) == {threading.get_ident()}


def test_a_generator_that_threads_share_is_no_copy(recwarn):
    generator = random.Random(1)
    with ThreadPoolExecutor(2) as executor:
        parallel_apply(lambda x: generator.random(), NUMBERS, executor=executor, verify=False)
    parallel_apply(lambda x: x if x is not generator else 0.0, NUMBERS, workers=2)  # it only has it
    assert not [one for one in recwarn if "has a copy" in str(one.message)]


@pytest.mark.parametrize("verify", [True, "full"])
@pytest.mark.parametrize("executor", ["threads", "serial"])
def test_state_of_earlier_calls_without_any_worker(executor, verify):
    count = iter(range(10**6))
    assert kind_of(lambda x: next(count), NUMBERS, executor=executor, verify=verify).kind == "unstable"


def test_order_of_a_set():
    error = kind_of(join, NUMBERS)
    assert error.kind == "environment"
    assert "differ in: hash seed" in str(error)
    assert "PYTHONHASHSEED" in str(error)
    assert error.index in (0, 199)


@pytest.mark.parametrize("name", ["process_executor", "dask_client"])
def test_kinds_in_executors_of_others(name, request):
    executor = request.getfixturevalue(name)
    assert kind_of(join, NUMBERS, executor=executor, workers=None).kind == "environment"
    assert kind_of(lambda x: np.random.random(), NUMBERS, executor=executor, workers=None).kind == "unstable"
    assert_same(parallel_apply(np.sqrt, NUMBERS, executor=executor, verify=True), np.sqrt(NUMBERS))


def test_threads_of_blas():
    long = rng.standard_normal((40, 20_001))
    with threadpoolctl.threadpool_limits(2):
        error = kind_of(lambda v: v @ v, long, blas_threads=1)
        assert error.kind == "threads"
        assert "blas_threads=1" in str(error)
        assert "ulp" in str(error)
        assert_same(parallel_apply(lambda v: v @ v, long, workers=2, verify=True), loop(lambda v: v @ v, long))


def test_what_is_in_the_process_itself():
    error = kind_of(lambda x: os.getpid(), NUMBERS)
    assert error.kind == "value"
    assert "while two calls in this process agree" in str(error)
    here = os.getpid()
    cases = {
        "type": lambda x: x if os.getpid() == here else np.float32(x),
        "nan": lambda x: np.float64("nan") if os.getpid() == here else -np.float64("nan"),
        "value": lambda x: x if os.getpid() == here else np.nextafter(x, 1e9),
    }
    for kind, func in cases.items():
        assert kind_of(func, NUMBERS).kind == kind


def test_zero_sign_only():
    here = os.getpid()
    error = kind_of(lambda x: x * 0.0 if os.getpid() == here else x * -0.0, NUMBERS)
    assert error.kind == "nan"
    assert "only bits of NaN or the sign of zero: 0.0 and -0.0 (0x0.0p+0 and -0x0.0p+0)" in str(error)


def test_made_up_values_show_what_the_data_hides():
    """The worker flushes subnormal numbers; the data has none, so that only made-up values show it."""
    here = os.getpid()

    def flush(row):
        return row if os.getpid() == here else np.where(abs(row) < 1e-300, row * 0.0, row)

    rows = rng.standard_normal((30, 20))
    assert kind_of(flush, rows).kind == "value"
    assert_same(parallel_apply(np.sqrt, abs(rows), workers=2, verify=True), np.sqrt(abs(rows)))


def test_function_that_never_ends_on_nan_is_no_hang(monkeypatch):
    monkeypatch.setattr(audit, "SPECIAL_SECONDS", 0.2)

    def settle(row):
        while not abs(row).max() < 1.0:
            row = row / 2
        return row

    rows = rng.standard_normal((30, 20)) * 100
    assert_same(parallel_apply(settle, rows, workers=2, verify=True), loop(settle, rows))


def test_default_warns_and_goes_on(eager):
    with pytest.warns(ReproducibilityWarning, match="differ in: hash seed"):
        got = parallel_apply(join, NUMBERS, workers=2)
    assert len(got) == 200
    with pytest.warns(ReproducibilityWarning, match="different bits each time"):
        parallel_apply(lambda x: np.random.random(), NUMBERS, workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_apply(lambda x: np.random.random(), NUMBERS, workers=2, verify=False)


def test_warning_points_to_the_users_line(eager):
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        parallel_apply(lambda x: np.random.random(), NUMBERS, workers=2)
    assert [one.filename for one in log] == [__file__]


def test_full_finds_a_single_wrong_element(eager):
    """One of 200 elements differs, which a sample would find only by luck."""
    here = os.getpid()

    def f(x):
        return x + 1.0 if x != 123 or os.getpid() == here else x

    error = kind_of(f, NUMBERS, verify="full")
    assert error.index == 123
    grid = NUMBERS.reshape(10, 20)
    assert kind_of(f, grid, axis=(0, 1), verify="full").index == (6, 3)
    assert_same(parallel_apply(f, NUMBERS, workers=1, verify=False), NUMBERS + 1)


def test_full_compares_what_is_in_out(eager, tmp_path):
    out = np.memmap(tmp_path / "out", "f4", "w+", shape=(200,))
    assert parallel_apply(np.sqrt, NUMBERS, out=out, workers=2, verify="full") is out
    assert_same(np.asarray(out), np.sqrt(NUMBERS).astype("f4"))
    words = parallel_apply(lambda x: "a" * int(x), NUMBERS[:9], workers=2, verify="full")
    assert words[-1] == "a" * 8
    pair = parallel_apply(lambda x: (x, str(x)), NUMBERS[:9], workers=2, verify="full")
    assert pair[1][3] == "3.0"


def test_exception_comes_first():
    with pytest.raises(ZeroDivisionError):
        parallel_apply(lambda x: 1 // int(x - 7), NUMBERS, workers=2, verify=True)


EXACT = {
    "exp": np.exp,
    "sort": lambda b: np.sort(b, axis=-1),
    "polynomial": lambda b: 2 * b * b - b,
    "negative": np.negative,
    "median": lambda b: scipy.ndimage.median_filter(b, 3),
    "gaussian": lambda b: scipy.ndimage.gaussian_filter1d(b, 1.0, axis=0),
    "cumsum": lambda b: np.cumsum(b, axis=-1) if b.ndim > 1 else b,
}
DEPTHS = {"median": 1, "gaussian": 4}


@examples(200)
@given(
    array=arrays(dtypes=("f8", "f4", ">f8", "c8"), max_side=12),
    name=st.sampled_from(["exp", "sort", "polynomial", "negative"]),
    data=st.data(),
    way=st.sampled_from([{"workers": 1}, {"workers": 2}, {"executor": "threads", "workers": 2}]),
    verify=st.sampled_from([True, True, "full"]),
)
def test_no_false_alarm_for_elements(array, name, data, way, verify):
    axis = data.draw(axes(array.ndim))
    scalars = array.ndim == (len(axis) if isinstance(axis, tuple) else 1)
    func = np.negative if scalars and name == "sort" else EXACT[name]
    with np.errstate(all="ignore"):
        got = parallel_apply(func, array, axis=axis, verify=verify, **way)
        assert_same(got, parallel_apply(func, array, axis=axis, workers=1, verify=False))


@examples(200)
@given(
    shape=st.tuples(st.integers(2, 90), st.integers(1, 9)),
    dtype=st.sampled_from(["f8", "f4"]),
    # Of a negative stride NumPy takes another loop for exp, but not for a row of one element.
    layout=st.sampled_from(["C", "F", "stepped", "transposed", "unaligned", "readonly"]),
    name=st.sampled_from(sorted(EXACT)),
    data=st.data(),
    more=st.integers(0, 3),
    verify=st.sampled_from([True, True, "full"]),
)
def test_no_false_alarm_for_blocks(shape, dtype, layout, name, data, more, verify):
    array = make_array(shape, dtype, layout)
    chunk = data.draw(st.integers(2, shape[0]))
    options = {"vectorized": True, "chunk": chunk, "depth": DEPTHS.get(name, 0) + more}
    with np.errstate(all="ignore"):
        got = parallel_apply(EXACT[name], array, workers=1, verify=verify, **options)
        assert_same(got, np.ascontiguousarray(EXACT[name](array)))


@pytest.mark.skipif(read_floats() is None, reason="control bits cannot be read on this system")
class TestFloats:
    """The rounding mode, and the flushing of subnormal numbers."""

    NORMAL = read_floats()
    TINY = np.full(40, 5e-324)

    def modes(self):
        x87, mxcsr = self.NORMAL if len(self.NORMAL) == 2 else (None, None)
        if mxcsr is None:
            pytest.skip("known for x86 only")
        yield "flushed", (x87, mxcsr | 0x8040)
        yield "upwards", (x87, mxcsr | 0x4000)

    def test_are_the_callers_everywhere(self, runner):
        def f(x):
            return x * 1.0, np.float64(1.0) / np.float64(3.0) * x, np.arange(1.0, 9.0).sum() / 7

        for _, control in self.modes():
            with floats(control):
                want = loop(f, self.TINY)
                got = parallel_apply(f, self.TINY, **runner)
            assert_same(got, want)
        assert_same(parallel_apply(f, self.TINY, **runner), loop(f, self.TINY))
        assert read_floats() == self.NORMAL

    def test_modes_do_something(self):
        for name, control in self.modes():
            before = 1.0 / np.float64(3.0)
            with floats(control):
                assert read_floats() == control
                if name == "flushed":
                    assert np.float64(5e-324) * 1.0 == 0.0
                else:
                    assert 1.0 / np.float64(3.0) > before
            assert read_floats() == self.NORMAL

    def test_function_that_sets_them_is_told(self):
        """A rounding mode that the function sets stays set in a worker, as a library's would."""
        here = os.getpid()
        control = dict(self.modes())["upwards"]

        def f(x):
            if os.getpid() != here:
                set_floats(control)
            return x / np.float64(3.0)

        error = kind_of(f, NUMBERS + 1)
        assert error.kind in ("environment", "value")


def test_locale_is_the_callers():
    names = {locale.setlocale(locale.LC_ALL, None)}
    for wanted in ("C", "C.UTF-8"):
        before = locale.setlocale(locale.LC_ALL, None)
        try:
            locale.setlocale(locale.LC_ALL, wanted)
            here = locale.setlocale(locale.LC_ALL, None)
            got = parallel_apply(
                lambda x: sys.modules["_locale"].setlocale(6, None), np.arange(3), isolate=True, workers=2
            )
            assert set(got) == {here}
            names.add(here)
        finally:
            locale.setlocale(locale.LC_ALL, before)
    assert len(names) > 1


def test_limits_of_the_interpreter_are_the_callers():
    def f(x):
        return sys.getrecursionlimit(), sys.get_int_max_str_digits()

    recursion, digits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    try:
        sys.setrecursionlimit(4321)
        sys.set_int_max_str_digits(0)
        got = parallel_apply(f, np.arange(3), isolate=True, workers=2)
    finally:
        sys.setrecursionlimit(recursion)
        sys.set_int_max_str_digits(digits)
    assert [one.tolist() for one in got] == [[4321] * 3, [0] * 3]


def test_hash_seed_that_is_set_is_the_callers():
    script = """
        import numpy as np, parwise
        join = lambda x: ",".join({"alpha", "beta", "gamma", "delta", str(x)})
        a = np.arange(30)
        got = parwise.parallel_apply(join, a, workers=2, isolate=True)
        assert got.tolist() == [join(x) for x in a]
    """
    for seed in ("0", "77"):
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], env=environ, check=True, timeout=60
        )


def test_threads_of_numba(monkeypatch):
    """With a stand-in: numba counts its threads itself, beside BLAS."""
    given_to = []
    parallel = types.ModuleType("numba.np.ufunc.parallel")
    numba = types.ModuleType("numba")
    numba.get_num_threads = lambda: 2
    numba.set_num_threads = given_to.append
    numba.config = types.SimpleNamespace(NUMBA_NUM_THREADS=4)
    monkeypatch.setitem(sys.modules, "numba", numba)
    monkeypatch.setitem(sys.modules, "numba.np.ufunc.parallel", parallel)
    assert "numba" not in read_threads()  # to ask would start its threads
    parallel._is_initialized = True
    assert read_threads()["numba"] == 2
    ThreadLimit().set({**read_threads(), "numba": 3})
    ThreadLimit().set(read_threads())
    assert given_to == [3]


def test_fingerprints():
    here = read_fingerprint()
    assert set(here) == set(REMEDIES)
    assert environment_differences(here, dict(here)) == []
    assert environment_differences(here, {**here, "NumPy": "1.0", "locale": "xx"}) == ["NumPy", "locale"]
    more = {"BLAS": here["BLAS"] + " libgomp-1.so", "threads": here["threads"] + " libgomp-1.so=2"}
    assert environment_differences(here, {**here, **more}) == []
    assert environment_differences({**here, **more}, here) == []
    assert environment_differences(here, {**here, "BLAS": "libmkl_rt.so.2"}) == ["BLAS"]
    assert environment_differences(here, {**here, "threads": here["threads"].replace("=", "=1")}) == ["threads"]
    there = parallel_apply(read_fingerprint, np.zeros(3), isolate=True, workers=2)
    assert all(environment_differences(here, one) in ([], ["hash seed"]) for one in there)


@pytest.mark.parametrize(
    ("a", "b", "kind", "text"),
    [
        (np.float32(1), np.float64(1), "type", "dtype float32 and float64"),
        (np.zeros(2), np.zeros(3), "type", r"shape \(2,\) and \(3,\)"),
        (np.array([0.0, 1.0]), np.array([-0.0, 1.0]), "nan", "1 of 2 numbers differ, at 0: only bits of NaN"),
        (
            np.array([1.0, 2.0]),
            np.array([1.0, np.nextafter(2.0, 3)]),
            "value",
            r"at 1: 2.0 and 2.0000000000000004 \(0x1.0000000000000p\+1 and 0x1.*p\+1; 1 ulp at most\)",
        ),
        (np.array([1.0]), np.array([np.nan]), "value", r"1.0 and nan \(0x1.0000000000000p\+0 and nan \(7ff8"),
        (np.array([-1e-323]), np.array([1e-323]), "value", "4 ulp at most"),
        (
            np.array([1 + 2j]),
            np.array([1 - 2j]),
            "value",
            r"\(1\+2j\) and \(1-2j\) \(\(0x1.0.*, 0x1.0000000000000p\+1j\)",
        ),
        (np.array(["a", "b"]), np.array(["a", "c"]), "value", "at 1: 'b' and 'c'"),
        (np.zeros(2, "i4,f8"), np.array([(0, 0), (0, 1)], "i4,f8"), "value", "field 'f1': 1 of 2"),
        (np.array([None, 1]), np.array([None, 2]), "value", "1 of 2"),
    ],
)
def test_differences(a, b, kind, text):
    found = array_difference(np.asarray(a), np.asarray(b))
    assert found[0] == kind
    assert __import__("re").search(text, found[1]), found[1]
    assert array_difference(np.asarray(a), np.asarray(a)) is None


def test_differences_of_results():
    one, two = Stack(np.float64, np.array([1.0])), Stack(float, np.array([1.0]))
    assert difference(Results([one]), Results([two])) == ("type", "float64 and float")
    assert difference(Results([one]), Results([one, one], tuple))[0] == "type"
    assert difference(Results([["a"]]), Results([["b"]])) == ("value", "['a'] and ['b']")
    assert difference(Results([["a"]]), Results([one])) == ("type", "str and float64")


def test_hostile_values():
    for dtype in ("f4", "f8", ">f8", "c16", "f2"):
        values = np.ones((5, 6), dtype).T
        assert insert_special(values)
        assert np.isnan(values).any()
        assert (values == 0).any()
        assert to_nan(values)
        assert np.isnan(values).all()
        assert to_large(np.ones(3, dtype))
    for other in (np.zeros(3, "U3"), np.zeros(3, "M8[s]"), np.zeros(3, object)):
        assert [change(other) for change in (insert_special, to_nan, to_large)] == [False] * 3
    counts, flags = np.zeros(3, "i2"), np.zeros(3, bool)
    assert to_large(counts)
    assert to_large(flags)
    assert (counts.min(), flags.min()) == (2**15 - 1, True)


@pytest.mark.parametrize("count", [1, 5, 200])
def test_function_that_cannot_be_sent_is_not_passed_over(count):
    """A call whose results were not compared must not seem verified."""
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to a worker process"):
        parallel_apply(lambda x: (lock, x)[1], np.arange(float(count)), workers=2, verify=True)


@pytest.mark.parametrize("kind", [float, str])
def test_gaps_of_raw_results_are_not_compared(kind):
    """A gap has no value: memory that was never written made a false alarm in 26 of 40 calls."""

    def f(x):
        if 30 < x < 40:
            raise ValueError
        return kind(x)

    for _ in range(5):
        with pytest.warns(RuntimeWarning, match="no result for 9 of 100"):
            got = vectorize(f, otypes="O", errors="ignore", verify="full", workers=2)(np.arange(100.0))
        assert got[29] == kind(29.0)
