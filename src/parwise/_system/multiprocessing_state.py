"""What children of multiprocessing inherit: the key of its connections, and the process that tracks its resources."""

from __future__ import annotations

import os
import sys
from typing import Any


def read_authkey() -> bytes | None:
    """Key of this process, with which proxies of a Manager connect; None if multiprocessing is not imported."""
    process = sys.modules.get("multiprocessing.process")
    return None if process is None else bytes(process.current_process().authkey)


def set_authkey(key: bytes | None) -> None:
    """Set the key of this process; None changes nothing."""
    if key is not None:
        from multiprocessing.process import current_process

        current_process().authkey = key


def tracker_fd() -> int | None:
    """Descriptor of the resource tracker, which is started if this process may come to need it; None if not.

    With a tracker of its own a worker would unlink, at its end, all shared
    memory that its function has attached to by name (bpo-38119).
    """
    module = sys.modules.get("multiprocessing.resource_tracker")
    if module is None:
        return None
    if "multiprocessing.shared_memory" in sys.modules:
        started: int = module.getfd()
        return started
    running: int | None = module._resource_tracker._fd
    return running


def use_tracker(fd: int) -> None:
    """Use the caller's resource tracker in this process."""
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    if tracker._fd is not None and tracker._pid is None:
        os.close(tracker._fd)
    # A tracker of this process's own goes on: it would unlink what it tracks as soon as it is closed.
    tracker._fd, tracker._pid = fd, None
