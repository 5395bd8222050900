"""`parwise.options`: for the program when called, for a block of code in ``with``."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import parwise
from parwise import options
from parwise._core.options import options as module
from parwise._core.options.options import resolve


@pytest.fixture(autouse=True)
def nothing_stays():
    assert not module._process
    yield
    module._set_plain([])


def workers(**given):
    return resolve(given).workers


def test_a_plain_call_acts_and_the_last_one_holds():
    options(workers=2, retries=1)
    assert (workers(), resolve({}).retries) == (2, 1)
    kept = options(workers=3)  # as a notebook keeps the last value of a cell
    assert (workers(), resolve({}).retries) == (3, 1)
    assert workers(workers=4) == 4
    options(workers=None)
    assert workers() is None
    assert kept is not None


def test_a_plain_call_holds_in_other_threads_and_contexts():
    options(workers=2)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(workers).result() == 2
        pool.submit(options, workers=3).result()
    assert workers() == 3
    # As each cell of a notebook may have a context of its own.
    contextvars.copy_context().run(options, workers=5)
    assert contextvars.Context().run(workers) == 5


def test_with_restores_what_was_set():
    options(workers=5)
    with options(workers=2):
        assert workers() == 2
        with options(retries=1):
            assert (workers(), resolve({}).retries) == (2, 1)
        options(workers=6)  # the block's own comes first
        assert workers() == 2
    assert workers() == 6
    with pytest.raises(KeyError), options(workers=2):
        raise KeyError
    assert workers() == 6


def test_with_is_not_seen_by_other_threads():
    with options(workers=2), ThreadPoolExecutor(1) as pool:
        assert pool.submit(workers).result() is None
    assert not module._process


def test_until_it_is_entered_it_is_a_plain_call():
    later = options(workers=2)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(workers).result() == 2
        with later:
            assert pool.submit(workers).result() is None
            assert workers() == 2
        assert pool.submit(workers).result() is None
    assert workers() is None


def test_tasks_of_asyncio_have_their_own():
    async def one(number, mine, theirs):
        with options(workers=number):
            mine.set()
            await theirs.wait()
            return workers()

    async def both():
        first, second = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(one(2, first, second), one(3, second, first))

    assert asyncio.run(both()) == [2, 3]
    assert workers() is None


def test_blocks_may_end_in_another_order():
    first, second = options(workers=2), options(workers=3, retries=2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (workers(), resolve({}).retries) == (3, 2)
    second.__exit__(None, None, None)
    assert (workers(), resolve({}).retries) == (None, 0)


def test_a_block_may_end_in_another_context():
    @contextlib.contextmanager
    def scope():
        with options(workers=2):
            yield

    manager = scope()
    contextvars.copy_context().run(manager.__enter__)
    assert workers() is None
    with options(workers=3):
        manager.__exit__(None, None, None)
        assert workers() == 3
    assert workers() is None


def test_entering_withdraws_only_its_own():
    first = options(workers=2, retries=1)
    options(workers=3)
    with first:
        assert workers() == 2
    assert (workers(), resolve({}).retries) == (3, 0)
    with first, first:  # again, and within itself
        assert workers() == 2
    assert workers() == 3


def test_many_plain_calls_leave_little():
    kept = [options(retries=3)]
    for number in range(1, 100):
        options(workers=number)
    kept.append(options(workers=7))
    assert len(module._plain) <= 4
    with kept[1]:
        assert workers() == 7
    assert (workers(), resolve({}).retries) == (99, 3)
    with kept[0]:
        pass
    assert (workers(), resolve({}).retries) == (99, 0)


def test_a_decorator_holds_within_the_function_alone():
    @options(workers=2)
    def inside():
        return workers()

    assert workers() is None
    assert inside() == 2
    assert workers() is None


def test_a_wrong_value_sets_nothing():
    with pytest.raises(ValueError, match="workers"):
        options(retries=3, workers=0)
    with pytest.raises(ValueError, match="journal"):
        options(resume="j", retries=3)
    assert not module._process


def test_calls_of_many_threads_lose_nothing():
    barrier = threading.Barrier(4)

    def set_one(name, value):
        barrier.wait()
        options(**{name: value})

    chosen = {"workers": 2, "retries": 1, "errors": "ignore", "verify": False}
    threads = [threading.Thread(target=set_one, args=pair) for pair in chosen.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = resolve({})
    assert (found.workers, found.retries, found.ignore, found.verify) == (2, 1, True, False)


def test_it_acts_on_calls():
    options(executor="serial")
    seen = []
    parwise.parallel_map(seen.append, range(100))
    assert seen == list(range(100))


def test_settings_that_are_kept_are_those_of_options_of_the_same_types():
    """1 equals True, and is a number of workers."""
    assert resolve({"workers": 1}) is resolve({"workers": 1})
    with pytest.raises(TypeError, match="workers must be an int or None, got True"):
        resolve({"workers": True})
    assert resolve({"isolate": True}).isolate is True
    with pytest.raises(TypeError, match="isolate must be a bool, got 1"):
        resolve({"isolate": 1})
    assert resolve({"setup": print}).setup is print
