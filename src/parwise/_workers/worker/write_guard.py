"""Keeps a function from files while it is tried on values that are not the user's."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

#: What Python tells, by `sys.audit`, before it changes files, starts programs, or speaks to others.
CHANGES = frozenset(
    {
        *(f"os.{name}" for name in ("remove", "rename", "mkdir", "rmdir", "truncate", "link", "symlink", "chmod")),
        *(f"os.{name}" for name in ("system", "exec", "posix_spawn", "startfile")),
        *("subprocess.Popen", "socket.connect", "socket.sendto", "sqlite3.connect"),
    }
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# The thread that may change nothing now. Others may be at work for the user.
_guarded: int | None = None


def without_writing(method: Callable[..., None]) -> Callable[..., None]:
    """Have all that changes files raise a PermissionError in the calling thread, as long as a method runs.

    Not what was opened before, nor what libraries in C open themselves, as HDF5 does: Python is not told of these.
    """

    @functools.wraps(method)
    def guarded(*args: Any) -> None:
        global _guarded
        _install()
        _guarded = threading.get_ident()
        try:
            method(*args)
        finally:
            _guarded = None

    return guarded


@functools.cache
def _install() -> None:
    """Hear of what Python does, from now on: such a hook cannot be taken away."""
    sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if _guarded is None or threading.get_ident() != _guarded:
        return
    if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
        raise PermissionError(f"{event}: a block function is being tried on other values than the user's")
