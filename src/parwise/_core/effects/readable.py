"""What a function can read beside its elements: what it holds, what its code names, and what these hold in turn.

Nothing of the user's own classes is called.
"""

from __future__ import annotations

import contextlib
import dis
import gc
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import (
    AsyncGeneratorType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
    TracebackType,
)
from typing import Any, NamedTuple

import numpy as np

from .functions import attributes_of, function_of, is_own

# By identity, as to look for a class in a set calls what its metaclass has.
_SKIPPED = frozenset(
    map(
        id,
        (
            *(type(None), bool, int, float, complex, str, bytes, CodeType),  # they hold nothing, and lists have many
            *(FrameType, TracebackType, GeneratorType, CoroutineType, AsyncGeneratorType),  # they hold the program
        ),
    )
)
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"})
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
_OPERATORS = (*_ARITHMETIC, "and", "or", "xor", "lshift", "rshift")
# Methods that code calls without naming them, where it computes.
_IMPLICIT = frozenset(
    f"__{name}__"
    for name in (
        *("call", "getitem", "getattr", "getattribute", "iter", "next", "contains", "enter", "array"),
        *("float", "int", "index", "neg", "pos", "abs", "invert", *_OPERATORS, *(f"r{one}" for one in _OPERATORS)),
    )
)
_CONTAINERS: tuple[Any, ...] = (list, tuple, dict, set, frozenset, deque)
_OF_A_CALL = ("__init__", "__new__", "__post_init__")
# Objects of libraries, as of xarray and pandas, that are looked into.
_MOST_STRANGERS = 10_000


def readable_values(func: Any, given: Iterable[Any]) -> Iterator[Any]:
    """Yield what a function can read, itself and what it is given included.

    Functions of the user's own modules are looked into, and those of the module of this one. Of a module, a class or an
    object of theirs, that is what any of them names; of a container, and of an object of a library, all that it holds.
    What is looked up by a text, as by ``getattr`` or ``globals()``, is missed.
    """
    function, _ = function_of(func)
    reader = _Reader(getattr(function, "__module__", None))
    left, seen = [func, *given], dict[int, Any]()
    while left:
        value = left.pop()
        if id(type(value)) not in _SKIPPED and id(value) not in seen:
            seen[id(value)] = value  # kept, so that no other object gets its id
            yield value
            left += reader.within(value)


class _Reader:
    """Finds what values hold; attributes as soon as a function names them.

    Parameters
    ----------
    module : str or None
        That of the function, which may be installed.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._names = {"__wrapped__"}  # of wrappers, whose own code is no function of the user's
        self._spaces: list[Any] = []
        self._strangers = 0

    def within(self, value: Any) -> Iterable[Any]:
        """What a value holds, as far as it is known by now."""
        kind = type(value)  # what a proxy stands for is its own affair
        if issubclass(kind, FunctionType):
            return self._within_function(value)
        if issubclass(kind, ModuleType):
            return self._opened(attributes_of(value))
        if issubclass(kind, type):
            return self._within_class(value, _OF_A_CALL) if self._is_own(_module_of(value)) else ()
        if issubclass(kind, np.ndarray):
            return np.ndarray.ravel(value).tolist() if value.dtype == object else ()
        module = _module_of(kind)
        if module is None:  # of Python
            return gc.get_referents(value)
        if not self._is_own(module):
            self._strangers += 1
            return gc.get_referents(value) if self._strangers <= _MOST_STRANGERS else ()
        return self._within_own(value)

    def _is_own(self, module: Any) -> bool:
        if type(module) is not str:
            return module is not None
        return module == self._module or is_own(module)

    def _opened(self, space: Any) -> list[Any]:
        """What is in a namespace by the names so far; and later on, by others."""
        self._spaces.append(space)
        return [space.get(name) for name in self._names.intersection(space)]

    def _within_own(self, value: Any) -> Iterator[Any]:
        yield from self._opened(attributes_of(value))
        base = next((one for one in _CONTAINERS if issubclass(type(value), one)), None)
        if base is not None:
            yield from list((dict.values if base is dict else base.__iter__)(value))
        slots = {}
        for kind in type.__dict__["__mro__"].__get__(type(value)):
            if self._is_own(_module_of(kind)):
                yield from self._within_class(kind)
                for name, slot in _namespace(kind).items():
                    if type(slot) is MemberDescriptorType:
                        with contextlib.suppress(AttributeError):  # not set yet
                            slots[name] = slot.__get__(value, kind)
        yield from self._opened(slots)

    def _within_class(self, kind: type, more: Iterable[str] = ()) -> Iterator[Any]:
        space = _namespace(kind)
        yield from self._opened(space)
        yield from (space.get(name) for name in (*_IMPLICIT.intersection(space), *more))
        yield from type.__dict__["__bases__"].__get__(kind)

    def _within_function(self, function: FunctionType) -> Iterator[Any]:
        yield from (function.__defaults__, function.__kwdefaults__, function.__dict__)
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # not assigned yet
                yield cell.cell_contents
        if not self._is_own(function.__module__):
            return
        names = _names_in(function.__code__)
        yield from (function.__globals__.get(name) for name in names.globals)
        yield from (sys.modules.get(name) for name in names.modules)
        new = names.attributes - self._names
        self._names |= new
        for space in self._spaces if new else ():
            yield from (space.get(name) for name in new.intersection(space))


def _namespace(kind: type) -> Any:
    """What is in a class, whatever its metaclass says."""
    return type.__dict__["__dict__"].__get__(kind)


def _module_of(kind: type) -> Any:
    """The module of a class, usually a text; None for those of Python, whose objects may have a module."""
    found = _namespace(kind).get("__module__")
    return None if type(found) in (MemberDescriptorType, GetSetDescriptorType) else found


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
