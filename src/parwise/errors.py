"""The errors and warnings that parwise raises."""

from __future__ import annotations

import os
import sys

__all__ = [
    "ElementTimeoutError",
    "NotReproducibleError",
    "ParwiseError",
    "RemoteError",
    "ReproducibilityWarning",
    "WorkerDiedError",
]


class ParwiseError(Exception):
    """Base of the errors that parwise itself raises.

    An exception raised by the mapped function is not one of these: it keeps
    its own type.
    """


class WorkerDiedError(ParwiseError):
    """A worker process ended while it held work.

    Attributes
    ----------
    index : int or tuple of int or None
        The element (or first index of the block) that the worker was at, or
        None if it had not come to one.
    pid : int
        Process id of the worker.
    signal : int or None
        The signal that ended it, or None.
    exitcode : int or None
        The code it exited with, or None.
    stack : str
        Where the function was, innermost call first, as far as the signal let
        that be written down (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT and
        SIGTERM do); otherwise empty.
    """

    index: int | tuple[int, ...] | None = None
    pid: int = 0
    signal: int | None = None
    exitcode: int | None = None
    stack: str = ""


class NotReproducibleError(ParwiseError):
    """The function gave other bits in a worker than in the caller, or from other blocks.

    Attributes
    ----------
    kind : str
        Why, as far as that was found out:

        - "unstable": the function gives other bits on each call (random numbers,
          the clock, state of earlier calls);
        - "threads": they depend on the number of BLAS or OpenMP threads;
        - "halo": a block function looks further than `depth`;
        - "block": its bits depend on the length or the start of the block;
        - "environment": the worker's process is not like this one;
        - "type": another dtype, type or shape;
        - "nan": only bits of NaN, or the sign of zero, differ;
        - "value": none of these; the message has both values.
    index : int or tuple of int or None
        The element, or first index of the block.
    depth : int or None
        For "halo", the depth that would do.
    """

    kind: str = "value"
    index: int | tuple[int, ...] | None = None
    depth: int | None = None


class ElementTimeoutError(ParwiseError, TimeoutError):
    """One element took longer than the ``timeout`` option allows.

    Attributes
    ----------
    index : int or tuple of int
        The element, or first index of the block.
    pid : int
        Process id of the worker, which was killed.
    stack : str
        Where the function was, innermost call first.
    """

    index: int | tuple[int, ...] | None = None
    pid: int = 0
    stack: str = ""


class RemoteError(ParwiseError):
    """Stands in for an exception that could not be pickled.

    Attributes
    ----------
    type_name : str
        Qualified name of the exception's own type.
    """

    type_name: str = ""


class ReproducibilityWarning(UserWarning):
    """The result may not have the bits of the plain loop."""


#: Files of parwise's own frames in tracebacks begin with this.
PACKAGE = os.path.dirname(__file__) + os.sep


def user_level() -> int:
    """How far up the stack the user's code is."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
        level += 1
    return level
