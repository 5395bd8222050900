"""What a function can read beside its elements: what it holds, what its code names, and what these hold in turn.

Nothing of the user's own classes is called.
"""

from __future__ import annotations

import contextlib
import dis
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache, partial
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from .functions import attributes_of, is_own

# Values that hold nothing: lists have many of them.
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, np.ndarray})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"})


def readable_values(func: Any, given: Iterable[Any]) -> Iterator[Any]:
    """Yield what a function can read, itself and what it is given included; a value may come twice.

    Functions of the user's own modules are looked into. Of a module, a class or an object, that is what any of them
    names; of a container all that it holds. What is looked up by a text, as by ``getattr`` or ``globals()``, is missed.
    """
    reader = _Reader()
    left, seen = [func, *given], dict[int, Any]()
    while left:
        while left:
            value = left.pop()
            if id(value) not in seen:
                seen[id(value)] = value  # kept, so that no other object gets its id
                yield value
                left += reader.within(value)
        left = [value for value in reader.named() if id(value) not in seen]


class _Reader:
    """Finds what values hold, and remembers where the attributes are that functions name."""

    def __init__(self) -> None:
        self._names = {"__wrapped__"}  # of wrappers, whose own code is no function of the user's
        self._spaces: list[dict[str, Any]] = []

    def named(self) -> Iterator[Any]:
        """Attributes that functions so far have named."""
        for space in self._spaces:
            yield from (space[name] for name in self._names.intersection(space))

    def within(self, value: Any) -> Iterable[Any]:
        """What a value holds, but for attributes that no function has named so far."""
        kind = type(value)  # what a proxy stands for is its own affair
        if issubclass(kind, list):
            return list.__iter__(value)
        if issubclass(kind, tuple):
            return tuple.__iter__(value)
        if issubclass(kind, dict):
            return dict.values(value)
        if issubclass(kind, partial):
            return value.func, value.args, value.keywords
        if issubclass(kind, MethodType):
            return value.__func__, value.__self__
        if issubclass(kind, property):
            return value.fget, value.fset
        if issubclass(kind, staticmethod | classmethod):
            return (value.__func__,)
        if issubclass(kind, cached_property):
            return (value.func,)
        if issubclass(kind, FunctionType):
            return self._within_function(value) if is_own(value.__module__) else ()
        if issubclass(kind, ModuleType | type):
            name = vars(value).get("__name__" if issubclass(kind, ModuleType) else "__module__")
            return self._within_namespace(value) if isinstance(name, str) and is_own(name) else ()
        if kind in _ATOMS:
            return ()
        self._spaces += filter(None, (attributes_of(value), _slots_of(value)))
        return (kind,)

    def _within_function(self, function: FunctionType) -> Iterator[Any]:
        yield from (function.__defaults__, function.__kwdefaults__, function.__dict__)
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # not assigned yet
                yield cell.cell_contents
        names = _names_in(function.__code__)
        self._names |= names.attributes
        yield from (function.__globals__[name] for name in names.globals.intersection(function.__globals__))
        yield from (sys.modules[name] for name in names.modules.intersection(sys.modules))

    def _within_namespace(self, value: ModuleType | type) -> Iterator[Any]:
        space = dict(vars(value))
        self._spaces.append(space)
        if isinstance(value, type):
            yield from value.__bases__
            # Called without being named.
            yield from (one for name, one in space.items() if name.startswith("__") and isinstance(one, FunctionType))


class _Names(NamedTuple):
    """Names of globals, attributes and modules that code looks up."""

    globals: set[str]
    attributes: set[str]
    modules: set[str]


@lru_cache(256)  # to read an instruction takes 2 us
def _names_in(code: CodeType) -> _Names:
    """The names in code, and in that of functions which it makes."""
    names = _Names(set(), set(), set())
    for one in dis.get_instructions(code):
        if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.globals.add(one.argval)
        elif one.opname in _ATTRIBUTES:
            names.attributes.add(one.argval)
        elif one.opname == "IMPORT_NAME":
            names.modules.add(one.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            for mine, its in zip(names, _names_in(inner), strict=True):
                mine |= its
    return names


def _slots_of(value: Any) -> dict[str, Any]:
    """Attributes of an object that are in slots."""
    found = {}
    for kind in type(value).__mro__:
        for name, slot in vars(kind).items() if is_own(kind.__module__) else ():
            if type(slot) is MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # not set yet
                    found[name] = slot.__get__(value, type(value))
    return found
