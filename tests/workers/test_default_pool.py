"""The pool that all calls share: a generator holds it until it ends, other calls take another one."""

from __future__ import annotations

import os
import threading

import numpy as np

from parwise import parallel_apply, parallel_imap, parallel_map
from parwise._workers.pool import default_pool as shared
from parwise._workers.pool import forked_pool

from ..support.internals import default_pool


def test_other_calls_in_the_loop():
    """Calls inside the loop take workers of their own, since the loop's are busy."""
    rows = np.random.default_rng(0).random((50, 30))
    found = []
    for k in parallel_imap(lambda k: k, range(30), workers=2, isolate=True):
        if k % 10 == 0:
            found.append(parallel_apply(np.sort, rows, workers=2, isolate=True).tobytes())
            found.append(len(list(parallel_imap(abs, range(5), workers=2, isolate=True))))
    assert found == [np.sort(rows).tobytes(), 5] * 3


def test_workers_are_used_again():
    """The next call of any kind uses the same workers, and none remain."""

    pool = default_pool()
    before = {worker.pid for worker in pool.workers}
    assert set(parallel_imap(lambda k: os.getpid(), range(50), workers=3, isolate=True)) <= before
    assert default_pool() is pool
    assert {worker.pid for worker in pool.workers} == before


def test_generator_that_is_left_alone():
    """A suspended generator holds its workers, other calls take others, and its deletion returns them."""
    results = parallel_imap(lambda k: k, range(30), workers=2, isolate=True)
    next(results)
    mine = shared._default
    assert list(parallel_map(lambda k: k, range(30), workers=2, isolate=True)) == list(range(30))
    other = default_pool()
    assert mine is not other
    del results
    assert default_pool() is other
    other.stop()  # the one more fork server that this test made
    shared._default = None


def test_pool_that_is_put_back_while_another_one_is_made(monkeypatch):
    """The garbage collector may delete a generator at any line, in the same thread."""
    pool = default_pool()
    made = []

    class Made(forked_pool.ForkedPool):
        def __init__(self, **given):
            super().__init__(**given)
            made.append(self)
            shared.put_back(pool)

    with monkeypatch.context() as patch:
        patch.setattr(forked_pool, "ForkedPool", Made)
        patch.setattr(shared, "_default", None)
        assert default_pool() is pool
    assert len(made) == 1
    assert default_pool() is pool


def test_thread_that_holds_the_usual_workers():
    """A generator takes different workers then."""
    holding, done = threading.Event(), threading.Event()
    pool = default_pool()

    def hold():
        with pool.lock:
            holding.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(60)
    try:
        assert list(parallel_imap(abs, range(30), workers=2, isolate=True)) == list(range(30))
    finally:
        done.set()
        thread.join()
    assert default_pool() is pool
