"""Short pieces of work that Ctrl-C must not cut in two."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

# `signal`'s own functions turn handlers into enums and back, which takes 12 us for a block.
_plain: Any = sys.modules.get("_signal", signal)


class Uninterrupted:
    """Defers SIGINT for a ``with`` block: it takes effect right behind it.

    For a few lines that make or close descriptors, or take a lock: an exception
    between a system call and the assignment of its result would lose the
    result. Blocking the signal would not do: another thread of the process
    (BLAS has some) would get it, and the main one be interrupted all the same.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._came = False

    def __enter__(self) -> Uninterrupted:
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
