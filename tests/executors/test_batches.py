"""Short submitted calls travel in batches, and each is one call all the same."""

from __future__ import annotations

import builtins
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import types

import numpy as np
import pytest

from parwise import Pool, WorkerDiedError
from parwise._executors.submit.call_dispatcher import CallDispatcher
from parwise._executors.submit.work_queue import AHEAD_SECONDS
from parwise._workers.pickling.call_pickler import CallPickler
from parwise._workers.worker.calls import BATCH_SECONDS, CallLog

CALLS = 400


def short(pool):
    """Have the pool know that calls are short."""
    queue = pool._manager._items
    while queue.pace is None or queue.pace > AHEAD_SECONDS / 4:
        assert [one.result() for one in [pool.submit(abs, -k) for k in range(50)]] == list(range(50))
    return pool


def messages(pool):
    return sum(worker.messages for worker in pool._pool.workers)


@contextlib.contextmanager
def held_back(pool):
    """Have calls that are submitted within the block come to the manager together."""
    with pool._manager._lock, pool._manager._items._lock:
        yield


def test_short_calls_share_messages(mortal):
    short(mortal)
    before = messages(mortal)
    with held_back(mortal):
        futures = [mortal.submit(divmod, k, 7) for k in range(CALLS)]
    assert [one.result() for one in futures] == [divmod(k, 7) for k in range(CALLS)]
    assert 0 < messages(mortal) - before < CALLS / 2


@pytest.mark.parametrize("at", [0, 150, CALLS - 1])
def test_a_long_call_holds_up_no_other(mortal, gate, at):
    """Results before it come, and calls behind it are made by the other worker."""
    short(mortal)
    with held_back(mortal):
        calls = [(gate, "long") if k == at else (abs, -k) for k in range(CALLS)]
        futures = [mortal.submit(*call) for call in calls]
    others = [k for k in range(CALLS) if k != at]
    assert [futures[k].result(60) for k in others] == others
    assert not futures[at].done()
    gate.open()
    assert futures[at].result(60) == "long"


def test_results_before_a_long_call_come_from_a_single_worker(gate):
    with Pool(1) as pool, contextlib.ExitStack() as end:
        end.callback(gate.open)  # the pool waits for the call
        short(pool)
        with held_back(pool):
            futures = [pool.submit(abs, -k) for k in range(20)]
            held = pool.submit(gate)
            behind = [pool.submit(abs, -k) for k in range(20)]
        assert [one.result(60) for one in futures] == list(range(20))
        assert not any(one.done() for one in [held, *behind])
        gate.open()
        assert [one.result(60) for one in behind] == list(range(20))


def _note(k, prints):
    """Have the worker remember the call, whatever globals the next one gets."""
    seen = vars(builtins).setdefault("_seen_by_test_batches", [])
    seen.append(k)
    if prints:
        print(k)


def _noted():
    return vars(builtins).pop("_seen_by_test_batches")


@pytest.mark.parametrize("prints", [(), (3,), range(3, 200, 7)], ids=str)
def test_a_single_worker_makes_calls_in_order(prints, capsys):
    """Also those behind the end of a batch that ends early, before which the next batch has been sent."""
    with Pool(1) as pool:
        short(pool)
        futures = [pool.submit(_note, k, k in prints) for k in range(200)]
        assert [one.result(60) for one in futures] == [None] * 200
        assert pool.submit(_noted).result(60) == list(range(200))
    assert capsys.readouterr().out.split() == [str(k) for k in prints]


def test_calls_that_take_long_leave_the_next_ones_behind_them():
    """As above, where a batch ends early since its calls take longer than those before."""
    with Pool(1) as pool:
        short(pool)
        with held_back(pool):
            futures = [pool.submit(_note, k, False) for k in range(8)]
            futures += [pool.submit(_slow_note, k) for k in range(8, 40)]
            futures += [pool.submit(_note, k, False) for k in range(40, 80)]
        assert [one.result(60) for one in futures] == [None] * 80
        assert pool.submit(_noted).result(60) == list(range(80))


def _slow_note(k):
    time.sleep(0.004)
    _note(k, False)


def _mark(folder, k, dies):
    with open(folder / str(k), "a") as file:
        file.write("x")
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return k


@pytest.mark.parametrize("at", [0, 37, 99])
def test_death_costs_one_call_and_no_call_is_made_twice(mortal, tmp_path, at):
    short(mortal)
    with held_back(mortal):
        futures = [mortal.submit(_mark, tmp_path, k, k == at) for k in range(100)]
    others = [k for k in range(100) if k != at]
    assert [futures[k].result(60) for k in others] == others
    with pytest.raises(WorkerDiedError, match="ended by SIGKILL in a call of _mark"):
        futures[at].result(60)
    assert {(tmp_path / str(k)).read_text() for k in range(100)} == {"x"}


def _odd(k):
    if k % 2:
        raise ValueError(f"odd: {k}")
    return k


def test_exceptions_are_those_of_their_calls(mortal):
    short(mortal)
    with held_back(mortal):
        futures = [mortal.submit(_odd, k) for k in range(100)]
    assert [one.result() for one in futures[::2]] == list(range(0, 100, 2))
    for k, one in enumerate(futures):
        if k % 2:
            assert str(one.exception()) == f"odd: {k}"
            assert "in _odd" in str(one.exception().__cause__)


def test_text_of_a_call_comes_before_its_result(mortal, capsys):
    short(mortal)
    with held_back(mortal):
        futures = [mortal.submit(print, k) if k % 3 == 0 else mortal.submit(abs, k) for k in range(60)]
    assert futures[57].result() is None
    assert "57\n" in capsys.readouterr().out
    for one in futures:
        one.result()


def test_large_results_and_connections_among_short_calls(mortal):
    multiprocessing.reduction  # noqa: B018 - imported, so that workers know how to send connections
    short(mortal)
    large = np.arange(400_000.0)
    with held_back(mortal):
        futures = [mortal.submit(np.negative, large) if k % 10 == 0 else mortal.submit(abs, -k) for k in range(50)] + [
            mortal.submit(multiprocessing.Pipe, k % 2 == 0) for k in range(4)
        ]
    for k, one in enumerate(futures[:50]):
        if k % 10:
            assert one.result() == k
        else:
            assert one.result().tobytes() == (-large).tobytes()
    for one in futures[50:]:
        reader, writer = one.result()
        with reader, writer:
            writer.send("through")
            assert reader.poll(10)
            assert reader.recv() == "through"


def test_a_cancelled_call_is_not_made(mortal, gate):
    short(mortal)
    held = [mortal.submit(gate, name) for name in "ab"]
    gate.came("a")
    gate.came("b")
    waiting = [mortal.submit(abs, -k) for k in range(300)]
    cancelled = [one for one in waiting if one.cancel()]
    assert len(cancelled) > 100
    gate.open()
    for one in held + [one for one in waiting if one not in cancelled]:
        one.result(60)
    assert all(one.cancelled() for one in cancelled)


def test_state_of_each_call_is_its_own(mortal, monkeypatch):
    short(mortal)
    futures = []
    with held_back(mortal):
        for k in range(60):
            monkeypatch.setenv("PARWISE_TEST", str(k // 20))
            futures.append(mortal.submit(os.getenv, "PARWISE_TEST"))
    assert [one.result() for one in futures] == [str(k // 20) for k in range(60)]


def test_submitted_from_many_threads(mortal):
    short(mortal)
    found = {}

    def submit(number):
        found[number] = [mortal.submit(divmod, number, k + 1) for k in range(200)]

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, futures in found.items():
        assert [one.result() for one in futures] == [divmod(number, k + 1) for k in range(200)]


# What is pickled once for many calls.

SCRIPT = """
def count(step: 'int' = 1) -> 'int':
    return number * step

def add():
    global number
    number += 1
    return number

def note():
    note.calls = getattr(note, 'calls', 0) + 1
    return note.calls

def collect():
    found.append(1)
    return len(found)

def outer():
    return count()

number, found = 1, []
"""


@pytest.fixture
def script():
    """A module that workers cannot import: its functions travel by value."""
    module = types.ModuleType("parwise_script")
    exec(SCRIPT, vars(module))
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_a_call_sees_the_globals_of_its_moment(mortal, script):
    futures = []
    for number in range(60):
        script.number = number // 2
        futures += [mortal.submit(script.count), mortal.submit(script.outer)]
    script.count.__defaults__ = (10,)
    futures.append(mortal.submit(script.count))
    assert [one.result() for one in futures] == [number // 2 for number in range(60) for _ in "ab"] + [290]


@pytest.mark.parametrize("name", ["add", "note", "collect"])
def test_what_a_call_changes_ends_with_it(mortal, script, name):
    """As always with functions that travel by value."""
    first = getattr(script, name)()
    del script.note
    exec(SCRIPT, vars(script))
    futures = [mortal.submit(getattr(script, name)) for _ in range(50)]
    assert {one.result() for one in futures} == {first}


def test_a_function_is_pickled_again_once_it_changes(script):
    pickler = CallPickler(False)
    head = lambda func: pickler._know(func) and pickler._know(func).head  # noqa: E731
    first = head(script.count)
    assert first is not None
    assert head(script.count) is first
    assert head(script.outer) is not None
    assert head(script.collect) is None  # a list may change
    for change in (
        lambda: setattr(script, "number", 2),
        lambda: setattr(script.count, "__defaults__", (3,)),
        lambda: setattr(script.count, "__code__", (lambda step: step).__code__),
        lambda: setattr(script.count, "mark", 1),
        lambda: setattr(script.count, "__doc__", "Other."),
    ):
        before = head(script.count)
        change()
        assert head(script.count) is not before
    script.number = []
    script.count.__code__ = (lambda step: number * step).__code__  # noqa: F821
    assert head(script.count) is None


# The log of results.


@pytest.fixture
def memory():
    return memoryview(bytearray(400))


def test_log(memory):
    log = CallLog(memory, b"secret", 5)
    assert list(CallLog(memory, b"secret", 5).read()) == []
    results = [b"one", b"", b"three" * 10]
    for k, one in enumerate(results):
        assert log.append(one)
        assert list(CallLog(memory, b"secret", 5).read()) == results[: k + 1]
    assert not log.append(bytes(300))
    assert list(CallLog(memory, b"secret", 5).read()) == results


def test_log_of_another_batch_and_foreign_bytes(memory):
    log = CallLog(memory, b"secret", 5)
    log.append(b"one")
    log.append(b"two")
    assert list(CallLog(memory, b"secret", 6).read()) == []
    assert list(CallLog(memory, b"other", 5).read()) == []
    log = CallLog(memory, b"secret", 6)
    log.append(b"new")  # what follows it is of the batch before
    assert list(CallLog(memory, b"secret", 6).read()) == [b"new"]
    for at in range(400):
        written = memory[at]
        memory[at] ^= 255
        assert set(CallLog(memory, b"secret", 6).read()) <= {b"new"}
        assert b"new" not in CallLog(memory, b"secret", 6).read() or at >= 27
        memory[at] = written


def test_the_manager_sleeps_while_all_workers_are_at_long_calls(mortal, gate, monkeypatch):
    """However many short calls wait behind them."""
    short(mortal)
    steps, real = [], CallDispatcher.step

    def step(dispatcher, timeout):
        steps.append(len(dispatcher._late))
        return real(dispatcher, timeout)

    monkeypatch.setattr(CallDispatcher, "step", step)
    with held_back(mortal):
        futures = [mortal.submit(gate, name) for name in "ab"] + [mortal.submit(abs, -k) for k in range(60)]
    gate.came("a")
    gate.came("b")
    while not steps or steps[-1] < 2:
        time.sleep(0.001)
    before = len(steps)
    time.sleep(0.2)
    assert len(steps) - before < 20  # of 200
    gate.open()
    assert [one.result(60) for one in futures] == ["a", "b", *range(60)]


def test_a_batch_ends_in_time(mortal):
    """One that takes longer than its calls before sends its results and leaves the rest to others."""
    short(mortal)
    with held_back(mortal):
        futures = [mortal.submit(time.sleep, 2 * BATCH_SECONDS) for _ in range(100)]
    for one in futures:
        assert one.result(60) is None
    assert mortal._manager._items.pace >= BATCH_SECONDS
