"""Short pieces of work that Ctrl-C must not cut in two."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

# `signal`'s own functions turn handlers into enums and back, which takes 12 us for a block.
_plain: Any = sys.modules.get("_signal", signal)


class DeferredInterrupt:
    """Defers SIGINT for a ``with`` block: it takes effect right behind it.

    For a few lines that make or close descriptors, or take a lock: an exception
    between a system call and the assignment of its result would lose the
    result. Blocking the signal would not do: another thread of the process
    (BLAS has some) would get it, and the main one be interrupted all the same.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._came = False

    def __enter__(self) -> DeferredInterrupt:
        # Only the main thread is ever interrupted; a handler that is not Python's cannot be put back.
        # (`current_thread` would leave an entry behind for each thread that `threading` does not know.)
        if threading.get_ident() == threading.main_thread().ident and _plain.getsignal(signal.SIGINT) is not None:
            self._before = _plain.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._before is not None:
            _plain.signal(signal.SIGINT, self._before)
            if self._came:
                signal.raise_signal(signal.SIGINT)


SWITCH_SECONDS = 0.0001


class ShortSwitchInterval:
    """Lets this thread have the GIL soon, beside a function in pure Python.

    Every system call lets go of it, and such a function gives it back only
    after the switch interval: of the usual 5 ms, looking for BLAS threads took
    0.4 s and starting workers half a second. The interval is the whole
    process's, so the last thread that leaves puts it back.
    """

    def __init__(self) -> None:
        self._users = 0
        self._before = 0.0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """For one more thread."""
        with self._lock:
            if not self._users:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_SECONDS)
            self._users += 1

    def end(self) -> None:
        """For one less."""
        with self._lock:
            self._users -= 1
            if not self._users:
                sys.setswitchinterval(self._before)


#: Those of this process.
short_switch_interval = ShortSwitchInterval()
