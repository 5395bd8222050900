"""Snapshots: copies in this process, of the caller's own classes."""

from __future__ import annotations

import contextlib
import copyreg
import multiprocessing
import os
import socket
import threading
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

from ..support.internals import Snapshot
from ..support.oracle import assert_same


def restored(obj):
    return Snapshot(obj).restore()


def test_changes_after_it_are_not_seen():
    rows = {"x": [1], "y": np.arange(12.0).reshape(3, 4)[:, ::2]}
    snapshot = Snapshot(rows)
    rows["x"].append(2)
    rows["y"] += 1
    for _ in range(2):
        got = snapshot.restore()
        assert got["x"] == [1]
        assert_same(got["y"], np.arange(12.0).reshape(3, 4)[:, ::2])
        assert got["y"].strides == rows["y"].strides
        got["x"].append(3)


def test_classes_and_functions_are_the_same():
    class Local:
        count = 0

    def function():
        return Local

    got = restored([Local(), Local, function])
    assert (type(got[0]), *got[1:]) == (Local, Local, function)


def test_a_snapshot_within_another_one():
    """What one refers to is not lost while another one is restored."""

    class Outer:
        pass

    class Inner:
        pass

    class Restores:
        def __setstate__(self, state):
            self.inner = Snapshot(Inner).restore()

        def __getstate__(self):
            return 1

    first, second, third = restored([Outer, Restores(), Outer])
    assert (first, second.inner, third) == (Outer, Inner, Outer)


def test_threads_do_not_mix_them_up():
    kinds = [type(f"Kind{k}", (), {}) for k in range(4)]
    wrong = []

    def work(kind):
        snapshot = Snapshot([kind] * 50)
        wrong.extend(one for _ in range(200) for one in snapshot.restore() if one is not kind)

    threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_has_no_copy_is_itself():
    with contextlib.ExitStack() as stack:
        ends = multiprocessing.Pipe()
        near, far = map(stack.enter_context, ends)
        pair = [stack.enter_context(one) for one in socket.socketpair()]
        file = stack.enter_context(open(os.devnull, "w"))
        objects = [near, far, *pair, file]
        assert all(one is other for one, other in zip(restored(objects), objects, strict=True))


def test_memory_is_copied():
    data = bytearray(b"abc")
    snapshot = Snapshot(memoryview(data))
    data[:] = b"xyz"
    assert bytes(snapshot.restore()) == b"abc"


class Tensor:
    """An object that a library lets processes share, as PyTorch does."""

    def __init__(self, value):
        self.value = value

    def __reduce_ex__(self, protocol):
        return Tensor, (self.value,)


@pytest.fixture
def _shared_tensors():
    ForkingPickler.register(Tensor, lambda one: (copyreg.__newobj__, (Tensor,)))
    yield
    del ForkingPickler._extra_reducers[Tensor]


@pytest.mark.usefixtures("_shared_tensors")
def test_objects_that_processes_could_share_are_copied():
    tensor = Tensor(1)
    snapshot = Snapshot(tensor)
    tensor.value = 2
    assert snapshot.restore().value == 1
