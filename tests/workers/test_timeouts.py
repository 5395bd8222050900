"""`timeout`: an element that takes too long ends its worker, and nothing else."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from parwise import ElementTimeoutError, parallel_apply

from ..support.faults import N, Once, assert_next_call_is_right, throw
from ..support.oracle import assert_same


@pytest.mark.parametrize(
    "stick",
    [lambda: ctypes.PyDLL(None).sleep(60), lambda: time.sleep(60), lambda: [None for _ in iter(int, 1)]],
    ids=["in C with the GIL", "asleep", "in Python"],
)
def test_timeout(stick):
    def f(x):
        if x == 7:
            stick()
        return x

    with pytest.raises(ElementTimeoutError, match=r"more than timeout=1 s in element 7 along axis 0") as caught:
        parallel_apply(f, np.arange(N), workers=2, timeout=1.0)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.index == 7
    assert "in f" in caught.value.stack
    assert "innermost call first" in caught.value.__notes__[0]
    assert_next_call_is_right()


def test_timeout_is_of_each_element_not_of_all():
    assert_same(
        parallel_apply(lambda x: (time.sleep(0.04), x)[1], np.arange(60), workers=2, timeout=1.0), np.arange(60)
    )
    assert os.getpid() not in parallel_apply(lambda x: os.getpid(), np.arange(5), timeout=5.0)
    assert os.getpid() not in parallel_apply(lambda x: os.getpid(), np.arange(5), timeout=5.0, workers=1)


def test_timeout_of_a_function_that_ignores_sigterm():
    def f(x):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    with pytest.raises(ElementTimeoutError):
        parallel_apply(f, np.arange(3), workers=2, timeout=0.05)
    assert_next_call_is_right()


@pytest.mark.parametrize("own_session", [False, True])
def test_timeout_ends_what_the_function_started(own_session, tmp_path):
    pid_file = tmp_path / "pid"

    def f(x):
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=own_session)
        (pid_file.with_suffix(".tmp")).write_text(str(child.pid))
        pid_file.with_suffix(".tmp").rename(pid_file)
        child.wait()

    with pytest.raises(ElementTimeoutError):
        parallel_apply(f, np.arange(1), workers=1, timeout=1.0)
    assert_ends(int(pid_file.read_text()))


def assert_ends(pid):
    """Wait until a process that is not a child of this one has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        os.sched_yield()
    raise AssertionError(f"process {pid} is still there")


def test_timeout_and_retries(tmp_path):
    a = np.arange(30.0)
    got = parallel_apply(Once(tmp_path, lambda: time.sleep(60), every=15), a, workers=2, timeout=1.0, retries=1)
    assert_same(got, a * 2.5)
    with pytest.raises(ElementTimeoutError) as caught:
        parallel_apply(lambda x: time.sleep(60 * (x == 3)), np.arange(9), workers=2, timeout=1.0, retries=1)
    assert caught.value.index == 3


def test_timeout_of_a_block():
    with pytest.raises(ElementTimeoutError, match="in block 10:15 along axis 0") as caught:
        parallel_apply(
            lambda b: (time.sleep(60 * (b[0] == 10)), b)[1], np.arange(20), vectorized=True, chunk=5, timeout=1.0
        )
    assert caught.value.index == 10


def test_late_element_that_ends_after_all():
    """An overdue element ignores the signal and ends before it is killed, or raises."""

    def slow(x):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1.2 if x == 0 else 0.0)
        return x

    def raising(x):
        signal.signal(signal.SIGTERM, lambda *_: throw(RuntimeError))
        time.sleep(60.0 if x == 0 else 0.0)
        return x

    named = []
    for f in (slow, raising):
        for workers, count in ((1, 1), (2, 40)):
            a = np.arange(float(count))
            try:
                assert_same(parallel_apply(f, a, timeout=1.0, workers=workers), a)
            except (ElementTimeoutError, RuntimeError) as error:
                named.append(f"{error} {error.__notes__}")
    assert all("in element 0 along axis 0" in one for one in named)
    assert_next_call_is_right()
