"""Items: read by one thread, when they are due, and given to the function as the plain loop gives them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import threading
import time
import weakref

import numpy as np
import pytest

from parwise import parallel_apply, parallel_imap, parallel_map

from ..support.oracle import assert_same

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:distributed")


class Claims:
    """An iterable that claims a length, and yields its items one by one."""

    def __init__(self, items, length):
        self.items, self.length = items, length

    def __len__(self):
        if isinstance(self.length, Exception):
            raise self.length
        return self.length

    def __iter__(self):
        yield from self.items


class Indexed:
    """A sequence by the old protocol: it has `__getitem__` alone."""

    def __init__(self, items):
        self.items = items

    def __getitem__(self, index):
        return self.items[index]


def plus_one(x):
    return x + 1


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 1000, TypeError("sparse"), ValueError("unknown")], ids=str)
def test_iterators_decide_and_lengths_are_hints(runner, length):
    assert parallel_map(plus_one, Claims([1, 2, 3], length), **runner) == [2, 3, 4]
    assert list(parallel_imap(plus_one, Claims([1, 2, 3], length), **runner)) == [2, 3, 4]


def test_many_items_with_a_wrong_length(runner):
    for length in (7, 10_000):
        assert parallel_map(plus_one, Claims(range(500), length), **runner) == list(range(1, 501))
        got = parallel_map(pow, Claims(range(500), length), iter([2] * 500), **runner)
        assert got == [k * k for k in range(500)]


def test_whatever_can_be_iterated_over(runner):
    sparse = pytest.importorskip("scipy.sparse")
    assert parallel_map(plus_one, Indexed([1, 2, 3]), **runner) == [2, 3, 4]
    matrix = sparse.csr_matrix(np.eye(3))
    assert parallel_map(sparse.csr_matrix.sum, matrix, **runner) == [1.0] * 3
    assert parallel_map(str.upper, "abc", **runner) == ["A", "B", "C"]
    assert parallel_map(plus_one, {1: 2, 3: 4}, **runner) == [2, 4]
    assert sorted(parallel_map(plus_one, {1, 2, 3}, **runner)) == [2, 3, 4]
    assert parallel_map(plus_one, b"ab", **runner) == [98, 99]
    rows = parallel_map(np.cumsum, np.ones((3, 2)), **runner)
    assert [row.tolist() for row in rows] == [[1.0, 2.0]] * 3


@pytest.mark.parametrize("item", [3, np.float64(2.0), np.array(3.0), None])
def test_what_cannot_be_iterated_over(item):
    with pytest.raises(TypeError, match="cannot be iterated over"):
        parallel_map(plus_one, item)
    with pytest.raises(TypeError, match="cannot be iterated over"):
        parallel_imap(plus_one, item)


def test_slow_iterator_with_a_length(runner):
    """The helper thread begins to dispatch while the caller still reads."""

    def frames():
        for k in range(40):
            time.sleep(0.001)
            yield k

    for _ in range(3):
        assert parallel_map(plus_one, Claims(frames(), 40), **runner) == list(range(1, 41))


class Frame:
    """An object that its reader changes in place, as those of trajectories."""

    def __init__(self):
        self.positions = np.zeros(2)
        self.number = 0


def one_array():
    buffer = np.zeros(2)
    for k in range(30):
        buffer[:] = k
        yield buffer


def views_of_one_array():
    buffer = np.zeros((4, 6))[::2, ::3]
    for k in range(30):
        buffer[:] = k
        yield buffer[1]


def one_list():
    items = []
    for k in range(30):
        items.append(k)
        yield items


def nested_in_a_tuple():
    buffer = np.zeros(2)
    for k in range(30):
        buffer[:] = k
        yield k, {"buffer": buffer}


def one_object():
    frame = Frame()
    for frame.number in range(30):
        frame.positions[:] = frame.number
        yield frame


def view_of_memory():
    buffer = bytearray(3)
    for k in range(30):
        buffer[:] = bytes([k] * 3)
        yield memoryview(buffer)


def two_buffers():
    buffers = np.zeros((2, 3))
    for k in range(30):
        buffers[k % 2] = k
        yield buffers[k % 2]


def total(item):
    if isinstance(item, Frame):
        return item.number + item.positions.sum()
    if isinstance(item, tuple):
        return item[0] + item[1]["buffer"].sum()
    return float(np.sum(item))


def slow_total(item):
    time.sleep(0.001)
    return total(item)


class Restoring:
    """An object whose unpickling takes a snapshot of its own, as a call in ``__setstate__`` does."""

    def __init__(self, number):
        self.number = number

    def __setstate__(self, state):
        (self.number,) = parallel_map(lambda row: row["number"], iter([{"number": state["number"]}]), workers=2)


def test_readers_whose_objects_make_calls_when_they_are_rebuilt(runner):
    class Local:
        """Not importable, so that snapshots refer to it."""

    def items():
        for k in range(20):
            yield {"first": Restoring(k), "second": Local}

    def f(item):
        return item["first"].number, item["second"].__name__

    assert parallel_map(f, items(), **runner) == [(k, "Local") for k in range(20)]


READERS = [one_array, views_of_one_array, one_list, nested_in_a_tuple, one_object, view_of_memory, two_buffers]


@pytest.mark.parametrize("reader", READERS)
def test_readers_that_change_one_object(runner, reader):
    for func in (total, slow_total):
        expected = [func(item) for item in reader()]
        assert parallel_map(func, reader(), **runner) == expected
        assert list(parallel_imap(func, reader(), **runner)) == expected
        both = [func(a) + func(b) for a, b in zip(reader(), one_array(), strict=True)]
        assert parallel_map(lambda a, b, func=func: func(a) + func(b), reader(), one_array(), **runner) == both


@pytest.mark.parametrize("reader", READERS)
def test_readers_that_change_one_object_in_a_pool(pool, reader):
    expected = list(map(total, reader()))
    assert list(pool.map(total, reader())) == list(pool.imap(total, reader())) == expected
    assert list(pool.map(lambda a, b: total(a) + total(b), reader(), one_list(), chunksize=7)) == [
        total(a) + total(b) for a, b in zip(reader(), one_list(), strict=True)
    ]


@pytest.mark.parametrize("verify", [True, "full"])
@pytest.mark.parametrize("reader", READERS)
def test_readers_that_change_one_object_are_verified(reader, verify):
    expected = list(map(total, reader()))
    assert parallel_map(total, reader(), verify=verify, workers=2) == expected


@pytest.mark.parametrize("how", [{"workers": 1}, {"executor": "serial"}])
def test_serial_calls_read_each_item_when_it_is_due(how):
    heard = []

    def items():
        for k in range(50):
            heard.append(("read", k))
            yield k

    def f(k):
        heard.append(("call", k))

    parallel_map(f, items(), **how)
    assert heard == [(what, k) for k in range(50) for what in ("read", "call")]


def test_iterator_may_use_workers_itself():
    """A nested call is serial, but not one in the iterator."""
    pids = parallel_map(lambda pid: pid, parallel_imap(lambda k: os.getpid(), range(8), isolate=True, workers=2))
    assert os.getpid() not in pids


def pop_from(row):
    time.sleep(0.002)
    return row.pop("x")


def test_function_may_change_its_item(runner):
    rows = [{"x": k} for k in range(40)]
    assert parallel_map(pop_from, ({"x": k} for k in range(40)), **runner) == list(range(40))
    assert list(parallel_imap(pop_from, ({"x": k} for k in range(40)), **runner)) == list(range(40))
    assert parallel_map(pop_from, rows, **runner) == list(range(40))


def normalise(x):
    time.sleep(0.001)
    x -= x.mean()
    return x


def test_function_may_change_arrays_in_a_list(runner):
    expected = [normalise(np.arange(3.0) * k) for k in range(30)]
    got = parallel_map(normalise, [np.arange(3.0) * k for k in range(30)], **runner)
    for one, other in zip(got, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("verify", [True, "full"])
def test_function_that_changes_arrays_in_a_list_is_verified(verify):
    expected = [normalise(np.arange(3.0) * k) for k in range(30)]
    got = parallel_map(normalise, [np.arange(3.0) * k for k in range(30)], verify=verify, workers=2)
    for one, other in zip(got, expected, strict=True):
        assert_same(one, other)


def test_function_may_change_objects_in_an_array(runner):
    def rows():
        return np.array([{"x": k} for k in range(40)], object)

    assert_same(parallel_apply(pop_from, rows(), **runner), np.arange(40))


def test_user_may_change_results_that_were_yielded(runner):
    """The handshake compares the first result as it was."""
    for k, result in enumerate(parallel_imap(lambda k: [k], range(60), **runner)):
        assert result == [k]
        result.append("changed")


def test_exception_in_the_handshake_alone_is_not_raised(eager, tmp_path):
    def once(k):
        with open(tmp_path / f"{k}", "x"):  # fails if it exists
            return k

    assert parallel_map(once, range(60), workers=2) == list(range(60))


def test_death_in_the_handshake_alone_is_not_raised(eager, mortal):
    caller = os.getpid()

    def f(k):
        if k == 0 and os.getpid() != caller:
            os.abort()
        return k

    assert parallel_map(f, range(60), executor=mortal) == list(range(60))


def test_items_of_a_dead_worker_are_given_again(tmp_path):
    def f(item):
        (k,) = item
        if k == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.abort()
        return k

    def items():
        item = [0]
        for item[0] in range(50):
            yield item

    assert parallel_map(f, items(), retries=1, workers=2, isolate=True) == list(range(50))


def test_error_of_the_iterator_comes_behind_the_results_before_it(runner):
    def items(error):
        yield from range(20)
        raise error

    for error in (ValueError("lost"), RuntimeError("x"), OSError(5, "disk")):
        with pytest.raises(type(error)) as caught:
            parallel_map(plus_one, items(error), **runner)
        assert caught.value is error
        found = []
        with pytest.raises(type(error)):
            found.extend(parallel_imap(plus_one, items(error), **runner))
        assert found == list(range(1, 21))


def test_stop_iteration_of_the_function_is_raised(runner):
    def f(k):
        if k == 5:
            raise StopIteration(k)
        return k

    for items in (range(20), iter(range(20))):
        with pytest.raises(StopIteration):
            parallel_map(f, items, **runner)


def test_gaps_of_an_iterator(runner):
    def f(k):
        if k % 3 == 1:
            raise ValueError(k)
        return k

    expected = [None if k % 3 == 1 else k for k in range(40)]
    for items in (range(40), iter(range(40))):
        with pytest.warns(RuntimeWarning, match="no result for 13 of 40"):
            assert parallel_map(f, items, errors="ignore", **runner) == expected


class Result:
    """An object that can be watched."""


@pytest.mark.parametrize("drop_none", [False, True])
def test_yielded_results_are_not_kept(runner, drop_none):
    seen = []
    for result in parallel_imap(lambda k: Result(), range(40), drop_none=drop_none, **runner):
        seen.append(weakref.ref(result))
        del result
        assert [one() for one in seen] == [None] * len(seen)


def test_pools_keep_no_results(pool):
    for results in (pool.imap(lambda k: Result(), range(40)), pool.map(lambda k: Result(), range(40))):
        seen = []
        for result in results:
            seen.append(weakref.ref(result))
            del result
            gc.collect()
            assert [one() for one in seen] == [None] * len(seen)


def test_endless_items(runner):
    with contextlib.closing(parallel_imap(lambda item: item[0] + 1, ([k] for k in itertools.count()), **runner)) as got:
        assert list(itertools.islice(got, 200)) == list(range(1, 201))


def test_items_that_cannot_be_pickled_are_computed_here():
    """A small call needs no worker."""
    for items in ([(k for k in "ab")] * 3, iter([(k for k in "ab"), (k for k in "c"), (k for k in "")])):
        assert parallel_map(list, items, workers=2) in ([["a", "b"], [], []], [["a", "b"], ["c"], []])


def test_all_threads_take_part_in_an_iterator(thread_executor):
    """No thread takes a stream for ended because another one has just taken all that was read."""
    for how in ({"executor": "threads", "workers": 3}, {"executor": thread_executor}):
        seen = []

        def f(k, seen=seen):
            time.sleep(0.001)  # work, so that tasks are short
            seen.append(threading.get_ident())
            return k

        assert parallel_map(f, iter(range(300)), **how) == list(range(300))
        assert len(set(seen[-50:])) > 1
