"""What is known of the time that functions take decides whether calls of some milliseconds are shared."""

from __future__ import annotations

import dataclasses
import os
import time
from functools import partial

import numpy as np
import pytest

from parwise import parallel_apply, parallel_map, report
from parwise._executors import inline_run
from parwise._executors.processes import background, inline, known_paces, receiver, runner, sharing
from parwise._executors.processes.known_paces import MOST_KNOWN, KnownPace, KnownPaces
from parwise._workers.pool.default_pool import default_pool

from ..support.functions import ISOLATED, worker_pids
from ..support.internals import Job, Task, TaskQueue, make_call, resolve

TWO = {"workers": 2}


@pytest.fixture
def paces(monkeypatch):
    """What is known of functions: nothing so far."""
    paces = KnownPaces()
    for module in inline, runner:
        monkeypatch.setattr(module, "known_paces", paces)
    return paces


def test_functions_are_known_by_their_code_and_by_the_size_of_elements():
    known = KnownPaces()

    def adder(offset):
        def add(x):
            return x + offset

        return add

    def wrapped(f):
        return lambda x: f(x)

    def call(f, array):
        return make_call(f, (array,), settings=resolve(TWO))

    array, rows = np.arange(5.0), np.ones((5, 2))
    pace = KnownPace(1.0, False)
    known.of(call(adder(1), array)).keep(1.0)
    assert known.of(call(adder(2), array)).known == pace
    assert known.of(call(partial(adder(2)), array)).known == pace
    assert known.of(call(adder(1), rows)).known is None
    assert known.of(call(abs, array)).known is None
    known.of(call(wrapped(abs), array)).keep(1.0)
    assert known.of(call(wrapped(adder(1)), array)).known is None
    for size in range(1, 2 * MOST_KNOWN):
        known.of(call(abs, np.ones((2, size)))).keep(1.0)
    assert len(known._known) == MOST_KNOWN


def ways(calls, alone, shared):
    """Which of some calls of middling length are shared, if an element takes so long alone and shared."""
    known, taken = KnownPace(1.0, False), []
    for _ in range(calls):
        taken.append(known.to_share)
        known = known.after(shared if taken[-1] else alone, taken[-1])
    return taken


@pytest.mark.parametrize(("alone", "shared"), [(2.0, 1.0), (1.1, 1.0), (1.0, 1.1), (1.0, 2.0)])
def test_middling_calls_take_the_way_that_is_faster_and_try_the_other_one_ever_more_rarely(alone, shared):
    taken = ways(600, alone, shared)
    trials = [k for k, one in enumerate(taken) if one != (shared < alone)]
    if shared > alone:  # two calls each time
        assert trials[:2] == [0, 2]
        assert trials[3::2] == [k + 1 for k in trials[2::2]]
        trials = trials[2::2]
    gaps = np.diff(trials[1:] if shared < alone else trials)
    assert list(gaps[:4]) == ([9, 17, 33, 65] if shared < alone else [18, 34, 66, 130])
    assert len(trials) <= 9


def test_a_second_call_with_workers_decides():
    """The first one takes longer, as what it needs is in no cache."""
    known = KnownPace(1.0, False).after(2.0, shared=False).after(3.0, shared=True)
    assert known.to_share
    assert known.after(1.0, shared=True).to_share
    assert known.after(1.0, shared=True).after(1.1, shared=True).to_share
    assert not known.after(2.5, shared=True).to_share
    later = known.after(2.5, shared=True)
    while not later.to_share:
        later = later.after(2.0, shared=False)
    assert later.after(2.5, shared=True).to_share
    assert not later.after(2.5, shared=True).after(2.4, shared=True).to_share


def test_one_slow_call_changes_nothing():
    known = KnownPace(1.0, False, alone=2.0, shared=1.0)
    assert known.after(100.0, shared=True).to_share
    assert not known.after(100.0, shared=True).after(100.0, shared=True).to_share


def test_elements_of_another_kind_are_measured_anew():
    """Beside a worker an element takes longer than alone, but not ten times as long."""
    known = KnownPace(1.0, False, alone=1.0, shared=2.0, calls=3)
    assert known.with_pace(3.0, False) == known._replace(seconds=3.0)
    assert known.with_pace(3.0, False).work == 1.0
    assert known.with_pace(10.0, True) == KnownPace(10.0, True)
    assert known.with_pace(10.0, True).work == 10.0


def test_middling_calls_that_took_longer_with_workers_are_the_callers(monkeypatch, paces):
    worker_pids(**ISOLATED)
    monkeypatch.setattr(inline, "WARM_SECONDS", 1e-9)
    monkeypatch.setattr(inline, "MIDDLING", 1e15)
    monkeypatch.setattr(inline, "BUSY_SECONDS", 1e9)
    monkeypatch.setattr(known_paces, "MOST_SLOWER", 1e9)

    def f(x):
        return float(os.getpid())

    def call():
        with report() as found:
            parallel_apply(f, array, **TWO)
        return found.to_dict()["calls"][0]

    array = np.arange(12.0)
    parallel_apply(f, array, **TWO)
    ((key, known),) = paces._known.items()
    paces._known[key] = known._replace(alone=1.0, shared=2.0, calls=0)
    assert "such calls took longer with workers, or" in str(call())
    assert set(parallel_apply(f, array, **TWO)) == {os.getpid()}
    assert paces._known[key].calls == 2


def test_a_call_that_is_faster_alone_is_not_looked_at_before_it_has_taken_twice_as_long_as_then(monkeypatch, paces):
    worker_pids(**ISOLATED)
    taken = []

    class Noted(inline.InlineRun):
        def run(self, looks, expect=None, ends=None, pace=0.0):
            taken.append((tuple(looks), pace))
            super().run(looks, expect, ends, pace)

    monkeypatch.setattr(inline, "InlineRun", Noted)
    array = np.arange(10.0)
    parallel_apply(doubled, array, **TWO)
    ((key, known),) = paces._known.items()
    for alone, shared in (0.002, 0.003), (0.003, 0.002):
        paces._known[key] = known._replace(seconds=0.002, alone=alone, shared=shared)
        monkeypatch.setattr(inline, "cpu_is_idle", lambda: False)
        parallel_apply(doubled, array, **TWO)
    (late, pace), (early, unknown) = taken[1:]
    assert late == (0.04,)
    assert tuple(early) == inline.WARM_LOOKS
    assert (pace, unknown) == (0.002, 0.0)


def test_a_trial_that_begins_late_is_one(monkeypatch, paces):
    """A call that the caller begins alone, although it is to be shared, tells how long it takes with workers."""
    worker_pids(**ISOLATED)
    monkeypatch.setattr(known_paces, "MOST_SLOWER", 1e9)
    monkeypatch.setattr(inline, "WARM_SECONDS", 1e-9)
    monkeypatch.setattr(inline, "MIDDLING", 1e15)
    monkeypatch.setattr(inline, "cpu_is_idle", lambda: True)
    monkeypatch.setattr(inline, "is_shared", lambda seconds: False)  # else it begins with the first element
    for name in ("seems_free", "known_free"):
        monkeypatch.setattr(background.CpuAvailability, name, lambda self, **known: True)

    def f(x):
        return sum(range(20_000)) + x

    array = np.arange(40.0)
    parallel_apply(f, array, **TWO)
    ((key, known),) = paces._known.items()
    assert known.alone > 0  # by its first elements, since a first call with workers takes longer than the next one
    assert not known.shared
    trial = known._replace(alone=known.seconds, shared=2 * known.seconds, calls=5, trial_calls=4)
    paces._known[key] = trial
    assert trial.to_share
    parallel_apply(f, array, **TWO)
    assert paces._known[key].shared != trial.shared
    assert paces._known[key].calls == 0


def test_short_calls_without_workers_make_no_tasks_until_workers_would_have_paid(monkeypatch, paces):
    """Each call of 10 ms is too short to start workers, and looking for them took it 2 ms, or 14 in a new process."""
    default_pool().stop()
    monkeypatch.setattr(background.BackgroundDispatcher, "help_after", lambda self: 3600.0)
    monkeypatch.setattr(inline, "WARM_SECONDS", 1e-9)
    joined = []
    join = background.BackgroundDispatcher.join
    monkeypatch.setattr(
        background.BackgroundDispatcher, "join", lambda self, start: (joined.append(True), join(self, start))[1]
    )

    def f(x):
        return sum(range(50_000)) + x  # some ms: so much is left when the caller looks

    array = np.arange(10.0)
    monkeypatch.setattr(inline, "COLD_SECONDS", 3600.0)
    for _ in range(3):
        parallel_apply(f, array, **TWO)
    assert not joined
    assert paces.serial_seconds > 0
    monkeypatch.setattr(inline, "COLD_SECONDS", paces.serial_seconds)
    parallel_apply(f, array, **TWO)
    assert joined


def test_workers_that_a_call_has_started_are_not_started_again_before_they_are_up(monkeypatch, paces):
    """A call of 15 ms that started workers ended before they were up, and each second one after it tried again."""
    default_pool().stop()
    pool = default_pool()
    with pool.lock:
        pool.start(1)
        pool.dirty = False
    monkeypatch.setattr(background.BackgroundDispatcher, "warm", False)
    monkeypatch.setattr(inline, "WARM_SECONDS", 1e-9)
    monkeypatch.setattr(inline, "COLD_SECONDS", 3600.0)
    for _ in range(3):
        parallel_apply(lambda x: sum(range(50_000)) + x, np.arange(10.0), **TWO)
    assert paces.serial_seconds == 0
    end = time.monotonic() + 60
    while not pool.seems_warm and time.monotonic() < end:  # no call reads what they answer
        pass
    assert pool.seems_warm
    with pool.lock:
        assert pool.seems_warm


def doubled(x):
    return 2 * x


def test_a_call_that_is_known_to_be_short_makes_nothing_that_workers_need(monkeypatch, paces):
    worker_pids(**ISOLATED)
    array = np.arange(50.0)
    want = parallel_apply(doubled, array, **TWO)
    monkeypatch.setattr(runner, "BackgroundDispatcher", None)
    assert parallel_apply(doubled, array, **TWO).tobytes() == want.tobytes()
    with pytest.raises(TypeError, match="not callable"):  # it would have been made
        parallel_apply(np.sqrt, array, **TWO)


def test_a_call_that_was_known_to_be_short_is_shared_once_it_takes_longer(paces):
    worker_pids(**ISOLATED)
    waits = []

    def f(x):
        for seconds in waits:
            time.sleep(seconds)
        return complex(x, os.getpid())

    array = np.arange(60.0)
    assert set(parallel_apply(f, array, verify=False, **TWO).imag) == {os.getpid()}
    waits.append(0.01)
    result = parallel_apply(f, array, verify=False, **TWO)
    assert result.real.tobytes() == array.tobytes()
    assert len(set(result.imag)) > 1


def test_an_error_in_a_call_that_is_known_to_be_short_is_that_of_the_loop(paces):
    seen = []

    def f(x):
        seen.append(x)
        return 1 / x

    array = np.arange(1.0, 51.0)
    parallel_apply(f, array, **TWO)
    array[30] = 0
    seen.clear()
    with np.errstate(all="raise"), pytest.raises(FloatingPointError) as caught:
        parallel_apply(f, array, **TWO)
    assert seen == array[:31].tolist()
    assert "in element 30 along axis 0" in "".join(caught.value.__notes__)


@pytest.mark.parametrize(("slower", "expected"), [(0.0, [1, 999]), (1.0, [1, 4])])
def test_a_known_pace_makes_the_second_batch_long(monkeypatch, slower, expected):
    """Where nothing of a function is in the caches its first elements take long, and their batches were short."""
    batches, now = [], [0.0]
    collect = inline_run.Collector.collect
    monkeypatch.setattr(inline_run, "has_no_gil", lambda: False)
    monkeypatch.setattr(
        inline_run.Collector, "collect", lambda self, count: (batches.append(count), collect(self, count))[1]
    )
    monkeypatch.setattr(inline_run, "perf_counter", lambda: now[0])

    def f(x):
        now[0] += 1e-4 + slower
        return x

    call = make_call(f, (np.arange(1000.0),), settings=resolve({}))
    run = inline_run.InlineRun(call, call.kernel())
    run.run((3600.0,), pace=1e-7)
    assert batches[:2] == expected
    assert run.raw == list(range(1000))


def test_whether_workers_pay_is_not_asked_again_while_they_compute(monkeypatch, paces):
    """To look at the threads of the caller's second task took 0.6 ms, and what stands around it as long."""
    array = np.arange(100.0)
    sums, want = prepare_to_share(array, monkeypatch)
    monkeypatch.setattr(background.CpuAvailability, "known_free", None)
    with report() as found:
        assert parallel_apply(sums, array, **TWO).tobytes() == want.tobytes()
    assert found.to_dict()["calls"][0]["per_worker"]


def test_workers_tell_that_a_function_uses_threads(monkeypatch, paces):
    array = np.arange(100.0)
    sums, _ = prepare_to_share(array, monkeypatch)
    unpack_task = receiver.unpack_task

    def unpack_threaded(*given):
        outcome, output = unpack_task(*given)
        outcome.threaded = True
        return outcome, output

    monkeypatch.setattr(receiver, "unpack_task", unpack_threaded)
    parallel_apply(sums, array, **TWO)
    assert [one.threaded for one in paces._known.values()] == [True]


def prepare_to_share(array, monkeypatch):
    """Have the next call shared from its first element on; return its function and its result."""

    def sums(x):  # by value: a worker takes a second to import this module
        return sum(range(20_000)) + x

    worker_pids(**ISOLATED)
    want = parallel_apply(sums, array, **TWO)
    monkeypatch.setattr(inline, "cpu_is_idle", lambda: True)
    monkeypatch.setattr(inline, "is_shared", lambda seconds: True)
    monkeypatch.setattr(sharing, "is_shared", lambda seconds: True)
    monkeypatch.setattr(inline, "COLD_SECONDS", -1.0)
    monkeypatch.setattr(inline, "is_middling", lambda seconds: False)
    return sums, want


def test_a_first_element_that_is_cold_says_nothing_against_the_pace_of_earlier_calls():
    queue = queue_of(np.ones(100))
    queue.expect_pace(1e-6)
    queue.measure(Task(0, 1), 2e-4)
    assert queue.pace == 1e-6
    queue.measure(Task(1, 2), 2e-4)
    assert queue.pace == 2e-4
    queue = queue_of(np.ones(100))
    queue.expect_pace(1e-6)
    queue.measure(Task(0, 1), 1.0)
    assert queue.pace == 1.0


def test_work_is_left_where_the_time_of_elements_is_only_expected():
    """Also if to send them takes time: such calls were shared only after some elements."""
    queue = queue_of(np.ones(100), transfer_seconds=lambda: 0.25)
    queue.expect_pace(1.0)
    assert queue.seconds_left == 75.0


def queue_of(array, **changes):
    call = make_call(np.sum, (array,), settings=resolve({}))
    return TaskQueue(dataclasses.replace(call, **changes), capacity=10)


def first_number(x):
    return float(x[0])


def writes(x):
    x[0] = 1.0
    return float(x[0])


@pytest.mark.parametrize(("f", "copies"), [(first_number, False), (writes, True)])
def test_tasks_of_the_caller_are_as_long_as_their_time_where_it_needs_no_copies(f, copies):
    """One element of 1 MB fits the memory that workers share, and 100 tasks took as long as the function."""
    job = Job(make_call(f, (np.zeros((30, 2**17)),), settings=resolve(TWO)))
    assert job.own_capacity == (1 if copies else 30)
    job.open()
    job.queue.measure(job.queue.next_task(capacity=job.own_capacity), 1e-6)
    assert len(job.queue.next_task(capacity=job.own_capacity)) == (1 if copies else 29)


def test_tasks_of_numbers_are_as_long_as_their_time():
    job = Job(make_call(abs, (np.zeros(10**6),), settings=resolve(TWO)))
    assert job.own_capacity == 10**6


class AnyName:
    """Has an answer to any name, as remote objects have."""

    def __getattr__(self, name):
        if name.startswith(("__reduce", "__get", "__set")):
            raise AttributeError(name)
        return AnyName()

    def __call__(self, x):
        return x


class Unhashable(type):
    def __eq__(cls, other):
        return cls is other


class OfUnhashable(metaclass=Unhashable):
    def __call__(self, x):
        return x


@pytest.mark.parametrize("f", [AnyName(), OfUnhashable()], ids=["any name", "type without a hash"])
def test_paces_of_objects_that_are_unlike_functions(f):
    for _ in range(2):
        assert parallel_map(f, list(range(20)), **TWO) == list(range(20))
