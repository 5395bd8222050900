"""Fixtures for worker processes."""

from __future__ import annotations

import pytest

from parwise._workers.worker_pool import WorkerPool


@pytest.fixture
def small_pool():
    pool = WorkerPool(slot_bytes=8192)
    yield pool
    pool.stop()
