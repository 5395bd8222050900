"""The first elements of a drop-in, which the calling thread computes before workers are asked."""

from __future__ import annotations

import numpy as np
import pytest

import parwise
from parwise._numpy import inline

from ..support.drop_ins import check
from ..support.internals import resolve


def fresh(func, count):
    return inline.InlineCalls(func, [np.arange(float(count)).astype(object)], (), {})


def test_the_caller_goes_on_while_elements_are_cheap(monkeypatch):
    monkeypatch.setattr(inline, "perf_counter", iter(np.arange(0, 1, 1e-6).tolist()).__next__)
    calls = fresh(lambda x: x, 100_000)
    calls.run()
    assert calls.results == list(range(100_000))


@pytest.mark.parametrize("slow_from", [0, 1, 50, 3000])
def test_the_caller_stops_where_elements_are_long(slow_from, monkeypatch):
    now = [0.0]

    def f(x):
        now[0] += 1e-3 if x >= slow_from else 1e-8
        return x

    monkeypatch.setattr(inline, "perf_counter", lambda: now[0])
    calls = fresh(f, 10_000)
    calls.run()
    assert slow_from < len(calls.results) <= slow_from + 1 + slow_from // 8 + 2 * inline.MIN_BATCH
    assert calls.results == list(range(len(calls.results)))


@pytest.mark.parametrize("error", [ValueError, StopIteration, KeyboardInterrupt])
def test_errors_of_the_first_elements_go_through(error, monkeypatch):
    monkeypatch.setattr(inline, "LEFT_SECONDS", float("inf"))  # however slow the machine just then

    def f(x):
        if x == 700:
            raise error
        return x

    calls = fresh(f, 1000)
    with pytest.raises(error):
        calls.run()
    assert len(calls.results) == 700


def test_which_calls_begin_in_the_caller():
    quick, long = 1e-6, 1.0
    assert inline.should_start_inline(resolve({}), 2, quick)
    assert not inline.should_start_inline(resolve({}), 2, long)
    assert not inline.should_start_inline(resolve({"workers": 2}), 31, None)
    assert inline.should_start_inline(resolve({"workers": 2}), 32, None)
    for option in ({"isolate": True}, {"errors": "ignore"}, {"verify": True}):
        assert not inline.should_start_inline(resolve(option), 1000, quick)


def test_workers_go_on_where_the_caller_stopped(eager, monkeypatch):
    monkeypatch.setattr(inline, "CHEAP_SECONDS", -1.0)
    monkeypatch.setattr(inline, "LEFT_SECONDS", -1.0)
    a = np.asfortranarray(np.arange(200.0).reshape(10, 20))

    def f(x, k=0):
        if x == k:
            raise ValueError("found")
        return x / 3

    with parwise.options(workers=2):
        for otypes in (None, "d", "f"):
            check(f, a, -1, otypes=otypes)
        with pytest.raises(ValueError, match="found") as info:
            parwise.vectorize(f)(a, 133)
        assert info.value.__notes__ == ["in element (6, 13) along axes (0, 1)"]
