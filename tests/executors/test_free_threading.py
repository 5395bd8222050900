"""A Python without the GIL: threads by default, and processes where calls at the same time would change something."""

from __future__ import annotations

import functools
import io
import logging
import math
import os
import random
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import parwise
from parwise import parallel_apply, parallel_imap, parallel_map
from parwise._core.inputs.reading.shared_state import shared_change
from parwise._core.options.defaults import defaults, has_no_gil
from parwise._executors.collector import FreeCollector
from parwise._executors.processes.known_paces import known_paces
from parwise._executors.threads import inline

from ..support.oracle import assert_same

ROWS = np.arange(200.0).reshape(100, 2)
WEIGHTS, SCRATCH = np.ones(4), np.zeros(4)
FOUND, TABLE, TOTAL = [], {}, 0
RNG = np.random.default_rng(1)
LINES, TEXT = iter([1.0, 2.0]), io.StringIO()


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """No GIL, also as far as an ordinary Python goes; nobody has chosen an executor."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.delenv("PARWISE_EXECUTOR", raising=False)
    monkeypatch.delenv("PARWISE_WORKERS", raising=False)
    known_paces._known.clear()
    defaults.cache_clear()
    yield
    defaults.cache_clear()


def reported(call):
    with parwise.report() as report:
        call()
    (one,) = report.to_dict()["calls"]
    return one["executor"], one["why_executor"]


def double(x):
    return x * 2


def helper_of_new(x):
    made = np.zeros(3)
    made[0] = x
    made += np.dot(WEIGHTS, WEIGHTS)
    rest = [made]
    rest.append(double(x))
    return made


def counts(x):
    global TOTAL
    TOTAL += 1
    return x


def appends(x):
    FOUND.append(x)
    return x


def appends_by_alias(x):
    found = FOUND
    found.append(x)
    return x


def calls_one_that_appends(x):
    return appends(x)


def adds_to(found, x):
    found.append(x)


def hands_on(x):
    adds_to(FOUND, x)
    return x


def hands_on_its_own(x):
    adds_to([], x)
    return x


def stores(x):
    TABLE["x"] = x
    return x


def adds_in_place(x):
    view = WEIGHTS.reshape(2, 2)
    view += 0
    return x


def writes_out(x):
    return np.add(x, 1, out=SCRATCH).sum()


def writes_out_by_place(x):
    return np.add(x, 1, SCRATCH).sum()


def draws(x):
    return RNG.normal() * x


def draws_globally(x):
    return np.random.normal() * x


def draws_from_random(x):
    return random.random() * x


def draws_its_own(x):
    return np.random.default_rng(3).normal() * x


def reads_a_line(x):
    return next(LINES, 0) * x


def writes_a_file(x):
    TEXT.write("x")
    return x


def keeps_default(x, found=[]):  # noqa: B006 - what is tested
    found.append(1)
    return len(found) * x


def has_default(x, found=None, power=2):
    found = [] if found is None else found
    found.append(x)
    power += 1
    return x * power


def changes_folder(x):
    os.chdir(os.getcwd())
    return x


def sets_environment(x):
    os.environ["PARWISE_TEST"] = "1"
    return x


def catches(x):
    with warnings.catch_warnings():
        return x


def makes_counter():
    count = 0

    def counter(x):
        nonlocal count
        count += 1
        return x

    return counter


def counts_within(x):
    count = 0

    def step():
        nonlocal count
        count += 1

    step()
    return x * count


def tries(x):
    try:
        with np.errstate(all="ignore"):
            for k in range(3):
                if k == x:
                    break
            while x < 0:
                x += 1
        return np.interp(x, WEIGHTS, WEIGHTS), math.sin(k), f"{x}"
    except (ValueError, ZeroDivisionError):
        return [WEIGHTS * k for k in range(3)]
    finally:
        sorted(TABLE, key=lambda one: TABLE[one])


class Model:
    made = 0

    def __init__(self):
        self.weights, self.calls, self.cache = np.ones(3), 0, {}

    def predict(self, x):
        return self.weights.sum() * x

    def count(self, x):
        self.calls += 1
        return x

    def remember(self, x):
        self.cache[float(x)] = x
        return x

    def __call__(self, x):
        return self.predict(x)


class Counting(Model):
    def __call__(self, x):
        return self.count(x)


MODEL = Model()


def counts_in_model(x):
    return MODEL.count(x)


def uses_model(x):
    own = Model()
    own.count(x)
    return MODEL.predict(x)


def counts_in_class(x):
    Model.made += 1
    return x


SAFE = [
    double, helper_of_new, hands_on_its_own, draws_its_own, has_default, counts_within, tries, uses_model, MODEL,
    MODEL.predict, functools.partial(double), functools.lru_cache(double), np.sum, np.linalg.norm, math.sin, float,
    np.vectorize(double),
]  # fmt: skip
UNSAFE = [
    counts, appends, appends_by_alias, calls_one_that_appends, hands_on, stores, adds_in_place, writes_out,
    writes_out_by_place, draws, draws_globally, draws_from_random, reads_a_line, writes_a_file, keeps_default,
    changes_folder, sets_environment, catches, makes_counter(), Counting(), MODEL.count, MODEL.remember,
    counts_in_model, counts_in_class, FOUND.append, RNG.normal, np.random.normal, functools.partial(adds_to, FOUND),
    functools.partial(np.add, out=SCRATCH), np.vectorize(appends),
]  # fmt: skip


def name(func):
    return getattr(func, "__name__", type(func).__name__)


@pytest.mark.parametrize("func", SAFE, ids=name)
def test_functions_that_change_nothing(func):
    assert shared_change(func, 1, (), {}) is None


@pytest.mark.parametrize("func", UNSAFE, ids=name)
def test_functions_that_change_what_calls_share(func):
    assert shared_change(func, 1, (), {})


def test_what_all_calls_get_is_shared():
    def fills(x, scratch):
        scratch[:] = x
        return scratch.sum()

    def reads(x, scratch):
        return (scratch * x).sum()

    assert "the argument scratch" in shared_change(fills, 1, (SCRATCH,), {})
    assert shared_change(fills, 1, (SCRATCH,), {})
    assert shared_change(fills, 1, (), {"scratch": SCRATCH})
    assert shared_change(fills, 2, (), {}) is None
    assert shared_change(reads, 1, (SCRATCH,), {}) is None
    assert shared_change(np.add, 1, (1.0,), {"out": SCRATCH})


def test_threads_are_the_default():
    executor, why = reported(lambda: assert_same(parallel_apply(np.sum, ROWS), ROWS.sum(axis=1)))
    assert executor == "threads"
    assert "no GIL" in why


@pytest.mark.parametrize(
    "options", [{"isolate": True}, {"timeout": 60}, {"retries": 1}, {"blas_threads": 1}, {"setup": os.getpid}]
)
def test_options_for_processes_take_them(options):
    executor, why = reported(lambda: assert_same(parallel_apply(np.sum, ROWS, workers=2, **options), ROWS.sum(axis=1)))
    assert executor == "processes"
    assert next(iter(options)) in why


def test_an_unsafe_function_takes_processes():
    executor, why = reported(lambda: parallel_apply(keeps_default, ROWS[:, 0], verify=False))
    assert executor == "processes"
    assert "found" in why


def test_an_iterator_takes_processes():
    executor, why = reported(lambda: parallel_map(double, iter([1, 2, 3])))
    assert executor == "processes"
    assert "iterator" in why


def test_one_object_twice_in_a_list():
    def grows(item):
        item.append(1)
        return len(item)

    one = []
    assert reported(lambda: parallel_map(grows, [one, one], workers=1))[0] == "processes"
    assert reported(lambda: parallel_map(double, [1, 2]))[0] == "threads"


def test_a_choice_of_the_user_holds(monkeypatch):
    for chosen in ("processes", "serial", "threads"):
        assert reported(lambda chosen=chosen: parallel_map(double, [1, 2], executor=chosen)) == (chosen, None)
    with parwise.options(executor="processes"):
        assert reported(lambda: parallel_map(double, [1, 2])) == ("processes", None)
    monkeypatch.setenv("PARWISE_EXECUTOR", "processes")
    defaults.cache_clear()
    assert reported(lambda: parallel_map(double, [1, 2])) == ("processes", None)
    monkeypatch.delenv("PARWISE_EXECUTOR")
    monkeypatch.setenv("PARWISE_WORKERS", "portable")
    defaults.cache_clear()
    assert reported(lambda: parallel_map(double, [1, 2])) == ("processes", None)


def test_with_the_gil_processes_are_the_default(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True)
    assert reported(lambda: parallel_map(double, [1, 2])) == ("processes", None)


def test_small_calls_start_no_thread(monkeypatch):
    started = []
    monkeypatch.setattr(inline.LateThreads, "_start", lambda self, first: started.append(first))
    monkeypatch.setattr(inline, "HELP_SECONDS", 60)
    monkeypatch.setattr(inline, "THREAD_SECONDS", 60)
    monkeypatch.setattr(inline, "LOOKS", (60,))  # on a busy machine they take long
    assert_same(parallel_apply(np.sum, ROWS, workers=3), ROWS.sum(axis=1))
    assert not started
    monkeypatch.setattr(inline, "THREAD_SECONDS", -1)
    with pytest.raises(AttributeError):
        parallel_apply(np.sum, np.tile(ROWS, (100, 1)), workers=3)
    assert started


def test_a_long_first_element_keeps_no_other_waiting():
    """The second one, which the first one waits for, is computed by another thread."""
    event = threading.Event()

    def waits(x):
        if x == 0:
            assert event.wait(60)
        elif x == 1:
            event.set()
        return x

    assert_same(parallel_apply(waits, np.arange(8.0), executor="threads", workers=2), np.arange(8.0))


def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def talks(x):
    busy(0.0002)
    print(f"out {x:.0f}")
    logging.getLogger("parwise.test.free").warning("log %.0f", x)
    warnings.warn(f"warn {x:.0f}", UserWarning, stacklevel=1)
    return x


@pytest.mark.parametrize("imap", [False, True])
def test_output_comes_in_index_order(capsys, caplog, imap):
    items = list(np.arange(300.0))
    handler = logging.StreamHandler(stream := io.StringIO())
    logger = logging.getLogger("parwise.test.free")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            if imap:
                assert list(parallel_imap(talks, items, executor="threads", workers=3)) == items
            else:
                assert parallel_map(talks, items, executor="threads", workers=3) == items
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().out.splitlines() == [f"out {k}" for k in range(300)]
    assert [record.getMessage() for record in caplog.records] == [f"log {k}" for k in range(300)]
    assert stream.getvalue().splitlines() == [f"log {k}" for k in range(300)]
    assert [str(one.message) for one in seen if one.category is UserWarning] == [f"warn {k}" for k in range(300)]


def test_output_ends_at_the_error(capsys):
    def fails(x):
        busy(0.001)
        print(f"{x:.0f}")
        if x == 40:
            raise ValueError("forty")
        return x

    with pytest.raises(ValueError, match="forty"):
        parallel_apply(fails, np.arange(80.0), executor="threads", workers=3)
    assert capsys.readouterr().out.splitlines() == [f"{k}" for k in range(41)]


def test_warnings_that_functions_catch():
    """Several threads at a time: none sees another's filters or records, and the process keeps its own."""

    def records(x):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(3):
                warnings.warn("mine", UserWarning, stacklevel=1)
                busy(0.0003)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                warnings.warn("raised", UserWarning, stacklevel=1)
            except UserWarning:
                return len(seen)
        return -1

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        got = parallel_apply(records, np.arange(100.0), executor="threads", workers=4)
        assert list(warnings.filters) == before
    assert_same(got, np.full(100, 3))
    assert not [one for one in seen if one.category is UserWarning]
    assert warnings.catch_warnings.__enter__.__module__.endswith("warnings")


def test_the_callers_filters_decide():
    def warn(x):
        busy(0.0002)
        warnings.warn("often", UserWarning, stacklevel=1)
        return x

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        parallel_apply(warn, np.arange(100.0), executor="threads", workers=3)
    assert len([one for one in seen if one.category is UserWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="often") as error:
            parallel_apply(warn, np.arange(100.0), executor="threads", workers=3)
    assert any("element 0 " in note for note in error.value.__notes__)


def test_what_is_claimed_is_computed_once():
    """In a Python without the GIL an iterator of a list hands out an element before it counts it."""
    from parwise._core.kernel import Kernel

    for _ in range(200):
        go, claimed = threading.Event(), []

        def double(x, go=go):
            go.set()
            return 2 * x

        collector = FreeCollector(Kernel(double, (), {}, False), [np.arange(200.0)])

        def claim(collector=collector, go=go, claimed=claimed):
            go.wait(60)
            claimed.append(collector.claim())

        thread = threading.Thread(target=claim)
        thread.start()
        collector.collect(200)
        thread.join()
        assert claimed == [len(collector.raw)]
        assert_same(np.asarray(collector.raw), 2 * np.arange(float(len(collector.raw))))


def test_without_the_gil_or_with_it(monkeypatch):
    assert has_no_gil()
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True)
    assert not has_no_gil()
    monkeypatch.delattr(sys, "_is_gil_enabled")
    assert not has_no_gil()


def test_threads_pay_from_a_millisecond_on():
    assert inline.pays(0.01)
    assert not inline.pays(0.0001)
