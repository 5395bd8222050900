"""What forked workers need of Linux, and whether this system has it."""

from __future__ import annotations

import errno
import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from ..._core.options.defaults import PORTABLE, defaults
from ..._system.interpreter import close, select
from .. import descriptors

# Functions without which there is no trying.
_FUNCTIONS: dict[Any, tuple[str, ...]] = {
    os: ("fork", "posix_spawn", "setpgid", "killpg", "waitid", "memfd_create", "pidfd_open", "eventfd"),
    signal: ("pidfd_send_signal",),
    select: ("epoll", "poll"),
}
# Each returns a descriptor or several.
_CALLS: dict[str, Callable[[], Any]] = {
    "socketpair of packets": descriptors.open_sockets,
    "memfd_create": descriptors.open_memory,
    "pidfd_open": lambda: descriptors.open_process(os.getpid()),
    "eventfd": descriptors.open_event,
}
# What an old kernel or a sandbox says; too many descriptors, for one, is no reason to have other workers.
_REFUSALS = (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


@functools.cache
def missing_primitive() -> str | None:
    """What of all that is not there, or is refused; None if nothing is. Tried once: it takes 0.1 ms."""
    for module, names in _FUNCTIONS.items():
        for name in names:
            if not hasattr(module, name):
                return f"this system has no {name}"
    for name, call in _CALLS.items():
        try:
            found = call()
        except (OSError, AttributeError) as error:
            if isinstance(error, AttributeError) or error.errno in _REFUSALS:
                return f"{name} is not to be had here ({error})"
        else:
            for fd in found if isinstance(found, tuple) else [found]:
                close(fd)
    if not os.path.isdir("/proc/self/fd"):
        return "/proc is not mounted"
    return None


def why_portable() -> str | None:
    """Why workers are portable ones here; None if they are forked from a fork server."""
    if defaults().portable:
        return f"PARWISE_WORKERS={os.environ.get('PARWISE_WORKERS', PORTABLE)}"
    return missing_primitive()
