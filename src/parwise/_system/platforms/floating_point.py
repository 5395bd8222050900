"""Floating-point control of the processor: rounding mode, and flushing of subnormal numbers to zero.

Each thread has its own. A library may change it (``-ffast-math`` does, and
``torch.set_flush_denormal``), and then a worker's arithmetic differs from the caller's.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from typing import Any

from .here import ask

# The C library's fenv_t: its size in bytes, and (offset, bytes, mask) of its control bits. The rest are status flags,
# which must not be copied.
_LAYOUTS = {
    # x87 control word; MXCSR, whose lower six bits are flags.
    "x86_64": (32, ((0, 2, 0xFFFF), (28, 4, 0xFFC0))),
    # FPCR; FPSR has the flags.
    "aarch64": (8, ((0, 4, 0xFFFFFFFF),)),
}


def _machine() -> str:
    return getattr(ask("uname"), "machine", "")


@functools.cache
def _library() -> Any:
    """Mathematical part of the C library; None on systems whose ``fenv_t`` is not in `_LAYOUTS`."""
    try:
        if _machine() not in _LAYOUTS or "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()):
            return None
        return ctypes.CDLL("libm.so.6")
    except (AttributeError, OSError):
        return None


@functools.cache
def _layout() -> tuple[Any, Any]:
    """Type of ``fenv_t``, and the places of its control bits."""
    size, fields = _LAYOUTS[_machine()]
    return ctypes.c_char * size, fields


def read_floats() -> tuple[int, ...] | None:
    """Control bits of the calling thread; None if they cannot be read on this system."""
    if _library() is None:
        return None
    environment, fields = _read()
    return tuple(int.from_bytes(environment[at : at + n], "little") & mask for at, n, mask in fields)


def set_floats(control: tuple[int, ...] | None) -> None:
    """Set the control bits of the calling thread, as `read_floats` returned them; None changes nothing."""
    if control is None or control == read_floats():
        return
    environment, fields = _read()
    for bits, (at, n, mask) in zip(control, fields, strict=True):
        old = int.from_bytes(environment[at : at + n], "little")
        environment[at : at + n] = (old & ~mask | bits).to_bytes(n, "little")
    _library().fesetenv(bytes(environment))


@contextlib.contextmanager
def floats(control: tuple[int, ...] | None) -> Iterator[None]:
    """Set the control bits of the calling thread for a ``with`` block."""
    before = read_floats()
    set_floats(control)
    try:
        yield
    finally:
        set_floats(before)


def _read() -> tuple[bytearray, Any]:
    """``fenv_t`` of the calling thread, and the places of its control bits."""
    kind, fields = _layout()
    buffer = kind()
    _library().fegetenv(buffer)
    return bytearray(buffer.raw), fields
