"""Nested calls: those within a mapped function, or anywhere in a worker, are serial, whatever their options."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType

#: Argument on the command line of the fork server, and so of its workers.
FORK_SERVER = "--parwise-fork-server"


class Nesting:
    """Tells whether the code that runs in a context belongs to a mapped function, and not to an iterator of items."""

    __slots__ = ("active",)

    def __init__(self, active: bool) -> None:
        self.active = active


# True from the start in workers, whatever they run: a module that makes a call when it is imported, even in a thread of
# its own, would otherwise start workers that import it, and so on without an end.
_AT_FIRST = Nesting(any(one == FORK_SERVER or "multiprocessing.resource_tracker" in one for one in sys.orig_argv))
NESTED: ContextVar[Nesting] = ContextVar("parwise_nested", default=_AT_FIRST)


def is_nested() -> bool:
    """True within a mapped function, and anywhere in a worker: calls run serially."""
    return NESTED.get().active or _is_inheriting()


def _is_inheriting() -> bool:
    # A process that multiprocessing has spawned, perhaps in a worker, runs a script without a main guard again: workers
    # that it started would do the same, and so on. Another thread may be importing the module just now.
    process = getattr(sys.modules.get("multiprocessing.process"), "_current_process", None)
    return getattr(process, "_inheriting", False)


@contextlib.contextmanager
def nesting() -> Iterator[Nesting]:
    """A context in which mapped functions are called whenever its `active` is True."""
    nested = Nesting(False)
    token = NESTED.set(nested)
    try:
        yield nested
    finally:
        NESTED.reset(token)


ALWAYS = Nesting(True)


@contextlib.contextmanager
def serial_calls() -> Iterator[None]:
    """Have calls run serially, in a process that is unpickling a function and so imports modules."""
    before = NESTED.set(ALWAYS)
    try:
        yield
    finally:
        NESTED.reset(before)


def is_importing() -> bool:
    """True if what called parwise is a module that is being imported, and no mapped function of that module."""
    frame: FrameType | None = sys._getframe()
    outside = False
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        # `Pool` has its `map` from concurrent.futures.
        own = str(frame.f_globals.get("__name__")).startswith(("parwise.", "concurrent.futures."))
        if own and outside:  # it calls the function
            return False
        outside, frame = outside or not own, frame.f_back
    return frame is not None
