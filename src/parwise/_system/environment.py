"""Process and numeric state of the caller that a function can read, and its copy to a worker.

A function can read floating-point error handling, print options, the decimal
context, warning filters, the processor's rounding mode, the locale, environment
variables, the time zone and the working directory. Each can change its result,
so workers copy them from the caller.
"""

from __future__ import annotations

import _locale
import contextlib
import decimal
import os
import sys
import time
import warnings
from time import localtime
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from .inheritance import read_authkey, set_authkey
from .interpreter import close, known_entries, resolve_entries
from .platforms.floating_point import read_floats, set_floats
from .platforms.here import OPEN_PRIVATE

# Variables as the system has them: bytes on Unix, text on Windows.
Text: TypeAlias = "bytes | str"
_environ: Any = getattr(os, "environb", os.environ)
_at_start: Any = vars(sys.modules[os.name]).get("environ", {})
_TZ: Any = b"TZ" if os.supports_bytes_environ else "TZ"


class ProcessState(NamedTuple):
    """State that a process needs before it can import the function's modules."""

    variables: dict[Text, Text]  # of the environment
    folder: str | None  # working directory; None if it was removed
    path: list[str]  # `sys.path`
    entries: dict[str, str]  # what relative entries of it stand for
    argv: tuple[str, ...]
    umask: int | None
    zone: TimeZone
    authkey: bytes | None  # of multiprocessing; None if that is not imported

    def apply(self) -> None:
        """Set the state of this process, which must do nothing else meanwhile."""
        _set_variables(self.variables)
        self.zone.apply()
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(self.folder)
        sys.path[:] = self.path
        resolve_entries(self.entries)
        sys.argv[:] = self.argv
        if self.umask is not None:
            os.umask(self.umask)
        set_authkey(self.authkey)


class NumericState(NamedTuple):
    """State that arithmetic, printing and warnings depend on."""

    errstate: dict[str, Any]
    errcall: Any
    bufsize: int
    print_options: dict[str, Any]
    decimal_context: dict[str, Any]
    filters: list[Any]  # of warnings
    floats: tuple[int, ...] | None  # control bits of the processor, see `read_floats`
    locale: str
    limits: tuple[int, int]  # recursion limit, and digits up to which integers become text

    def apply(self) -> None:
        """Set the state of this process and thread, which must do nothing else meanwhile."""
        self.apply_in_context()
        set_floats(self.floats)
        with contextlib.suppress(_locale.Error):  # type: ignore[attr-defined]
            if _locale.setlocale(_locale.LC_ALL, None) != self.locale:
                _locale.setlocale(_locale.LC_ALL, self.locale)
        sys.setrecursionlimit(self.limits[0])
        sys.set_int_max_str_digits(self.limits[1])
        # `resetwarnings` also clears the list of warnings that each module has shown.
        warnings.resetwarnings()
        warnings.filters.extend(self.filters)  # type: ignore[attr-defined]

    def apply_in_context(self) -> None:
        """Set the part of the state that belongs to a context, and not to the process."""
        np.seterr(**self.errstate)
        np.seterrcall(self.errcall)
        np.setbufsize(self.bufsize)
        if np.get_printoptions() != self.print_options:  # 1 us; to set them takes 10
            np.set_printoptions(**self.print_options)
        decimal.setcontext(decimal.Context(**self.decimal_context))


def read_process_state(known: ProcessState | None = None) -> ProcessState:
    """State of this process; the umask is that of `known`, if given, since to read it takes as long as all the rest."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it was removed, so a worker cannot enter it
        folder = None
    argv = tuple(getattr(sys, "argv", ()))
    variables = _variables()
    return ProcessState(
        variables,
        folder,
        list(sys.path),
        known_entries(),
        argv,
        _umask() if known is None else known.umask,
        read_zone(variables.get(_TZ)),
        read_authkey(),
    )


def current_filters() -> list[Any]:
    """The filters of warnings that hold for the caller: of its context, where Python keeps some for each (3.14)."""
    aware = getattr(sys.flags, "context_aware_warnings", False)
    module: Any = warnings
    filters: list[Any] = module._get_filters() if aware else module.filters
    return filters


def read_numeric_state() -> NumericState:
    """Numeric state of the calling thread and its process."""
    return NumericState(
        errstate=dict(np.geterr()),
        errcall=np.geterrcall(),
        bufsize=np.getbufsize(),
        print_options=dict(np.get_printoptions()),
        decimal_context=_decimal_context(),
        filters=list(current_filters()),
        floats=read_floats(),
        locale=_locale.setlocale(_locale.LC_ALL, None),
        limits=(sys.getrecursionlimit(), sys.get_int_max_str_digits()),
    )


def seems_unchanged(state: NumericState) -> bool:
    """True if decimal context and warning filters are those of `state`: most of the rest is in context variables."""
    now = decimal.getcontext().__reduce__()[1]
    return state.filters == current_filters() and tuple(state.decimal_context.values()) == now


def _decimal_context() -> dict[str, Any]:
    return dict(zip(_DECIMAL, decimal.getcontext().__reduce__()[1], strict=True))


# Arguments of `decimal.Context`, in the order in which its `__reduce__` returns them.
_DECIMAL = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "flags", "traps")


def _variables() -> dict[Text, Text]:
    # os.environ decodes each text anew: 14 us for 60 variables, where a copy of its data takes 0.1 us.
    data = getattr(os.environ, "_data", None)
    if data is None:  # something else was put in its place
        encode = os.fsencode if os.supports_bytes_environ else str
        return {encode(name): encode(value) for name, value in os.environ.items()}
    return dict(data)


def _set_variables(variables: dict[Text, Text]) -> None:
    present = _variables()
    if present == variables:
        return
    for name in present.keys() - variables.keys():
        del _environ[name]
    for name, value in variables.items():
        if present.get(name) != value:
            _environ[name] = value


def _umask() -> int | None:
    # os.umask reads it only by setting another one, which files of other threads would get.
    try:
        fd = os.open("/proc/thread-self/status", os.O_RDONLY | OPEN_PRIVATE)
    except OSError:
        return None
    try:
        _, found, text = os.read(fd, 200).partition(b"\nUmask:")
    finally:
        close(fd)
    return int(text.split(None, 1)[0], 8) if found else None


State = TypeVar("State", bound=tuple[Any, ...])


def with_changes(state: State, base: State, before: State, after: State) -> State:
    """`state`, with all that was changed on purpose between `before` and `after`, where it still equals `base`.

    Dicts are compared key by key, lists entry by entry.
    """
    return type(state)(*map(_with_changes, state, base, before, after))


def _with_changes(state: Any, base: Any, before: Any, after: Any) -> Any:
    if before == after:
        return state
    if isinstance(state, dict):
        changed = [key for key in before | after if before.get(key, _ABSENT) != after.get(key, _ABSENT)]
        kept = {key: after.get(key, _ABSENT) for key in changed if state.get(key, _ABSENT) == base.get(key, _ABSENT)}
        return {key: value for key, value in (state | kept).items() if value is not _ABSENT}
    if isinstance(state, list):
        return _with_entries(state, before, after)
    return after if state == base else state


_ABSENT = object()


def _with_entries(state: list[Any], before: list[Any], after: list[Any]) -> list[Any]:
    """A list with the entries that were added in front and behind, and without those that were removed."""
    kept = next((k for k, entry in enumerate(after) if entry in before), len(after))
    front = after[:kept]
    back = [entry for entry in after[kept:] if entry not in before]
    removed = [entry for entry in before if entry not in after]
    return [*front, *(entry for entry in state if entry not in removed + front + back), *back]


# The time zone: that of `time.tzset`, which the variable TZ alone does not change.

# Winter and summer, before and after rules that many countries changed.
_INSTANTS = (-788e6, -772e6, 78e6, 94e6, 1263e6, 1279e6)


class TimeZone(NamedTuple):
    """The zone of a process, by its offsets from UTC, and values of TZ that it may have been set by."""

    offsets: tuple[tuple[int, str], ...]
    variables: tuple[Text | None, ...]

    def apply(self) -> None:
        """Set the zone of this process, whose variables are the caller's."""
        global _set_by
        variable = _environ.get(_TZ)
        if not hasattr(time, "tzset"):  # Windows has one zone for all processes
            return
        if variable == _set_by and self.offsets == _offsets():
            return
        for candidate in dict.fromkeys((*self.variables, _set_by)):
            _set(candidate)
            if _offsets() == self.offsets:
                _set_by = candidate
                break
        _assign(variable)


# The variable's value when this process last called `tzset`.
_set_by: Text | None = _at_start.get(_TZ)


# The zone that was last read, its variable, and the object that `tzset` makes anew.
_known: tuple[TimeZone, Text | None, tuple[str, str]] | None = None


def read_zone(variable: Text | None) -> TimeZone:
    """The zone of this process, whose environment has `variable`."""
    global _known
    known = _known
    if known is None or known[1] != variable or known[2] is not time.tzname:
        zone = TimeZone(_offsets(), (variable, _at_start.get(_TZ)))
        _known = known = zone, variable, time.tzname
    return known[0]


def _offsets() -> tuple[tuple[int, str], ...]:
    # Not time.tzname: Paris and Berlin have the same names and offsets now, and had others. Nor time.localtime, which a
    # test may have replaced.
    try:
        return tuple((one.tm_gmtoff, one.tm_zone) for one in map(localtime, _INSTANTS))
    except OSError:  # Windows knows no time before 1970
        return ()


def _set(variable: Text | None) -> None:
    _assign(variable)
    time.tzset()


def _assign(variable: Text | None) -> None:
    if variable is None:
        _environ.pop(_TZ, None)
    else:
        _environ[_TZ] = variable
