"""Elements of the calling thread, and those that another thread claims."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from parwise._core.kernel import Kernel
from parwise._executors.collector import Collector

COUNT = 20_000


@pytest.fixture
def turns():
    """Let threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def collector(f, run, *args, form="arrays"):
    return Collector(Kernel(f, args, {}, False, form=form), [run])


@pytest.mark.parametrize("batch", [1, 7, COUNT])
def test_each_element_is_of_one_thread(turns, batch):
    """Wherever a claim comes, the caller's elements end there."""
    ends = set()
    for number in range(100):
        reached, calls = threading.Event(), []

        def f(x, reached=reached, calls=calls, number=number):
            calls.append(x)
            if len(calls) == 10 * number:
                reached.set()
            return x

        one = collector(f, np.arange(COUNT))
        claimed = []

        def claim(one=one, reached=reached, claimed=claimed):
            reached.wait(10)
            claimed.append(one.claim())

        thread = threading.Thread(target=claim)
        thread.start()
        while one.stop is None and len(one.raw) < COUNT:
            assert one.collect(batch) is None
        reached.set()
        thread.join()
        assert one.raw == calls == list(range(claimed[0])), number
        ends.add(claimed[0])
    assert len(ends) > 20  # not always at the end of a batch


def test_first_element_is_the_callers():
    one = collector(lambda x: x, np.arange(9))
    assert one.claim() == 1
    assert one.collect(5) is None
    assert one.raw == [0]
    assert one.collect(5) is None
    assert one.raw == [0]
    assert one.claim(7) == 1


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("begun", [0, 3])
def test_a_claim_before_the_loop_of_a_batch_begins(begun, batch):
    """The first element is the caller's all the same: without it a call has no result, or a list of none."""
    one = collector(lambda x: x, np.arange(9))
    assert begun == 0 or one.collect(begun) is None
    calls, claimed = one._calls, []

    def claim_first(left):
        claimed.append(one.claim())
        return calls(left)

    one._calls = claim_first
    assert one.collect(batch) is None
    assert claimed == [max(1, begun)]
    assert one.raw == list(range(claimed[0]))


def test_results_up_to_an_error():
    one = collector(lambda x: 1 / (3 - int(x)), np.arange(9.0))
    error = one.collect(9)
    assert type(error) is ZeroDivisionError
    assert one.raw == [1 / 3, 1 / 2, 1.0]


def test_stop_iteration_of_the_function():
    def f(x):
        if x == 3:
            raise StopIteration
        return x

    one = collector(f, np.arange(9))
    assert type(one.collect(9)) is StopIteration
    assert one.raw == [0, 1, 2]


def test_arrays_in_memory_that_is_used_again():
    memory = np.empty(2)

    def f(x):
        memory[...] = x
        return memory

    one = collector(f, np.arange(4.0))
    for count in (1, 3):
        assert one.collect(count) is None
    assert np.array(one.raw).tobytes() == np.repeat(np.arange(4.0), 2).tobytes()
    assert collector(f, np.arange(4.0), form="list").collect(1) is None


def test_numbers_and_then_arrays():
    memory = np.empty(1)

    def f(x):
        memory[...] = x
        return x if x < 3 else memory

    one = collector(f, np.arange(8.0))
    for count in (2, 2, 4):  # an array at the end of a batch
        assert one.collect(count) is None
    assert np.ravel(one.raw[3:]).tolist() == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert type(one.raw[2]) is np.float64


@pytest.mark.parametrize("wrapped", [False, True])
def test_memory_that_the_function_uses_again_after_numbers(wrapped):
    """A batch of numbers may go on with arrays: each is copied before the next one is computed."""
    memory = np.zeros(())

    def f(x):
        if x < 5:
            return float(x)
        memory[...] = x
        return (memory, int(x)) if wrapped else memory

    one = collector(f, np.arange(16.0), form="raw")
    while len(one.raw) < 16:
        assert one.collect(8) is None
    assert [float(value[0] if wrapped and at >= 5 else value) for at, value in enumerate(one.raw)] == list(range(16))
    assert one.kinds is None


def test_types_of_results():
    one = collector(lambda x: [1, 2.0, "3", True][int(x) % 4], np.arange(9.0))
    for _ in range(3):
        assert one.collect(3) is None
    assert one.kinds == {int, float, str, bool}
