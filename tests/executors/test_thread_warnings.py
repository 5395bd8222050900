"""Warnings of functions in threads, while other threads of the process have to do with warnings too."""

from __future__ import annotations

import contextlib
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from parwise import parallel_map


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@contextlib.contextmanager
def beside(target):
    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize("early", [True, False], ids=["before the call", "during the call"])
def test_another_thread_that_records_gets_its_own_warnings_only(executor, early):
    begun, entered, go_on, left = (threading.Event() for _ in range(4))
    theirs = []

    def record():
        if not early:
            begun.wait(60)
        with warnings.catch_warnings(record=True) as log:
            warnings.simplefilter("always")
            entered.set()
            go_on.wait(60)
            warnings.warn("theirs", stacklevel=1)
        theirs.extend(str(one.message) for one in log)
        left.set()

    def count(x):
        begun.set()
        entered.wait(60)
        with warnings.catch_warnings(record=True) as log:
            warnings.simplefilter("always")
            warnings.warn("mine", stacklevel=1)
            if x == 5:
                go_on.set()
                left.wait(60)
            warnings.warn("mine", stacklevel=1)
        return len(log)

    before = list(warnings.filters)
    with beside(record):
        if early:
            entered.wait(60)
        assert parallel_map(count, range(10), executor=executor) == [2] * 10
    assert theirs == ["theirs"]
    assert warnings.filters == before


def test_a_block_of_another_thread_that_outlasts_the_call(executor):
    begun, entered, over = (threading.Event() for _ in range(3))
    before = warnings.filters, list(warnings.filters), warnings.showwarning

    def catch():
        begun.wait(60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            entered.set()
            over.wait(60)

    def wait(x):
        begun.set()
        entered.wait(60)
        return x

    with beside(catch):
        assert parallel_map(wait, range(10), executor=executor) == list(range(10))
        over.set()
    assert warnings.filters is before[0]
    assert (warnings.filters, warnings.showwarning) == before[1:]


def test_filters_that_another_thread_adds_are_not_those_of_a_function(executor):
    begun, added, over = (threading.Event() for _ in range(3))

    def add():
        begun.wait(60)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            added.set()
            over.wait(60)

    def count(x):
        begun.set()
        added.wait(60)
        with warnings.catch_warnings(record=True) as log:  # what is replayed comes under the filters of that moment
            warnings.warn("mine", stacklevel=1)
        if x == 9:
            over.set()
        return len(log)

    with beside(add), warnings.catch_warnings():
        warnings.simplefilter("always")
        assert parallel_map(count, range(10), executor=executor) == [1] * 10


def test_a_function_may_show_warnings_itself(executor):
    before = warnings.showwarning

    def collect(x):
        shown = []
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda *args, **kwargs: shown.append(str(args[0]))
            warnings.warn(f"{x}", stacklevel=1)
        return shown

    try:
        assert parallel_map(collect, [7], executor=executor) == [["7"]]
        assert warnings.showwarning is before
    finally:
        warnings.showwarning = before


def test_filters_may_be_copied_by_their_patterns(executor):
    def warn_again(x):
        """As scikit-learn has each of its own threads do."""
        with warnings.catch_warnings(record=True) as log:
            filters = list(warnings.filters)
            warnings.resetwarnings()
            for action, message, category, module, line in filters:
                texts = [getattr(one, "pattern", one) or "" for one in (message, module)]
                warnings.filterwarnings(action, texts[0], category, texts[1], line, append=True)
            warnings.warn("shown", stacklevel=1)
            warnings.warn("hidden", stacklevel=1)
        return [str(one.message) for one in log]

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "hidden")
        expected = [["shown"]] * 20
        assert [warn_again(x) for x in range(20)] == expected
        assert parallel_map(warn_again, range(20), executor=executor) == expected
        assert parallel_map(warn_again, range(20), executor="threads", workers=2) == expected
