"""The task queue: every element once, in tasks of a suitable length."""

from __future__ import annotations

import numpy as np

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
