"""The task queue: every element once, in tasks of a suitable length."""

from __future__ import annotations

import numpy as np
import pytest

from parwise._core.indexing import Runs

from ..support.internals import Task, TaskQueue, make_call, resolve


def queue_for(count, **kwargs):
    call = make_call(
        np.sum, (np.zeros(count),), axis=0, args=(), kwargs=None, depth=0, boundary=None, out=None, rng=None,
        settings=resolve({}), **{"vectorized": False, "chunk": None, **kwargs},
    )  # fmt: skip
    return TaskQueue(call, 1000)


def test_queue_hands_out_each_element_once():
    queue = queue_for(50_000)
    first = queue.next_task()
    assert first == Task(0, 1)
    queue.measure(first, 1.0)
    queue.measure(first, 20e-6)
    tasks = [first]
    while (task := queue.next_task(workers=2)) is not None:
        tasks.append(task)
    assert [k for task in tasks for k in range(task.lo, task.hi)] == list(range(50_000))
    assert len(tasks[1]) == 1000
    assert len(tasks[-1]) < 60
    assert queue.empty
    queue.give_back([Task(7, 9), Task(1, 3)])
    assert queue.next_task() == Task(1, 3)
    queue.cut(5)
    assert queue.next_task() is None


def test_queue_of_blocks_knows_no_workers():
    queue = queue_for(10, vectorized=True, chunk=4)
    assert [queue.next_task(seconds=9.0, workers=7) for _ in range(4)] == [Task(0, 4), Task(4, 8), Task(8, 10), None]
    queue = queue_for(10, vectorized=True, chunk=4)
    queue.cut(4)
    assert queue.next_task() == Task(0, 4)
    assert queue.empty


def test_long_tasks_do_not_queue():
    queue = queue_for(10)
    queue.measure(Task(0, 1), 0.4)
    assert not queue.queue_ahead
    queue.measure(Task(1, 2), 1e-5)
    assert queue.queue_ahead


def test_last_tasks_and_first_ones_meet():
    """From both ends each element once; the first one is for whoever takes the first tasks."""
    queue = queue_for(500)
    queue.measure(Task(0, 1), 1e-3)
    taken = [queue.next_task(last=bool(k % 3), workers=2) for k in range(9)]
    assert taken[0] == Task(0, 1)
    assert taken[1].hi == 500
    while (task := queue.next_task(last=True)) is not None:
        taken.append(task)
    assert queue.empty
    assert sorted(k for task in taken for k in range(task.lo, task.hi)) == list(range(500))


def test_first_element_is_never_the_last_task():
    assert queue_for(1).next_task(last=True) is None
    queue = queue_for(10, vectorized=True, chunk=4)
    assert [queue.next_task(last=True) for _ in range(3)] == [Task(8, 10), Task(4, 8), None]
    assert queue.next_task() == Task(0, 4)


def test_last_tasks_end_with_runs():
    """A copied run must not go on where the address of an element no longer follows its step."""
    queue = queue_for(100)
    queue._run_end = 7
    queue.measure(Task(0, 1), 1e-9)
    while (task := queue.next_task(last=True)) is not None:
        assert task.lo // 7 == (task.hi - 1) // 7


def test_a_task_that_was_taken_back_is_handed_out_in_parts():
    queue = queue_for(100)
    queue.measure(Task(0, 1), 1e-3)
    while queue.next_task() is not None:
        pass
    queue.resume(Task(40, 60))
    assert queue.next_task(seconds=5e-3) == Task(40, 45)
    assert queue.next_task(seconds=5e-3, last=True) == Task(55, 60)
    queue.cut(50)
    queue.resume(Task(70, 80))  # behind an error
    assert queue.empty


def test_lost_tasks_are_for_workers():
    queue = queue_for(10)
    while queue.next_task() is not None:
        pass
    queue.lose([Task(3, 4)])
    assert queue.next_task() is None
    assert not queue.empty
    assert queue.next_task(lost=True) == Task(3, 4)
    assert queue.is_for_workers(Task(3, 4))
    assert not queue.is_for_workers(Task(4, 5))


def test_tasks_near_the_end_are_longer_with_many_workers():
    for workers, length in ((2, 1), (5, 1), (64, 21)):
        queue = queue_for(40)
        queue.measure(Task(0, 1), 1e-3)
        queue.next_task()
        assert len(queue.next_task(workers=workers)) == max(length, 39 // (2 * workers))


@pytest.mark.parametrize(("hand_over", "length"), [(2e-4, 43), (1.0, 64)])  # copies of results are no hand-over
def test_tasks_near_the_end_are_as_long_as_the_caller_needs_to_hand_them_over(hand_over, length):
    queue = queue_for(200)
    queue.measure(Task(0, 1), 1e-3)
    queue.next_task()
    queue.length.measure_hand_over(hand_over)
    assert len(queue.next_task(workers=64)) == length
    queue.length.measure_hand_over(1e-6)
    assert len(queue.next_task(workers=64)) == 1


def test_many_workers_hold_two_tasks_each_and_less_than_all_that_is_left():
    queue = queue_for(12_800)
    queue.measure(Task(0, 1), 1e-3)
    queue.next_task()
    taken = sum(len(queue.next_task(workers=64)) for _ in range(2 * 64))
    assert 0.4 * 12_800 < taken < 0.55 * 12_800


def test_tasks_take_whole_chunks():
    call = make_call(np.sum, (np.ones((43, 2)),), settings=resolve({}))
    queue = TaskQueue(call, 2)
    queue.align(Runs(43, (*range(4, 43, 4), 43)), 9)
    tasks = [queue.next_task(seconds=1.0)]
    queue.measure(tasks[0], 1e-9)
    while (task := queue.next_task(seconds=1.0)) is not None:
        tasks.append(task)
    bounds = [(task.lo, task.hi) for task in tasks]
    # The first chunk by the caller, in tasks of its size; then whole ones, of at most nine elements if possible.
    assert bounds[:4] == [(0, 1), (1, 3), (3, 4), (4, 12)]
    assert bounds[-1] == (36, 43)
    queue.give_back(tasks[3:4])
    assert queue.next_task() == tasks[3]  # not in parts
    queue.give_back(tasks[3:4])
    queue.align(None, 0)
    assert len(queue.next_task()) == 2
