"""Time zone of a process: that of `time.tzset`, which the variable TZ alone does not change."""

from __future__ import annotations

import os
import posix
import time
from typing import NamedTuple

# Winter and summer, before and after rules that many countries changed.
_INSTANTS = (-788e6, -772e6, 78e6, 94e6, 1263e6, 1279e6)


class TimeZone(NamedTuple):
    """The zone of a process, by its offsets from UTC, and values of TZ that it may have been set by."""

    offsets: tuple[tuple[int, str], ...]
    variables: tuple[bytes | None, ...]

    def apply(self) -> None:
        """Set the zone of this process, whose variables are the caller's."""
        global _set_by
        variable = os.environb.get(b"TZ")
        if variable == _set_by and self.offsets == _offsets():
            return
        for candidate in dict.fromkeys((*self.variables, _set_by)):
            _set(candidate)
            if _offsets() == self.offsets:
                _set_by = candidate
                break
        _assign(variable)


# The variable's value when this process last called `tzset`.
_set_by: bytes | None = posix.environ.get(b"TZ")


# The zone that was last read, its variable, and the object that `tzset` makes anew.
_known: tuple[TimeZone, bytes | None, tuple[str, str]] | None = None


def read_zone(variable: bytes | None) -> TimeZone:
    """The zone of this process, whose environment has `variable`."""
    global _known
    known = _known
    if known is None or known[1] != variable or known[2] is not time.tzname:
        zone = TimeZone(_offsets(), (variable, posix.environ.get(b"TZ")))
        _known = known = zone, variable, time.tzname
    return known[0]


def _offsets() -> tuple[tuple[int, str], ...]:
    # Not time.tzname: Paris and Berlin have the same names and offsets now, and had others.
    found = map(time.localtime, _INSTANTS)
    return tuple((one.tm_gmtoff, one.tm_zone) for one in found)


def _set(variable: bytes | None) -> None:
    _assign(variable)
    time.tzset()


def _assign(variable: bytes | None) -> None:
    if variable is None:
        os.environb.pop(b"TZ", None)
    else:
        os.environb[b"TZ"] = variable
