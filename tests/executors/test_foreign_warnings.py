"""In processes of other executors the caller's filters decide on warnings of tasks, and the process's on all others."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from parwise import parallel_apply
from parwise._workers.worker.context_capture import captured_output, filter_warnings

from ..support.oracle import assert_same

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def odd(x):
    if x % 2:
        warnings.warn(f"odd {x:.0f}", UserWarning, stacklevel=1)
    return x


@pytest.fixture(params=["error", "ignore"])
def pool(request):
    """Processes whose own filters are not the caller's."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, context, warnings.simplefilter, (request.param,)) as executor:
        yield executor


def test_all_warnings_arrive(pool):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert_same(parallel_apply(odd, np.arange(8.0), executor=pool, isolate=True), np.arange(8.0))
    assert [str(one.message) for one in seen if one.category is UserWarning] == ["odd 1", "odd 3", "odd 5", "odd 7"]


def test_the_callers_error_is_raised_in_the_function(pool):
    def f(x):
        try:
            return odd(x)
        except UserWarning:
            return -x

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.filterwarnings("error", "odd [37]")
        warnings.filterwarnings("ignore", "odd", category=RuntimeWarning)
        got = parallel_apply(f, np.arange(8.0), executor=pool, isolate=True)
    assert_same(got, np.array([0.0, 1, 2, -3, 4, 5, 6, -7]))
    assert [str(one.message) for one in seen if one.category is UserWarning] == ["odd 1", "odd 5"]


def test_what_the_caller_ignores_is_not_raised(pool):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(parallel_apply(odd, np.arange(8.0), executor=pool, isolate=True), np.arange(8.0))


def test_numpys_warnings(pool):
    """They come from C, which reads the filters itself."""
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        parallel_apply(lambda x: np.float64(1) / x, np.zeros(3), executor=pool, isolate=True)


def test_filters_of_the_function_come_first(pool):
    def f(x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return odd(x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(parallel_apply(f, np.arange(8.0), executor=pool, isolate=True), np.arange(8.0))


def in_task(filters, messages=("first", "second", "second")):
    """What a task hands on that issues these warnings under the caller's `filters`."""
    with captured_output(0) as events:
        filter_warnings(filters)
        for one in messages:
            warnings.warn(one, UserWarning, stacklevel=1)
    return [str(one.message) for one in events]


def test_other_threads_keep_the_filters_of_the_process():
    """While tasks with other filters run, two at a time."""
    inside, done = threading.Barrier(3), threading.Event()

    def task(filters):
        with captured_output(0) as events:
            filter_warnings(filters)
            inside.wait(60)
            done.wait(60)
            warnings.warn("mine", UserWarning, stacklevel=1)
        return [str(one.message) for one in events]

    with warnings.catch_warnings(), ThreadPoolExecutor(2) as threads:
        warnings.simplefilter("error")
        before = list(warnings.filters)
        one = threads.submit(task, [("always", None, Warning, None, 0)])
        two = threads.submit(task, [("ignore", None, Warning, None, 0)])
        inside.wait(60)
        with pytest.raises(UserWarning, match="others'"):
            warnings.warn("others'", UserWarning, stacklevel=1)
        done.set()
        assert (one.result(60), two.result(60)) == (["mine"], [])
        assert list(warnings.filters) == before


@pytest.mark.parametrize("action", ["always", "default", "once", "module", "ignore"])
def test_repeated_warnings(action):
    """What the caller would show once travels once."""
    want = {"always": ["first", "second", "second"], "ignore": []}.get(action, ["first", "second"])
    assert in_task([(action, None, UserWarning, None, 0)]) == want


@pytest.mark.parametrize(
    ("module", "line", "passes"),
    [(__name__, 0, False), ("other", 0, True), (None, 1, True)],
)
def test_filters_by_module_and_line(module, line, passes):
    """A string must be the whole name, as in the filters that Python starts with."""
    found = in_task([("ignore", None, Warning, module, line), ("always", None, Warning, None, 0)])
    assert (found != []) == passes


def test_what_the_process_has_shown_is_new_to_a_task():
    def warn():
        warnings.warn("again", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        warn()
        warn()
        assert len(seen) == 1
        with captured_output(0) as events:
            filter_warnings([("always", None, Warning, None, 0)])
            # As Python's own way to show them has been replaced, they come here.
            warn()
        assert len(events) + len(seen) == 2
