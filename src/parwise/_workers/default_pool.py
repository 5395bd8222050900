"""The worker processes of this process: one pool for all of its calls."""

from __future__ import annotations

import os
import threading

from .worker_pool import WorkerPool

_default: WorkerPool | None = None
# Reentrant: the collector may end a generator, which puts its pool back, while it is held.
_default_lock = threading.RLock()


def default_pool() -> WorkerPool:
    """The pool of this process; a forked child gets one of its own."""
    global _default
    with _default_lock:
        pool = _default
        if pool is not None and not pool.owned_by_parent:
            return pool
    fresh = WorkerPool()
    with _default_lock:
        # Not if another one came meanwhile.
        if _default is pool:
            _default = fresh
        return _default or fresh


def take_pool() -> WorkerPool:
    """A pool for a call of unknown length: that of this process if it is free, which gets another one at need."""
    global _default
    with _default_lock:
        pool, _default = _default, None
        if pool is not None and not pool.owned_by_parent:
            if not pool.lock.locked():
                return pool
            _default = pool
    return WorkerPool()


def put_back(pool: WorkerPool) -> None:
    """Have the pool of such a call serve others, unless there is another one by now."""
    global _default
    with _default_lock:
        if _default is None:
            _default = pool
            return
    pool.stop()


def known_pool() -> WorkerPool | None:
    """The pool of this process, if it has one already."""
    pool = _default
    return None if pool is None or pool.owned_by_parent else pool


def _forget_lock_in_child() -> None:
    # Another thread of the parent may have held it when the fork came.
    global _default_lock
    _default_lock = threading.RLock()


os.register_at_fork(after_in_child=_forget_lock_in_child)
