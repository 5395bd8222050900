"""Digests of values, and of what a function depends on: equal in another process if, as far as is known, these are."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import pickle
import sys
from collections.abc import Iterator
from importlib import metadata
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from ..._core.effects.functions import is_installed, is_own, may_be_own
from .code_names import CLOSURE, GLOBALS, files_of, imports_in, names_in
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
        if kind is MappingProxyType:
            return f"{kind.__name__} {self._digester.digest(dict(value))}"
        if kind in (WeakKeyDictionary, WeakValueDictionary):  # a cache, as that of functools.singledispatch
            return kind.__name__
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
            self._known[id(value)] = value, hash_of(repr(sorted(parts.all().items())).encode())
        return self._known[id(value)][1]


def _own_file(module: ModuleType) -> str | None:
    """The file of a module of the user's, which stands for what is in it; None for the script, which has more in it."""
    name = module.__name__
    return getattr(module, "__file__", None) if is_own(name) and name != "__main__" else None


def version_of(module: str | None) -> str:
    """The version of the package that a module is a part of; Python's own have its version."""
    name = (module or "").partition(".")[0]
    if name in sys.stdlib_module_names:
        return f"Python's {name}"
    version = getattr(sys.modules.get(name), "__version__", "of unknown version")
    return f"{name} {version}"


class Parts:
    """Collects what a function depends on: its code, and that of functions which it uses, with their variables."""

    def __init__(self, digester: Digester) -> None:
        self._found: dict[str, str] = {}
        self._digester = digester
        self._seen: set[int] = set()
        # All names in code, and attributes of classes that count only if their names are among these.
        self._names: set[str] = set()
        self._special: list[tuple[str, Any, str]] = []

    def all(self) -> dict[str, str]:
        """Digests, or versions, of all parts, by what they are of, in words."""
        while named := [one for one in self._special if one[0] in self._names]:
            self._special = [one for one in self._special if one[0] not in self._names]
            for member, value, name in named:
                self.add(value, f"{member} of {name}")
        return self._found

    def _put(self, name: str, text: str) -> None:
        """Note a part; a second one of the same name, as of two functions that call theirs so, gets a number."""
        names = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
        self._found[next(one for one in names if one not in self._found)] = text

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
            self._add_module(value)
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
        closure = dict(_contents(code.co_freevars, function.__closure__ or ()))
        for variable, value in closure.items():
            self.add(value, f"the closure variable {variable!r} of {name}")
        read = sorted(set(names_in(code, GLOBALS)))
        for variable in sorted({path[0] for path in read} & function.__globals__.keys()):
            self._add_global(function.__globals__[variable], variable)
        for path in read:
            self._add_attributes(function.__globals__.get(path[0]), path)
        for path in sorted(set(names_in(code, CLOSURE))):
            self._add_attributes(closure.get(path[0]), path)
        for module in sorted(set(imports_in(code, function.__globals__.get("__package__")))):
            self._add_import(module)
        for attribute, value in sorted(vars(function).items()):
            # `parwise.parallel` adds one, with options that change no result.
            if not (isinstance(value, FunctionType) and str(value.__module__).startswith("parwise.")):
                self.add(value, f"{attribute} of {name}")

    def _digest_of_code(self, code: CodeType) -> str:
        """The digest of code, without its place in the file."""
        consts = [
            self._digest_of_code(one) if isinstance(one, CodeType) else self._digester.digest(one)
            for one in code.co_consts
        ]
        self._names.update(code.co_names)
        names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        return hash_of(repr((code.co_code, consts, names, counts, code.co_exceptiontable)).encode())

    def _add_global(self, value: Any, variable: str) -> None:
        if isinstance(value, FunctionType | type):
            self.add(value, f"{variable}, which it uses")
        elif isinstance(value, ModuleType):
            self._add_module(value)
        else:
            self.add(value, f"the global variable {variable!r}")

    def _add_attributes(self, owner: Any, path: tuple[str, ...]) -> None:
        """Add what code reads of a module of the user's own, as ``package.module.f``."""
        for count, attribute in enumerate(path[1:], 2):
            if not (isinstance(owner, ModuleType) and is_own(owner.__name__) and attribute in vars(owner)):
                return
            owner = vars(owner)[attribute]
            home = sys.modules.get(owner.__module__) if isinstance(owner, FunctionType | type) else None
            if home is not None and _own_file(home):  # as for all functions of modules, which are not looked into
                self._add_module(home)
            else:
                self._add_global(owner, ".".join(path[:count]))

    def _add_module(self, module: ModuleType) -> None:
        name, file = module.__name__, _own_file(module)
        if file:
            self._add_file(name, file)
        elif not is_own(name) and may_be_own(name):
            self._found[f"the version of {name.partition('.')[0]}"] = version_of(name)

    def _add_import(self, module: str) -> None:
        """Add a module that is imported when the code runs; whether it has been already makes no difference."""
        package = module.partition(".")[0]
        if package == "__main__" or not may_be_own(package):
            return
        for name, file in files_of(module):
            if not is_installed(file):
                self._add_file(name, file)
            elif name == package:
                with contextlib.suppress(metadata.PackageNotFoundError):
                    self._found.setdefault(f"the version of {package}", f"{package} {metadata.version(package)}")

    def _add_file(self, module: str, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), open(path, "rb") as file:  # in a zip file
            self._found[f"the file of the module {module}"] = f"#{hash_of(file.read())}"

    def _add_class(self, kind: type, name: str) -> None:
        if not self._is_new(kind):
            return
        for base in kind.__bases__:
            if is_own(base.__module__):
                self._add_class(base, f"{base.__name__}, a base of {name}")
        for member, value in sorted(vars(kind).items()):
            inner = getattr(value, "__func__", value)  # of static and class methods
            if isinstance(inner, functools.cached_property):  # before Python 3.12 with a lock, which cannot be pickled
                inner = inner.func
            if isinstance(inner, property):
                for accessor in filter(None, (inner.fget, inner.fset)):
                    self.add(accessor, f"{member} of {name}")
            elif isinstance(inner, FunctionType) or not member.startswith(("__", "_abc_")):
                self.add(inner, f"{member} of {name}")
            elif member.startswith("__") and not hasattr(type(inner), "__get__"):
                # Python and libraries (pydantic) keep much of theirs under such names, addresses too.
                self._special.append((member, inner, name))


def _contents(variables: tuple[str, ...], cells: tuple[CellType, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the variables of a closure that have been assigned, with their values."""
    for variable, cell in zip(variables, cells, strict=True):
        with contextlib.suppress(ValueError):
            yield variable, cell.cell_contents
