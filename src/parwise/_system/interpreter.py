"""Python interpreter: SIGINT deferred for a few lines, and the GIL switch interval shortened."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

# `signal`'s own functions turn handlers into enums and back, which takes 12 us for a block.
_plain: Any = sys.modules.get("_signal", signal)


class DeferredInterrupt:
    """Defers SIGINT for a ``with`` block, and raises it at the end of the block.

    For a few lines that open or close descriptors, or take a lock: an exception
    between a system call and the assignment of its result would lose the
    result. Blocking the signal is not enough: another thread of the process
    (BLAS has some) would receive it, and the main thread be interrupted anyway.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._pending = False

    def __enter__(self) -> DeferredInterrupt:
        # Python interrupts the main thread only; a handler that was not set from Python cannot be restored.
        # (`current_thread` would leave an entry for each thread that `threading` does not know.)
        if threading.get_ident() == threading.main_thread().ident and _plain.getsignal(signal.SIGINT) is not None:
            self._before = _plain.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending = True

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._before is not None:
            _plain.signal(signal.SIGINT, self._before)
            if self._pending:
                signal.raise_signal(signal.SIGINT)


# Switch interval of the GIL while a helper thread works.
SWITCH_SECONDS = 0.0001


class ShortSwitchInterval:
    """Shortens the GIL switch interval to `SWITCH_SECONDS` while at least one thread needs that.

    A thread releases the GIL in every system call, and a function in pure
    Python gives it back only after the switch interval. With the default of
    5 ms, looking for BLAS threads took 0.4 s and starting workers half a
    second. The interval belongs to the process, so the last thread that ends
    restores it.
    """

    def __init__(self) -> None:
        self._users = 0
        self._before = 0.0
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Count one more thread; the first one shortens the interval."""
        with self._lock:
            if not self._users:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_SECONDS)
            self._users += 1

    def release(self) -> None:
        """Count one thread less; the last one restores the interval."""
        with self._lock:
            self._users -= 1
            if not self._users:
                sys.setswitchinterval(self._before)


#: The one of this process.
short_switch_interval = ShortSwitchInterval()
