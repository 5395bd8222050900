"""Turns of threads at the interpreter, shorter than usual for a while."""

from __future__ import annotations

import sys
import threading

SWITCH_SECONDS = 0.0001


class ShortTurns:
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
short_turns = ShortTurns()
