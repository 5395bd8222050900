"""`verify` reports no difference where there is none, and interrupts, deadlocks and slows no call."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import numpy as np
import pytest

from parwise import NotReproducibleError, parallel_apply, parallel_map
from parwise._verify import audit

from ..support.functions import slowly
from ..support.oracle import assert_same

A = np.arange(6.0)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"vectorized": True, "chunk": 2}])
def test_interrupts_go_through_verify(number, options):
    """Ctrl-C in any call of the function raises KeyboardInterrupt, never another error or a result."""
    calls = []

    def f(x):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)
        return x * 2

    with contextlib.suppress(KeyboardInterrupt):
        parallel_apply(f, A, verify=True, executor="serial", **options)
        assert len(calls) < number
    assert_same(parallel_apply(np.negative, A, workers=2, isolate=True), -A)


MIXED = {
    "int and float": lambda x: 0 if x % 3 == 0 else 0.5 * x,
    "float32 and float64": lambda x: np.float32(x) if x % 2 else np.float64(x),
    "arrays of two dtypes": lambda x: np.zeros(2, "f4" if x % 2 else "f8"),
    "bool and bool_": lambda x: bool(x % 2) if x % 3 else np.bool_(x % 2),
    "in a tuple": lambda x: (x, 0 if x % 3 == 0 else x),
    "text": lambda x: "a" * int(x),
    "None and nan": lambda x: None if x % 2 else float("nan"),
    "dicts of arrays": lambda x: {"a": np.arange(3) * x},
    "objects": lambda x: threading.Event,
    "long complex": lambda x: np.clongdouble(x) / 3,
    "records": lambda x: np.array((1, x), "i4,f8"),
}


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("verify", [True, "full"])
@pytest.mark.parametrize("executor", ["processes", "serial"])
def test_no_false_alarm_for_mixed_results(name, verify, executor, request):
    if executor == "processes":
        request.getfixturevalue("eager")
    a = np.arange(40.0)
    got = parallel_apply(MIXED[name], a, verify=verify, executor=executor, workers=2)
    want = parallel_apply(MIXED[name], a, workers=1)
    if isinstance(want, tuple):
        got, want = got[1], want[1]
    assert repr(got) == repr(want)


@pytest.mark.parametrize("options", [{}, {"vectorized": True, "chunk": 10}])
@pytest.mark.parametrize("verify", [True, "full"])
def test_out_may_be_the_input(verify, options):
    b = np.arange(40.0)
    assert parallel_apply(lambda x: x + 1, b, out=b, verify=verify, workers=2, **options) is b
    assert_same(b, np.arange(1.0, 41.0))
    with pytest.raises(ValueError, match="out has shape"):
        parallel_apply(lambda x: x + 1, b, out=np.empty((40, 2)), verify=verify)
    with pytest.raises(TypeError, match="cannot be stored in out of dtype int64"):
        parallel_apply(lambda x: x + 0.5, b, out=np.empty(40, int), verify=verify)


def test_block_function_that_never_ends_on_nan(monkeypatch):
    monkeypatch.setattr(audit, "SPECIAL_SECONDS", 0.1)

    def settle(block):
        out = block.copy()
        for row in out:
            while not abs(row).max() < 1e-3:
                row /= 2
        return out

    a = np.random.default_rng(0).standard_normal((400, 3))
    assert_same(parallel_apply(settle, a, vectorized=True, chunk=10, workers=2, verify=True), settle(a))


def test_generator_of_an_element_serves_a_nested_call():
    def inner(x, rng):
        return rng.normal()

    def outer(row, rng):
        return parallel_apply(inner, row, rng=rng).sum()

    rows = np.ones((3, 2))
    want = []
    for seed in np.random.SeedSequence(1).spawn(3):
        children = np.random.default_rng(seed).bit_generator.seed_seq.spawn(1)[0].spawn(2)
        want.append(np.sum([np.random.default_rng(child).normal() for child in children]))
    for way in ({"workers": 1}, {"workers": 2, "isolate": True}):
        assert_same(parallel_apply(outer, rows, rng=1, **way), np.array(want))


def test_constant_beyond_arrays_of_any_kind():
    for a in (np.ones(9, bool), np.arange(9).astype("M8[D]"), np.arange(9.0), np.zeros(9, "i4,f8")):
        got = parallel_apply(
            lambda b: b[::-1][::-1], a, vectorized=True, chunk=3, depth=1, boundary="constant", workers=1
        )
        assert_same(got, a)


def test_disputes_of_long_elements_cost_little(monkeypatch):
    """By default, long elements are not computed again and again to find the cause of a difference."""
    monkeypatch.setattr(audit, "LONG_SECONDS", 0.0)
    here = os.getpid()
    calls = []

    def f(x):
        if os.getpid() == here:
            calls.append(x)
        return slowly(x) if os.getpid() == here else x + 1

    with pytest.warns(UserWarning, match="verify=True looks for the reason"):
        parallel_apply(f, np.arange(40.0), workers=2)
    assert calls.count(0.0) <= 3
    with pytest.raises(NotReproducibleError):
        parallel_apply(f, np.arange(40.0), workers=2, verify=True)


class Counter:
    """An object whose bound methods are results."""

    def count(self):
        return 1


@pytest.mark.parametrize("verify", [True, "full"])
def test_windows_that_overlap_in_memory(verify):
    """Their copies overlap too, so that NaN beyond a block would come into it."""
    windows = np.lib.stride_tricks.sliding_window_view(np.random.default_rng(0).standard_normal(400), 5)
    for how in ({"chunk": 40}, {"chunk": 40, "depth": 3}):
        got = parallel_apply(np.negative, windows, vectorized=True, verify=verify, workers=2, **how)
        assert_same(got, -windows)
    same = np.broadcast_to(np.arange(5.0), (400, 5))
    for how in ({"chunk": 40}, {"chunk": 40, "depth": 3}):
        assert_same(parallel_apply(np.negative, same, vectorized=True, verify=verify, workers=2, **how), -same)
    with pytest.raises(NotReproducibleError, match="depend on the length"):
        parallel_apply(np.cumsum, windows[:, 0], vectorized=True, verify=verify, workers=2, chunk=40)
    with pytest.raises(NotReproducibleError, match="depend on the length"):
        parallel_apply(lambda b: np.cumsum(b, axis=0), windows, vectorized=True, verify=verify, workers=2, chunk=40)


def test_bound_methods_are_no_difference(eager):
    """Python compares them by the identity of their objects."""
    got = parallel_map(lambda k: Counter().count, range(30), workers=2)
    assert [one() for one in got] == [1] * 30
