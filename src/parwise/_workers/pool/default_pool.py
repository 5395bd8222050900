"""The worker pool that all calls of this process share."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from ..._system.interpreter import DeferredInterrupt

if TYPE_CHECKING:
    from ..pickling.payload import Payload
    from .worker_pool import WorkerPool

_default: WorkerPool | None = None
# Reentrant: a garbage collection while it is held may close a generator, which puts its pool back.
_default_lock = threading.RLock()


def default_pool() -> WorkerPool:
    """The default pool, made when first needed; a forked child makes its own."""
    global _default
    with _default_lock:
        pool = _default
        if pool is not None and not pool.owned_by_parent:
            return pool
    fresh = new_pool()
    with _default_lock:
        # Another thread may have made one meanwhile.
        if _default is pool:
            _default = fresh
        return _default or fresh


def take_pool() -> WorkerPool:
    """Take a pool for a call of unknown length: the default pool if it is free, else a new one.

    While the default pool is taken, other calls make a new default pool.
    """
    global _default
    with _default_lock:
        pool, _default = _default, None
        if pool is not None and not pool.owned_by_parent:
            if not pool.lock.locked():
                return pool
            _default = pool
    return new_pool()


def new_pool(
    variables: dict[str, str] | None = None, initializer: Payload | None = None, finalizes: bool = False
) -> WorkerPool:
    """A pool of the workers that this system can have; arguments as of `WorkerPool`.

    With `finalizes`, its workers call the finalizer that came with their initializer before they end.
    """
    # Ctrl-C as Python takes the lock of all imports leaves it taken: each first import of another thread then hangs.
    with DeferredInterrupt():
        kind = _pool_class(finalizes)
    return kind(variables=variables, initializer=initializer)


def _pool_class(finalizes: bool) -> type[WorkerPool]:
    # No sooner: most calls are too small for workers, and this takes 6 ms.
    from .primitives import why_portable

    kind: type[WorkerPool]
    if why_portable() is not None:
        from ..portable.pool import PortablePool

        kind = PortablePool
    else:
        from .forked_pool import ForkedPool

        kind = ForkedPool
    if finalizes:
        from .finalized_pool import FinalizedPool

        kind = type(f"Finalized{kind.__name__}", (FinalizedPool, kind), {})
    return kind


def put_back(pool: WorkerPool) -> None:
    """Make a pool the default pool again, or stop it if there is another one by now."""
    global _default
    with _default_lock:
        if _default is None:
            _default = pool
            return
    pool.stop()


def known_pool() -> WorkerPool | None:
    """The default pool, if this process has made one."""
    pool = _default
    return None if pool is None or pool.owned_by_parent else pool


def _forget_lock_in_child() -> None:
    # Another thread of the parent may have held it during the fork.
    global _default_lock
    _default_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock_in_child)
