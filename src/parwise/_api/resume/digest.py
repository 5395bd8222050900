"""Digests of values, and of what a function depends on: equal in another process if, as far as is known, these are."""

from __future__ import annotations

import dis
import functools
import hashlib
import io
import itertools
import pickle
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..._core.effects.functions import is_own
from .files import hash_of, state_of_file

# Types whose pickles say all of them, in one way.
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, list, tuple, dict, bytearray})


class Sink(io.RawIOBase):
    """A file whose content goes to a hash."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)

    def write(self, data: Any) -> int:
        """Add data to the hash; large arrays come as they are, in a buffer of pickle."""
        self.hash.update(data)
        return memoryview(data).nbytes


class _DigestPickler(pickle.Pickler):
    """Pickles values so that equal ones give equal bytes: functions by their code, sets sorted."""

    def __init__(self, sink: Sink, digester: Digester) -> None:
        super().__init__(sink, 5)
        self._digester = digester

    def persistent_id(self, value: Any) -> str | None:
        kind = type(value)
        if kind in _ATOMS:
            return None
        if kind in (set, frozenset):
            return f"{kind.__name__} {sorted(map(self._digester.digest, value))}"
        if isinstance(value, FunctionType | type):
            return self._digester.digest_of_code(value)
        if isinstance(value, ModuleType) or _is_plain_builtin(value):
            return f"{version_of(getattr(value, '__module__', None) or value.__name__)} {value.__name__}"
        state = state_of_file(value)
        return None if state is None else f"file {state} {value.dtype} {value.shape}"


def _is_plain_builtin(value: Any) -> bool:
    """True for a function made in C that is no method of a value."""
    owner = getattr(value, "__self__", None)
    return isinstance(value, BuiltinFunctionType) and (owner is None or isinstance(owner, ModuleType))


class Digester:
    """Makes digests of the values of one call."""

    def __init__(self) -> None:
        # By id, with the function or class itself, so that no other gets its id.
        self._known: dict[int, tuple[Any, str]] = {}

    def digest(self, value: Any) -> str:
        """The digest of a value.

        Raises
        ------
        Exception
            Whatever its library raises, if the value cannot be pickled.
        """
        for fast in (True, False):
            sink = Sink()
            pickler = _DigestPickler(sink, self)
            # Without a memo: two equal strings are pickled as one if they are one object. But objects that hold
            # themselves need it.
            pickler.fast = fast
            try:
                pickler.dump(value)
                break
            except (ValueError, RecursionError):
                if not fast:
                    raise
        return sink.hash.hexdigest()

    def digest_of_code(self, value: Any) -> str:
        """The digest of a function, or a class, and of all that it depends on."""
        if id(value) not in self._known:
            self._known[id(value)] = value, "itself"  # functions and classes may hold each other
            parts = Parts(self)
            parts.add(value, "it")
            self._known[id(value)] = value, hash_of(repr(sorted(parts.found.items())).encode())
        return self._known[id(value)][1]


def version_of(module: str | None) -> str:
    """The version of the package that a module is a part of; Python's own have its version."""
    name = (module or "").partition(".")[0]
    if name in sys.stdlib_module_names:
        return f"Python's {name}"
    version = getattr(sys.modules.get(name), "__version__", "of unknown version")
    return f"{name} {version}"


class Parts:
    """Collects what a function depends on: its code, and that of functions which it uses, with their variables.

    Attributes
    ----------
    found : dict
        Digests, or versions, by what they are of, in words.
    """

    def __init__(self, digester: Digester) -> None:
        self.found: dict[str, str] = {}
        self._digester = digester
        self._seen: set[int] = set()

    def _put(self, name: str, text: str) -> None:
        """Note a part; a second one of the same name, as of two functions that call theirs so, gets a number."""
        names = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
        self.found[next(one for one in names if one not in self.found)] = text

    def add(self, value: Any, name: str) -> None:
        """Add a function, or anything else that it depends on, under a name."""
        if isinstance(value, functools.partial):
            self.add(value.func, name)
            self.add_value((value.args, value.keywords), f"what functools.partial gives to {name}")
        elif isinstance(value, MethodType):
            self.add(value.__func__, name)
            self.add_value(value.__self__, f"the object whose method is {name}")
        elif isinstance(value, FunctionType) and is_own(value.__module__):
            self._add_function(value, name)
        elif isinstance(value, ModuleType):
            self._add_module(value, name)
        elif isinstance(value, type) and is_own(value.__module__):
            self._add_class(value, name)
        elif isinstance(value, type | FunctionType | np.ufunc) or _is_plain_builtin(value):
            home = getattr(value, "__module__", None) or type(value).__module__  # ufuncs have none before NumPy 2.1
            self._put(name, f"{value.__name__} of {version_of(home)}")
        elif isinstance(wrapped := getattr(value, "__wrapped__", None), FunctionType):
            self.add(wrapped, name)
            self._add_wrapper(value, wrapped, f"what calls {name}")
        else:
            self.add_value(value, name)

    def _add_wrapper(self, wrapper: Any, wrapped: Any, name: str) -> None:
        """Add what calls a function: functools.cache, numba, starmap, or a class of the user's with its attributes."""
        self.add(type(wrapper), name)
        if is_own(type(wrapper).__module__):
            copied = {"__wrapped__", *functools.WRAPPER_ASSIGNMENTS}
            for attribute, value in getattr(wrapper, "__dict__", {}).items():
                if attribute not in copied and value is not wrapped:
                    self.add(value, f"{attribute} of {name}")

    def add_value(self, value: Any, name: str) -> None:
        """Add a value that is no function; one that cannot be pickled counts by its type alone."""
        try:
            text = f"#{self._digester.digest(value)}"
        except Exception:
            text = f"a {type(value).__qualname__}, which cannot be compared"
        self._put(name, text)

    def _is_new(self, value: Any) -> bool:
        new = id(value) not in self._seen
        self._seen.add(id(value))
        return new

    def _add_function(self, function: FunctionType, name: str) -> None:
        if not self._is_new(function):
            return
        code = function.__code__
        self._put(f"the code of {name}", f"#{self._digest_of_code(code)}")
        defaults = function.__defaults__ or ()
        names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
        named = dict(zip(names, defaults, strict=True))
        for variable, value in {**named, **(function.__kwdefaults__ or {})}.items():
            self.add(value, f"the default of {variable!r} in {name}")
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self._add_variable(cell, variable, name)
        for variable in sorted(set(_global_names(code))):
            if variable in function.__globals__:
                self._add_global(function.__globals__[variable], variable)

    def _digest_of_code(self, code: CodeType) -> str:
        """The digest of code, without its place in the file."""
        consts = [
            self._digest_of_code(one) if isinstance(one, CodeType) else self._digester.digest(one)
            for one in code.co_consts
        ]
        names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        return hash_of(repr((code.co_code, consts, names, counts, code.co_exceptiontable)).encode())

    def _add_variable(self, cell: Any, variable: str, name: str) -> None:
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            return
        self.add(value, f"the closure variable {variable!r} of {name}")

    def _add_global(self, value: Any, variable: str) -> None:
        if isinstance(value, FunctionType | type):
            self.add(value, f"{variable}, which it uses")
        elif isinstance(value, ModuleType):
            self._add_module(value, f"the module {variable}")
        else:
            self.add(value, f"the global variable {variable!r}")

    def _add_module(self, module: ModuleType, name: str) -> None:
        if not is_own(module.__name__):
            if module.__name__.partition(".")[0] not in sys.stdlib_module_names:
                self._put(f"the version of {module.__name__.partition('.')[0]}", version_of(module.__name__))
        elif module.__name__ != "__main__" and module.__file__:
            with open(module.__file__, "rb") as file:
                self._put(f"the file of {name}", f"#{hash_of(file.read())}")

    def _add_class(self, kind: type, name: str) -> None:
        if not self._is_new(kind):
            return
        for base in kind.__bases__:
            if is_own(base.__module__):
                self._add_class(base, f"{base.__name__}, a base of {name}")
        for member, value in sorted(vars(kind).items()):
            inner = getattr(value, "__func__", value)  # of static and class methods
            if isinstance(inner, property):
                for accessor in filter(None, (inner.fget, inner.fset)):
                    self.add(accessor, f"{member} of {name}")
            elif isinstance(inner, FunctionType) or not member.startswith(("__", "_abc_")):
                self.add(inner, f"{member} of {name}")


def _global_names(code: CodeType) -> Iterator[str]:
    """Names that code, and the functions that it makes, look up in globals."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _global_names(one)
