"""What this system has, by the same names on each.

`unix` or `windows`, by what can be imported: a Python that lacks a module (WebAssembly has no `fcntl`) gets what
`windows` has, which does without.
"""

from __future__ import annotations

import os
from typing import Any

try:
    from .unix import (
        SIGNALS_AT_REST,
        duplicate_above,
        file_size_limit,
        limits,
        lock,
        open_files_limit,
        physical_memory,
        read_at,
        seal,
        write_at,
        write_out,
    )
except ImportError:
    from .windows import (
        SIGNALS_AT_REST,
        duplicate_above,
        file_size_limit,
        limits,
        lock,
        open_files_limit,
        physical_memory,
        read_at,
        seal,
        write_at,
        write_out,
    )

__all__ = [
    "OPEN_PRIVATE",
    "SIGNALS_AT_REST",
    "ask",
    "duplicate_above",
    "file_size_limit",
    "limits",
    "lock",
    "open_files_limit",
    "physical_memory",
    "read_at",
    "seal",
    "write_at",
    "write_out",
]

#: Flags with which a file is opened that programs started by the user do not get, and whose bytes are left as they are.
OPEN_PRIVATE: int = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)


def ask(name: str, *args: Any) -> Any:
    """What a function of `os` returns; None where there is none, or a sandbox refuses it."""
    function = getattr(os, name, None)
    try:
        return None if function is None else function(*args)
    except OSError:
        return None
