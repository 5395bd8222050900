"""The parts that have rules of their own: splitting, CPUs, placing, planning."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parwise._core.arguments import make_call
from parwise._core.call import result_axes
from parwise._core.indexing import Task, block_bounds, block_length, boxes
from parwise._core.layout import Layout, element_layout, offsets_for
from parwise._core.options import resolve
from parwise._core.results import Results, Stack, pack_column, same_results
from parwise._executors.task_queue import TaskQueue
from parwise._system import limits
from parwise._system.blas import ThreadWatch


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_boxes_cover_a_range_in_order(shape, data):
    grid = np.arange(np.prod(shape)).reshape(shape)
    lo = data.draw(st.integers(0, grid.size))
    hi = data.draw(st.integers(lo, grid.size))
    parts = [(grid[index].ravel(), count) for index, count in boxes(lo, hi, tuple(shape)) if hi > lo]
    assert all(len(part) == count for part, count in parts)
    assert [k for part, _ in parts for k in part] == list(range(lo, hi))
    assert len(parts) <= 2 * len(shape) - 1


@given(st.integers(0, 300), st.integers(1, 40))
def test_block_bounds(count, length):
    bounds = block_bounds(count, length)
    assert [k for lo, hi in bounds for k in range(lo, hi)] == list(range(count))
    sizes = [hi - lo for lo, hi in bounds]
    if length > 1 and len(bounds) > 1:
        assert min(sizes) > 1
    assert max(sizes) <= length + 1


@given(st.integers(0, 10**7), st.integers(0, 10**9))
def test_block_length_depends_on_the_array_alone(count, row_bytes):
    length = block_length(count, row_bytes)
    assert length % 192 == 0 or (length >= 2 and 192 * row_bytes > 64 * 2**20)


def test_result_places():
    assert result_axes((0,), 1) == (0,)
    assert result_axes((2,), 2) == (1,)
    assert result_axes((-1,), 3) == (2,)
    assert result_axes((-3,), 1) == (0,)
    assert result_axes((2, 1), 2) == (1, 0)
    assert result_axes((-2, -1), 4) == (2, 3)
    assert result_axes((-4, -1), 2) == (0, 1)


def test_cpu_quota_of_both_cgroup_versions(tmp_path):
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (tmp_path / "member").write_text("0::/a/b\n")
    assert list(limits._quotas(tmp_path, tmp_path / "member")) == []
    (group / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    assert list(limits._quotas(tmp_path, tmp_path / "member")) == [1.5]
    first = tmp_path / "cpu,cpuacct" / "x"
    first.mkdir(parents=True)
    (tmp_path / "member").write_text("4:cpu,cpuacct:/x\n2:memory:/x\n")
    (first / "cpu.cfs_quota_us").write_text("-1\n")
    (first / "cpu.cfs_period_us").write_text("100000\n")
    assert list(limits._quotas(tmp_path, tmp_path / "member")) == []
    (first / "cpu.cfs_quota_us").write_text("250000\n")
    assert list(limits._quotas(tmp_path, tmp_path / "member")) == [2.5]
    assert list(limits._quotas(tmp_path, tmp_path / "missing")) == []
    assert limits.cpu_count() >= 1


def test_fortran_rows_are_copied_in_long_runs():
    """The mapped axis stays inside: a transposing copy is several times slower."""
    like = Layout("ndarray", np.dtype("f8"), True, (300,), (8 * 1000,))
    layout = element_layout(like, 8, 50)
    assert layout.strides[0] == 8
    assert layout.strides[1] >= 8 * 50
    single = element_layout(like, 8, 1)
    assert single.strides[1] != 8
    assert offsets_for([layout], [123 * 8])[0][0] % 4096 == 123 * 8


def plan_for(count, **kwargs):
    call = make_call(
        np.sum, (np.zeros(count),), axis=0, args=(), kwargs=None, depth=0, boundary=None, out=None, rng=None,
        settings=resolve({}), **{"vectorized": False, "chunk": None, **kwargs},
    )  # fmt: skip
    return TaskQueue(call, 1000)


def test_plan_hands_out_each_element_once():
    queue = plan_for(50_000)
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


def test_plan_of_blocks_knows_no_workers():
    queue = plan_for(10, vectorized=True, chunk=4)
    assert [queue.next_task(seconds=9.0, workers=7) for _ in range(4)] == [Task(0, 4), Task(4, 8), Task(8, 10), None]
    queue = plan_for(10, vectorized=True, chunk=4)
    queue.cut(4)
    assert queue.next_task() == Task(0, 4)
    assert queue.empty


def test_long_tasks_do_not_queue():
    queue = plan_for(10)
    queue.measure(Task(0, 1), 0.4)
    assert not queue.queue_ahead
    queue.measure(Task(1, 2), 1e-5)
    assert queue.queue_ahead


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ([1.0, 2.0], float),
        ([1, 2], int),
        ([True, False], bool),
        ([np.float32(1)], np.float32),
        ([np.zeros(2)], np.ndarray),
    ],
)
def test_results_of_one_kind_are_stacked(raw, kind):
    column = pack_column(raw)
    assert isinstance(column, Stack)
    assert column.kind is kind
    assert list(map(type, column.unstack())) == list(map(type, raw))


@pytest.mark.parametrize(
    "raw",
    [[1, 2.0], [2**63], ["a", "b"], [None], [np.zeros(2), np.zeros(3)], [np.datetime64(1, "s"), np.datetime64(1, "D")]],
)
def test_other_results_wait_for_the_rest(raw):
    assert pack_column(raw) is raw


def test_same_results_is_about_bits():
    def results(*values):
        return Results([pack_column(list(values))])

    assert same_results(results(np.nan), results(np.nan))
    assert not same_results(results(0.0), results(-0.0))
    assert not same_results(results(1), results(1.0))
    assert not same_results(results(np.float32(1)), results(np.float64(1)))
    assert same_results(results({"a": [np.zeros(2)]}), results({"a": [np.zeros(2)]}))
    assert not same_results(results({"a": [np.zeros(2)]}), results({"a": [-np.zeros(2)]}))
    assert same_results(results(object()), results(object()))
    assert same_results(results(np.longdouble(1) / 3), results(np.longdouble(1) / 3))
    padded = np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 8], "itemsize": 16})
    one, other = np.zeros(3, padded), np.frombuffer(b"\xff" * 48, padded).copy()
    other["a"], other["b"] = 0, 0
    assert same_results(results(one), results(other))


def test_thread_watch_sees_only_foreign_threads():
    watch = ThreadWatch()
    watch.suspicious = True
    deadline = time.monotonic() + 10
    while watch.busy is not False and time.monotonic() < deadline:
        with watch:  # BLAS threads of earlier tests come to rest after some 20 ms
            sum(range(1000))
    assert watch.busy is False
    assert not watch.suspicious
