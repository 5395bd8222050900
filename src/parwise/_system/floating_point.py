"""The processor's rounding mode, and whether it flushes subnormal numbers to zero.

Each thread has its own. A library may change them (``-ffast-math`` does, and
``torch.set_flush_denormal``), and then a worker's arithmetic is not the caller's.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from typing import Any

# The C library's fenv_t: its size, and where in it the control bits are, which
# stand beside sticky flags that nobody should carry over.
_SHAPES = {
    # x87 control word; MXCSR, whose lower six bits are flags.
    "x86_64": (32, ((0, 2, 0xFFFF), (28, 4, 0xFFC0))),
    # FPCR; FPSR has the flags.
    "aarch64": (8, ((0, 4, 0xFFFFFFFF),)),
}


@functools.cache
def _library() -> Any:
    """The C library's mathematics, or None where its ``fenv_t`` is not known here."""
    try:
        if os.uname().machine not in _SHAPES or "CS_GNU_LIBC_VERSION" not in os.confstr_names:
            return None
        return ctypes.CDLL("libm.so.6")
    except (AttributeError, OSError):
        return None


def read_floats() -> tuple[int, ...] | None:
    """Control bits of the calling thread; None if they cannot be read on this system."""
    if _library() is None:
        return None
    environment, fields = _read()
    return tuple(int.from_bytes(environment[at : at + n], "little") & mask for at, n, mask in fields)


def set_floats(control: tuple[int, ...] | None) -> None:
    """Give the calling thread control bits that another thread or process has."""
    if control is None or control == read_floats():
        return
    environment, fields = _read()
    for bits, (at, n, mask) in zip(control, fields, strict=True):
        old = int.from_bytes(environment[at : at + n], "little")
        environment[at : at + n] = (old & ~mask | bits).to_bytes(n, "little")
    _library().fesetenv(bytes(environment))


@contextlib.contextmanager
def floats(control: tuple[int, ...] | None) -> Iterator[None]:
    """Have these control bits for a ``with`` block."""
    before = read_floats()
    set_floats(control)
    try:
        yield
    finally:
        set_floats(before)


def _read() -> tuple[bytearray, Any]:
    size, fields = _SHAPES[os.uname().machine]
    buffer = ctypes.create_string_buffer(size)
    _library().fegetenv(buffer)
    return bytearray(buffer.raw), fields
