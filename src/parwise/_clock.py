"""Clocks as the machine has them, whatever a program puts in their place."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.machinery import BuiltinImporter
from typing import Any


def _another_time() -> Any:
    """A second instance of the module `time`, whose functions are objects of their own.

    Tests stop and move clocks: `unittest.mock` replaces `time.monotonic`, and freezegun does so in every module that
    holds the same object. The instance is made and not executed: that would call `tzset`, and so change the time zone
    of a program that has set the variable TZ alone.
    """
    spec: Any = BuiltinImporter.find_spec("time")
    return BuiltinImporter.create_module(spec)


_time = _another_time()
monotonic: Callable[[], float] = _time.monotonic
monotonic_ns: Callable[[], int] = _time.monotonic_ns
perf_counter: Callable[[], float] = _time.perf_counter
thread_time: Callable[[], float] = _time.thread_time
time_ns: Callable[[], int] = _time.time_ns
#: None on Windows.
clock_gettime_ns: Callable[[int], int] | None = getattr(_time, "clock_gettime_ns", None)
sleep: Callable[[float], None] = _time.sleep
# That of this instance would look for state that only an executed module has; Windows has no `clock_gettime`.
process_time: Callable[[], float] = time.process_time
if hasattr(_time, "clock_gettime"):
    process_time = partial(_time.clock_gettime, time.CLOCK_PROCESS_CPUTIME_ID)
