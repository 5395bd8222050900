"""Threads of BLAS: counted, limited for one thread alone, and told from a caller's own threads."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest

from parwise import parallel_apply
from parwise._system.blas import ThreadWatch, is_local, local_threads, with_local_threads

from ..support.functions import slowly

A = np.arange(6.0)


def test_thread_watch_sees_only_foreign_threads():
    watch = ThreadWatch()
    watch.suspicious = True
    deadline = time.monotonic() + 10
    while watch.busy is not False and time.monotonic() < deadline:
        with watch:  # BLAS threads of earlier tests come to rest after some 20 ms
            sum(range(1000))
    assert watch.busy is False
    assert not watch.suspicious


@pytest.mark.parametrize(
    ("state", "slept", "at_work"), [("R (running)", 0, False), ("R (running)", 1, True), ("S (sleeping)", 1, False)]
)
def test_threads_that_spin_since_they_began_are_not_at_work(state, slept, at_work, monkeypatch):
    watch = ThreadWatch()
    thread = threading.get_native_id()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "get_native_id", lambda: -1)
        patch.setattr(threading, "enumerate", list)
        real = watch._activity()[str(thread)]
    told = re.sub(r"State:\t[^ ]+ \([a-z ]+\)", f"State:\t{state}", real)
    told = re.sub(r" voluntary_ctxt_switches:\t\d+", f" voluntary_ctxt_switches:\t{slept}", told)
    monkeypatch.setattr(watch, "_activity", lambda: {"7": told})
    assert watch.at_work() == at_work
    assert watch.running() == ("R" in state)


def test_local_threads_belong_to_the_caller():
    """OpenMP counts threads for each thread by itself."""

    class Library:
        user_api = "openmp"
        filepath = "libfake.so"

        def __init__(self):
            self.numbers = threading.local()

        @property
        def num_threads(self):
            return getattr(self.numbers, "n", 2)

        def set_num_threads(self, number):
            self.numbers.n = number

    from parwise._system import blas

    fake = Library()
    assert is_local(fake)
    before = blas.libraries
    blas.libraries = lambda: [fake]
    try:
        fake.set_num_threads(1)
        assert local_threads() == {"libfake.so": 1}
        seen = parallel_apply(lambda x: (slowly(x), fake.num_threads)[1], A, executor="threads", workers=3)
        assert set(seen.tolist()) == {1}
        with with_local_threads({"libfake.so": 3}):
            assert fake.num_threads == 3
        assert fake.num_threads == 1
        # Of a library that nobody has looked at, only the caller's own thread can tell the number.
        blas._found = (0, [])
        assert local_threads(look=False) is None
    finally:
        blas.libraries = before
