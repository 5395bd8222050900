"""Fixtures for worker processes."""

from __future__ import annotations

import pytest

from ..support.internals import WorkerPool


@pytest.fixture
def small_pool():
    pool = WorkerPool(slot_bytes=8192)
    yield pool
    pool.stop()
