"""How functions, arguments and results travel to worker processes and back."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from parwise import parallel_apply
from parwise._executors.processes import dispatcher
from parwise._executors.processes import runner as processes
from parwise._workers import shared_memory
from parwise._workers.pickling import payload
from parwise._workers.pool.forked_pool import ForkedPool
from parwise._workers.portable.pool import PortablePool
from parwise._workers.shared_memory import Slots, segment_bytes

from ..conftest import made as others
from ..support.functions import ISOLATED, worker_pids
from ..support.oracle import assert_same, loop


def test_large_closure_travels_once_per_worker(monkeypatch):
    sent = []
    give = dispatcher.Dispatcher._send_task
    monkeypatch.setattr(
        dispatcher.Dispatcher,
        "_send_task",
        lambda self, worker, task, handshake=False: (sent.append(task), give(self, worker, task, handshake))[1],
    )
    big = np.random.default_rng(0).standard_normal(2_000_000)
    files = []
    create = payload.create_fd
    monkeypatch.setattr(payload, "create_fd", lambda nbytes: (files.append(nbytes), create(nbytes))[1])
    got = parallel_apply(lambda x: x * big[-1] + big[0], np.arange(300.0), **ISOLATED)
    assert_same(got, loop(lambda x: x * big[-1] + big[0], np.arange(300.0)))
    assert len(sent) > 3
    assert len(files) == 1
    assert big.nbytes < files[0] < big.nbytes + 40_000  # and the environment


def test_workers_write_to_their_own_copy_of_a_closure():
    big = np.zeros(200_000)

    def f(x):
        big[0] += 1
        return float(x)

    parallel_apply(f, np.arange(50.0), **ISOLATED, verify=False)
    assert big[0] == 0
    fixed = np.zeros(200_000)
    fixed.flags.writeable = False
    assert not parallel_apply(lambda x: fixed.flags.writeable, np.arange(3), **ISOLATED).any()


@pytest.mark.parametrize("rows", [2, 7])
def test_elements_and_results_larger_than_a_slot(rows):
    a = np.random.default_rng(1).standard_normal((rows, 400_000))
    assert_same(parallel_apply(np.sort, a, **ISOLATED), np.sort(a, axis=1))
    assert_same(parallel_apply(lambda x: np.tile(x, 2), a, **ISOLATED), np.tile(a, (1, 2)))
    assert_same(parallel_apply(np.sum, np.asfortranarray(a), **ISOLATED), loop(np.sum, np.asfortranarray(a)))
    got = parallel_apply(lambda x: {"x": x.tolist()}, a[:, :150_000], **ISOLATED)
    assert got[1] == {"x": a[1, :150_000].tolist()}


def test_many_columns_and_long_messages():
    def f(x):
        return tuple(np.full(3, x + k) for k in range(1500))

    got = parallel_apply(f, np.arange(6.0), **ISOLATED)
    assert len(got) == 1500
    assert_same(got[1499], np.repeat(np.arange(6.0)[:, None] + 1499, 3, axis=1))
    wide = np.dtype([(f"field_{k}", "f8") for k in range(5000)])
    assert parallel_apply(lambda x: np.full((), x, wide), np.arange(4.0), **ISOLATED)["field_4999"].tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_function_that_keeps_its_argument():
    kept = []

    def f(x):
        kept.append(x)
        return sum(float(one.sum()) for one in kept[-2:]) - (float(kept[-2].sum()) if len(kept) > 1 else 0.0)

    a = np.random.default_rng(2).integers(0, 1000, (3000, 100)).astype(float)
    assert_same(parallel_apply(f, a, **ISOLATED), a.sum(axis=1))


def test_function_that_keeps_only_its_first_argument():
    """One view of a task is the least that a worker has to notice."""
    kept = []

    def f(x):
        if not kept:
            kept.append(x)
        time.sleep(0.001)  # so that there are many tasks
        return kept[0]

    # A row is a page: each task lies where the first one did.
    a = np.arange(200.0 * 512).reshape(200, 512)
    assert_same(parallel_apply(f, a, isolate=True, workers=1), np.broadcast_to(a[0], a.shape))


def test_function_that_cannot_travel():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to a worker process.*lock"):
        parallel_apply(lambda x: lock.locked(), np.arange(5), **ISOLATED)
    assert len(worker_pids(**ISOLATED)) == 2


def test_function_that_cannot_be_loaded():
    class Bad:
        def __init__(self, text="cannot be made there"):
            self.text = text

        def __reduce__(self):
            return (int, (self.text,))

        def __call__(self, x):
            return x

    with pytest.raises(ValueError, match="cannot be made there") as caught:
        parallel_apply(Bad(), np.arange(5), **ISOLATED)
    assert "loading the function" in caught.value.__notes__[0]
    assert len(worker_pids(**ISOLATED)) == 2


def test_result_that_cannot_be_pickled():
    with pytest.raises(TypeError, match="lock"):
        parallel_apply(lambda x: threading.Lock(), np.arange(5), **ISOLATED)


@pytest.mark.parametrize("kind", [ForkedPool, PortablePool])
def test_slots_of_any_size(monkeypatch, kind, request):
    """Both kinds of workers do the same work."""
    if kind is PortablePool:
        others.append("resource tracker")  # a process that multiprocessing keeps for shared memory
    small_pool = kind(slot_bytes=8192)
    request.addfinalizer(small_pool.stop)
    monkeypatch.setattr(processes, "default_pool", lambda: small_pool)
    big = np.random.default_rng(0).standard_normal(10_000)
    for shape in ((40, 3), (5, 700), (3, 5000)):
        a = np.random.default_rng(0).standard_normal(shape)
        got = parallel_apply(lambda x: np.append(x, big[5]), a, **ISOLATED)
        assert_same(got, loop(lambda x: np.append(x, big[5]), a))


def test_segment_is_sealed_and_left_alone():
    fd = shared_memory.create_fd(segment_bytes(4096))
    try:
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 1)
        ours, theirs = Slots(fd, 4096), Slots(fd, 4096)
        ours.inputs[1][:3] = b"abc"
        view = np.frombuffer(theirs.inputs[1], np.uint8)
        theirs.leave_input(1)
        ours.inputs[1][:3] = b"xyz"
        assert view[:3].tobytes() == b"abc"
        assert bytes(theirs.inputs[1][:3]) == b"xyz"
    finally:
        os.close(fd)


def test_large_argument_and_empty_results():
    """Results without bytes arrive, although they need no chunk."""
    a = np.ones((6, 300_000))
    assert parallel_apply(lambda x: x[:0], a, **ISOLATED).shape == (6, 0)
    assert parallel_apply(lambda x: (x[:0], x[:0]), a, **ISOLATED)[1].shape == (6, 0)


def test_many_small_arrays_in_arguments():
    many = [np.full(3, k) for k in range(20_000)]
    assert parallel_apply(lambda x, m: m[int(x)][0], np.arange(7), args=(many,), **ISOLATED).tolist() == list(range(7))
    assert len(parallel_apply(lambda x: tuple(range(20_000)), np.arange(3), **ISOLATED)) == 20_000


def test_result_that_cannot_be_pickled_is_blamed_on_its_own_element():
    def f(x):
        if x == 20:
            time.sleep(0.2)
            raise ValueError("twenty")
        return (k for k in ()) if x == 50 else x

    with pytest.raises(ValueError, match="twenty"):
        parallel_apply(f, np.arange(60), **ISOLATED)


def test_element_that_cannot_be_unpickled():
    class Mine:
        def __reduce__(self):
            return (int, ("not a number",))

    a = np.array([Mine() for _ in range(4)], dtype=object)
    with pytest.raises(ValueError, match="not a number"):
        parallel_apply(lambda x: 1, a, **ISOLATED)


@pytest.mark.parametrize("how", [{"isolate": True}, {}])
def test_dtypes_that_hold_types_of_ones_own(how):
    class CallRecord(np.record):
        pass

    dtypes = [np.dtype((CallRecord, [("a", "f8"), ("b", "i4")])), np.dtype("f8", metadata={"unit": CallRecord})]

    for dtype in dtypes:

        def f(x, dtype=dtype):
            time.sleep(0.002)
            return np.zeros(3, dtype)

        got = parallel_apply(f, np.arange(40.0), workers=2, **how)
        assert got.dtype == dtype
        assert got.dtype.type is dtype.type
        assert got.tobytes() == bytes(40 * 3 * dtype.itemsize)
