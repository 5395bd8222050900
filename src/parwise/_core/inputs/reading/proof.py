"""Proves that a function only reads its arguments: it neither writes to them nor keeps or returns their memory.

Then it may get views of the user's own array, as the plain loop gives them, in place of private copies. What is not
proved gets copies. A proof rests on what the function's names refer to now, and is looked at again in each call.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from .values import (
    MISSING,
    NUMBER,
    NUMERIC_KINDS,
    OPAQUE,
    UnprovenError,
    Value,
    classify,
    holds_data,
    is_harmless,
    shared,
)

_CPYTHON = sys.implementation.name == "cpython"
#: Kinds of arguments for which the proof of one function is kept.
_MOST_PROOFS = 16


class Dependency(NamedTuple):
    """Something that a proof rests on. It keeps nothing of the user's alive but bytecode.

    Attributes
    ----------
    owner : weakref.ref
        The function or module that is looked at.
    where, name : str
        What is looked up there.
    found : Value
        What is known of it.
    thing : object
        The object itself, if it is bytecode, a function of NumPy or the like, or missing.
    """

    owner: weakref.ref[Any]
    where: str
    name: str
    found: Value
    thing: Any

    @property
    def holds(self) -> bool:
        """True if it is still so."""
        owner = self.owner()
        if owner is None:
            return False
        now = _look_up(owner, self.where, self.name)
        return now is self.thing or _classify(now) == self.found


class Proof(NamedTuple):
    """Whether a function only reads arguments of some kinds, and what that rests on."""

    reads_only: bool
    rests_on: tuple[Dependency, ...]


# By function: it dies with it.
_proofs: weakref.WeakKeyDictionary[FunctionType, dict[Any, Proof]] = weakref.WeakKeyDictionary()


def only_reads(func: Callable[..., Any], elements: list[Value], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether it is proved that ``func(*elements, *args, **kwargs)`` only reads the elements."""
    if not _CPYTHON or _is_watched():
        return False
    while type(func) is functools.partial:
        # What it has been given comes before the elements.
        elements = [*map(_argument, func.args), *elements]
        kwargs, func = {**func.keywords, **kwargs}, func.func
    given = [*elements, *map(_argument, args)]
    named = {name: _argument(one) for name, one in kwargs.items()}
    if type(func) is not FunctionType:
        return _call(func, given, named)
    key = (*given, *named.items())
    proofs = _proofs.setdefault(func, {})
    proof = proofs.get(key)
    if proof is None or not all(one.holds for one in proof.rests_on):
        if len(proofs) >= _MOST_PROOFS:
            proofs.clear()
        proof = proofs[key] = _examine(func, given, named)
    return proof.reads_only


def element_value(dtype: np.dtype[Any], ndim: int) -> Value | None:
    """What is known of elements of such an array with so many dimensions; None if they may be more than numbers."""
    if dtype.kind not in NUMERIC_KINDS:
        return None
    return shared(ndim) if ndim else NUMBER  # a number of NumPy's, which is a copy


def _argument(one: Any) -> Value:
    """What is known of another argument of the user's: nothing but that it is a number or an array of numbers."""
    value = classify(one)
    return value if holds_data(value) else OPAQUE


def _is_watched() -> bool:
    """True if a debugger or profiler sees the frames of the function, and may keep what they hold."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return True
    monitoring = getattr(sys, "monitoring", None)
    return monitoring is not None and any(monitoring.get_tool(number) is not None for number in range(6))


def _call(func: Any, given: list[Value], named: dict[str, Value]) -> bool:
    """The same for a function that is not written in Python: for one that is known."""
    from .operations import call_known

    value = classify(func)
    with contextlib.suppress(UnprovenError):
        return value.kind == "known" and is_harmless(call_known(value.detail, given, named))
    return False


def _examine(func: FunctionType, given: list[Value], named: dict[str, Value]) -> Proof:
    from .bytecode import VERSIONS, Examination

    found: dict[tuple[Any, str, str], Dependency] = {}

    def read(owner: FunctionType | ModuleType, where: str, name: str) -> Value:
        key = (owner, where, name)
        if key not in found:
            thing = _look_up(owner, where, name)
            value = _classify(thing)
            kept = thing if value.kind in ("code", "known", "missing") else None
            found[key] = Dependency(weakref.ref(owner), where, name, value, kept)
        return found[key].found

    reads_only = False
    if sys.version_info[:2] in VERSIONS:
        code = read(func, "code", "").detail
        # Whatever goes wrong, such as something that the interpreter does not tell of its code: no proof.
        with contextlib.suppress(Exception):
            reads_only = is_harmless(Examination(read).call(func, code, given, named))
    return Proof(reads_only, tuple(found.values()))


def _classify(thing: Any) -> Value:
    return MISSING if thing is MISSING else classify(thing)


def _look_up(owner: Any, where: str, name: str) -> Any:
    """What a name of a function or module refers to now, or `MISSING`."""
    match where:
        case "global":
            return _get(owner.__globals__, name)
        case "builtin":
            return _get(owner.__builtins__, name)
        case "module":
            return _get(vars(owner), name)
        case "code":
            return owner.__code__
        case "cell":
            return _captured(owner, name)
    return _default(owner, name)


def _get(space: Any, name: str) -> Any:
    # A dict with methods of its own may find something else each time; nothing is known of what it is asked here.
    return space.get(name, MISSING) if type(space) is dict else NotImplemented


def _captured(function: FunctionType, name: str) -> Any:
    cell = (function.__closure__ or ())[function.__code__.co_freevars.index(name)]
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return MISSING


def _default(function: FunctionType, name: str) -> Any:
    code = function.__code__
    given = function.__defaults__ or ()
    defaults = dict(zip(code.co_varnames[: code.co_argcount][::-1], given[::-1], strict=False))
    defaults |= function.__kwdefaults__ or {}
    return defaults.get(name, MISSING)
