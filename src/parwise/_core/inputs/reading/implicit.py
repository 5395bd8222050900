"""What a function calls without a call in its bytecode: operators, properties and callbacks of shared objects."""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakSet

from .values import UnprovenError

#: Functions that run or change what their names do not tell.
OPAQUE = frozenset(["exec", "eval", "globals", "vars"])

# Methods that Python calls for a statement which is found as a change itself, or which functions hardly need.
_OTHERS = frozenset(
    [
        *("__init__", "__new__", "__del__", "__init_subclass__", "__class_getitem__", "__set_name__"),
        *("__repr__", "__str__", "__dir__", "__sizeof__", "__hash__", "__eq__", "__ne__", "__copy__", "__deepcopy__"),
        *("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"),
        *("__setattr__", "__delattr__", "__setitem__", "__delitem__", "__set__", "__delete__"),
        *("__iadd__", "__isub__", "__imul__", "__imatmul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__"),
        *("__ilshift__", "__irshift__", "__iand__", "__ixor__", "__ior__"),
    ]
)


# Classes whose methods are not understood: to find that takes 40 ms for those of a large library.
_not_understood: WeakSet[type] = WeakSet()


@contextlib.contextmanager
def remembered(kind: type) -> Iterator[None]:
    """Remember a class whose methods are looked at within the block and not understood."""
    if kind in _not_understood:
        raise UnprovenError(f"methods of {kind.__name__}")
    try:
        yield
    except (UnprovenError, RecursionError):
        _not_understood.add(kind)
        raise


def is_trusted(module: object) -> bool:
    """True for modules whose functions change nothing but what lists of names tell."""
    return str(module).partition(".")[0] in sys.stdlib_module_names | {"numpy", "scipy"}


def implicit_functions(value: Any, names: Collection[str]) -> Iterator[FunctionType]:
    """Functions that a mention of an object may call: those behind operators, and properties with one of the names."""
    if isinstance(value, ModuleType | type | FunctionType):
        return
    found: dict[str, Any] = {}
    for kind in reversed(type(value).__mro__):
        if not is_trusted(kind.__module__):
            found.update(vars(kind))
    for name, one in found.items():
        if isinstance(one, property):
            one = one.fget if name in names else None
        elif not (name.startswith("__") and name.endswith("__")) or name in _OTHERS:
            continue
        if isinstance(one, FunctionType):
            yield one


def changes_when_read(value: Any) -> bool:
    """True for objects of the standard library that change when an item is looked up."""
    return isinstance(value, defaultdict)


def all_names(code: CodeType) -> Iterator[str]:
    """Names in a function and in functions within it."""
    yield from (*code.co_names, *code.co_freevars, *code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from all_names(one)


def static(kind: type, name: str) -> Any:
    """An attribute of a class, as it is kept."""
    return next((vars(one)[name] for one in kind.__mro__ if name in vars(one)), None)
