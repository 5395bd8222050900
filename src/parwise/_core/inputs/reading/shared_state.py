"""Whether calls of a function at the same time, in threads, may change what they share.

What its bytecode does with globals, free variables and what all calls get is looked up in the values that they have
now. One module is read: the function's own, in which it and the functions that it calls by name are; of other modules
what gets an object that calls share. What is not understood counts as a change.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from io import IOBase
from types import BuiltinFunctionType, BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..items import is_constant
from .changers import CHANGERS, MUTATORS, OUT_PLACES, PROCESS_WIDE, STATEFUL_MODULES, VIEWS
from .implicit import OPAQUE, all_names, changes_when_read, implicit_functions, is_trusted, remembered, static
from .uses import Root, Use, Value, summary
from .values import UnprovenError

# Functions that are read for one, at most.
MOST_FUNCTIONS = 100

_STATEFUL: tuple[type, ...] = (
    random.Random,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    IOBase,
)


class _Unknown:
    """Something that may be changed, of which no more is known."""


class _Private:
    """Something that one call has for itself."""


_UNKNOWN, PRIVATE = _Unknown(), _Private()


class UnsafeError(Exception):
    """What the function changes, in words."""


def shared_change(func: Any, private: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """What calls of a function may change that they share, in words; None if nothing is found.

    Parameters
    ----------
    private : int
        So many of the first positional arguments belong to one call each.
    args, kwargs
        What all calls get.
    """
    try:
        _Search().look_at(func, [PRIVATE] * private + list(args), dict(kwargs))
    except UnsafeError as error:
        return str(error)
    except (UnprovenError, RecursionError):
        return "its bytecode is not understood"
    return None


class _Search:
    """The search in one function and all that it calls."""

    def __init__(self) -> None:
        self._seen: set[Any] = set()

    def look_at(self, func: Any, given: list[Any], named: dict[str, Any], space: Any = None) -> None:
        """Look at a callable that gets these arguments; of other modules than `space`, if given, at none."""
        if _is_numeric(func) and not isinstance(func, np.vectorize):
            self._look_at_builtin(func, given, named)
        elif isinstance(func, partial):
            self.look_at(func.func, [*func.args, *given], {**func.keywords, **named}, space)
        elif isinstance(func, MethodType):
            _refuse_stateful(func.__self__, f"the object whose method {func.__name__} it is")
            self.look_at(func.__func__, [func.__self__, *given], named, space)
        elif isinstance(func, FunctionType):
            shared = any(map(_is_mutable, (*given, *named.values()))) and not is_trusted(func.__module__)
            if space is None or func.__globals__ is space or shared:
                self._look_at_function(func, given, named)
        elif isinstance(func, type):
            self._look_at_method(func, "__init__", [PRIVATE, *given], named, space)
        elif isinstance(func, BuiltinMethodType | BuiltinFunctionType | np.ufunc) or not hasattr(func, "__dict__"):
            self._look_at_builtin(func, given, named)
        else:
            wrapped = _vars(func).get("__wrapped__")
            if wrapped is not None:
                self.look_at(wrapped, given, named, space)
                return
            for one in list(_vars(func).values()):  # what `numpy.vectorize` and the like call
                if isinstance(one, FunctionType | MethodType | partial):
                    self.look_at(one, given, named, space)
            self._look_at_method(type(func), "__call__", [func, *given], named, space)

    def _look_at_method(self, kind: type, name: str, given: list[Any], named: dict[str, Any], space: Any) -> None:
        method = static(kind, name)
        if isinstance(method, FunctionType) and not is_trusted(kind.__module__):
            self.look_at(method, given, named, space)

    def _look_at_builtin(self, func: Any, given: list[Any], named: dict[str, Any]) -> None:
        """Look at a function that is not written in Python."""
        own, name = getattr(func, "__self__", None), getattr(func, "__name__", "")
        _refuse_stateful(own, f"{name}()")
        if name in MUTATORS and _is_mutable(own) and not isinstance(own, ModuleType | type):
            raise UnsafeError(f"it changes the {type(own).__name__} whose method {name} it is")
        self._check_arguments(func, name, tuple(given), named, "the function")

    def _look_at_function(self, function: FunctionType, given: list[Any], named: dict[str, Any]) -> None:
        code = function.__code__
        arguments = _bound(function, given, named)
        key = (code, tuple((name, id(value)) for name, value in sorted(arguments.items())))
        if key in self._seen:
            return
        self._seen.add(key)
        if len(self._seen) > MOST_FUNCTIONS:
            raise UnprovenError("too many functions")
        names, mentioned = _Names(function, arguments), set(all_names(code))
        for one in all_names(code):
            for word, value in names.mentioned(one):
                _refuse_stateful(value, word)
                for implicit in implicit_functions(value, mentioned) if _is_mutable(value) else ():
                    with remembered(type(value)):
                        self.look_at(implicit, [value], {})
        for use in summary(code).uses:
            self._check(use, names)

    def _check(self, use: Use, names: _Names) -> None:
        root = use.root
        if use.action == "sets":
            raise UnsafeError(f"it sets {_words(root)}")
        value = names.value(root)
        if use.action == "calls":
            self._check_call(use, names, value)
        elif value is not PRIVATE and (_is_mutable(value) or (use.action == "writes" and not root.path)):
            raise UnsafeError(f"it changes {_words(root)}")

    def _check_call(self, use: Use, names: _Names, callee: Any) -> None:
        root = use.root
        name = root.path[-1] if root.path and isinstance(root.path[-1], str) else root.name
        owner = names.value(root._replace(path=root.path[:-1])) if root.path else None
        given = tuple(names.joined(one) for one in use.given or ())
        named = {key: names.joined(one) for key, one in use.named}
        if use.given is None:  # any place
            given, named = (_join(list(named.values())),) * 20, {}
        own = getattr(callee, "__self__", None) if isinstance(callee, BuiltinMethodType | MethodType) else None
        _refuse_stateful(own, _words(root))
        if callee is PRIVATE or owner is PRIVATE:
            self._check_arguments(None, name, given, named, _words(root))
            return
        if isinstance(owner, ModuleType) or owner is None:
            if name in PROCESS_WIDE:
                raise UnsafeError(f"it calls {_words(root)}, which changes the whole process")
        elif isinstance(callee, FunctionType) and not isinstance(owner, type):
            given = (owner, *given)
        elif name in MUTATORS and _is_mutable(owner) and not isinstance(owner, type):
            raise UnsafeError(f"it calls {name}() of {_words(root._replace(path=root.path[:-1]))}")
        if isinstance(callee, BuiltinFunctionType) and (name in OPAQUE or (name == "getattr" and _is_own(given))):
            raise UnsafeError(f"it calls {name}(), and what that changes is not known")
        self._check_arguments(callee, name, given, named, _words(root))
        self._check_callbacks(use, names, given)
        if isinstance(callee, FunctionType | MethodType | partial | type) or _has_own_call(callee, names.space):
            self.look_at(callee, list(given), named, names.space)

    def _check_callbacks(self, use: Use, names: _Names, given: tuple[Any, ...]) -> None:
        """Look at functions and methods that a call gets, and may call with all the rest that it gets."""
        for root in frozenset().union(*(use.given or ()), *(value for _, value in use.named)):
            value = names.value(root)
            if isinstance(value, FunctionType):
                owner = names.value(root._replace(path=root.path[:-1])) if root.path else None
                bound = () if owner is None or isinstance(owner, ModuleType | type) else (owner,)
                self.look_at(value, [*bound, *[_join(list(given))] * 20], {}, names.space)
            elif isinstance(value, BuiltinMethodType | MethodType | partial):
                self.look_at(value, [PRIVATE], {}, names.space)

    def _check_arguments(
        self, callee: Any, name: str, given: tuple[Any, ...], named: dict[str, Any], words: str
    ) -> None:
        """Refuse a call that writes to one of its arguments, as to `out=`."""
        for key, value in named.items():
            if key in ("out", "output", "dst") and _is_mutable(value):
                raise UnsafeError(f"{words} writes to a shared array, {key}=")
            if key.startswith("overwrite") and any(map(_is_mutable, given)):
                raise UnsafeError(f"{words} may overwrite a shared array, {key}=")
        by_name = name in CHANGERS | MUTATORS and not isinstance(callee, FunctionType | np.ufunc)
        if by_name and given and _is_mutable(given[0]):
            raise UnsafeError(f"{words} changes a shared object, its first argument")
        place = callee.nin if isinstance(callee, np.ufunc) else OUT_PLACES.get(name)
        if place is not None and callee is not _UNKNOWN and any(map(_is_mutable, given[place:])):
            raise UnsafeError(f"{words} writes to a shared array")


class _Names:
    """Values of what a function names.

    Parameters
    ----------
    arguments : dict
        Those of its arguments: `PRIVATE` for what each call has for itself.
    """

    def __init__(self, function: FunctionType, arguments: dict[str, Any]) -> None:
        self.space = function.__globals__
        self._arguments = arguments
        self._cells: dict[str, Any] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self._cells[name] = cell.cell_contents
            except ValueError:  # not set yet
                self._cells[name] = _UNKNOWN

    def _first(self, root: Root) -> Any:
        if root.kind == "argument":
            return self._arguments.get(root.name, PRIVATE)
        if root.kind == "variable":
            return self._cells.get(root.name, _UNKNOWN)
        if root.kind == "module":
            return _module(root.name)
        builtins: Any = self.space.get("__builtins__", {})
        builtins = vars(builtins) if isinstance(builtins, ModuleType) else builtins
        return self.space.get(root.name, builtins.get(root.name, _UNKNOWN))

    def value(self, root: Root) -> Any:
        """The value that a root has now, `_UNKNOWN` if that cannot be told."""
        value = self._first(root)
        for step in root.path:
            if value is PRIVATE:
                return PRIVATE
            if isinstance(step, Root):
                value = self._returned(self.value(step), value, through=True)
            elif step == "()":
                value = self._returned(value, None, through=False)
            elif step == "[]":
                value = _UNKNOWN if _is_mutable(value) else value
            else:
                value = _attribute(value, step)
        return value

    def _returned(self, callee: Any, given: Any, through: bool) -> Any:
        """What a call may return: one of its arguments if `through`, else something of its own or of its object's."""
        if through and not _is_mutable(given):
            return given
        if isinstance(callee, FunctionType):
            if callee.__globals__ is not self.space:
                return PRIVATE if not through or _is_numeric(callee) else _UNKNOWN
            kinds = {root.kind for root in summary(callee.__code__).returned if not isinstance(root.path[-1:], Root)}
            shared = "argument" in kinds if through else bool(kinds - {"argument", "module"})
            return _UNKNOWN if shared and not _only_calls(callee) else PRIVATE
        if isinstance(callee, type) and not through:
            return PRIVATE
        if isinstance(callee, np.ufunc) or _is_numeric(callee):
            return PRIVATE
        own = getattr(callee, "__self__", None)
        if isinstance(own, np.ndarray) and callee.__name__ not in VIEWS and not through:
            return PRIVATE
        if isinstance(callee, BuiltinFunctionType | BuiltinMethodType) and not through:
            return _UNKNOWN if _is_mutable(own) and not isinstance(own, ModuleType | type) else PRIVATE
        if callee is PRIVATE:
            return PRIVATE if not through else _UNKNOWN
        return _UNKNOWN

    def joined(self, value: Value) -> Any:
        """The value of an expression; of several that may be one the first that can be changed."""
        return _join([self.value(root) for root in value])

    def mentioned(self, name: str) -> Iterator[tuple[str, Any]]:
        """Values that a name may stand for, with words for them."""
        if name in self._cells:
            yield f"the variable {name!r}", self._cells[name]
        elif name in self.space:
            yield f"the global {name!r}", self.space[name]
        if (value := self._arguments.get(name, PRIVATE)) is not PRIVATE:
            yield f"the argument {name!r}", value
        for own in self._arguments.values():
            if own is not PRIVATE and name in (found := _vars(own)) and not isinstance(own, ModuleType):
                yield f"the attribute {name!r} of the {type(own).__name__} object", found[name]


def _only_calls(function: FunctionType) -> bool:
    """True if all that a function returns are results of calls, which are new unless they are known to be views."""
    returned = summary(function.__code__).returned
    return all(root.path and root.path[-1] == "()" for root in returned)


def _is_numeric(callee: Any) -> bool:
    """True for functions of NumPy, SciPy and math that return new arrays."""
    module = (getattr(callee, "__module__", None) or "").partition(".")[0]
    return module in ("numpy", "scipy", "math", "cmath") and getattr(callee, "__name__", "") not in VIEWS


def _join(values: list[Any]) -> Any:
    return next((one for one in values if _is_mutable(one)), values[0] if values else PRIVATE)


def _is_mutable(value: Any) -> bool:
    """True if something may be changed that is shared: no number, text, function, class or module."""
    if value is PRIVATE or isinstance(value, FunctionType | BuiltinFunctionType | np.ufunc | CodeType | np.dtype):
        return False
    return value is _UNKNOWN or not is_constant(value)


def _is_own(given: tuple[Any, ...]) -> bool:
    """True if the first argument is a shared object with attributes of its own."""
    return bool(given) and _is_mutable(given[0]) and not isinstance(given[0], np.ndarray)


def _refuse_stateful(value: Any, words: str) -> None:
    """Refuse iterators, files, generators of random numbers and libraries that threads must not share."""
    if changes_when_read(value):
        raise UnsafeError(f"it uses {words}, which changes when an item is looked up ({type(value).__name__})")
    if isinstance(value, ModuleType):
        if value.__name__ in STATEFUL_MODULES:
            raise UnsafeError(f"{words} is the module {value.__name__}, whose state is one for all threads")
    elif isinstance(value, _STATEFUL) or (not isinstance(value, type) and hasattr(type(value), "__next__")):
        raise UnsafeError(f"it uses {words}, whose state calls share ({type(value).__name__})")


def _bound(function: FunctionType, given: list[Any], named: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a function by name; those of one ``*args`` or ``**kwargs`` as one."""
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    defaults = function.__defaults__ or ()
    bound = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    bound.update(function.__kwdefaults__ or {})
    bound.update(zip(positional, given, strict=False))
    bound.update({name: value for name, value in named.items() if name in names})
    more = iter(code.co_varnames[len(names) :])
    if code.co_flags & 4:
        bound[next(more)] = _join(given[len(positional) :])
    if code.co_flags & 8:
        bound[next(more)] = _join([value for name, value in named.items() if name not in names])
    return {name: bound.get(name, PRIVATE) for name in bound}


def _vars(value: Any) -> dict[str, Any]:
    """The attributes of an object itself; nothing of its own classes is called."""
    try:
        own = object.__getattribute__(value, "__dict__")
    except Exception:
        return {}
    return own if type(own) is dict else {}


def _attribute(value: Any, name: str) -> Any:
    """An attribute, without a call of a function of the user's."""
    if value is _UNKNOWN:
        return _UNKNOWN
    if isinstance(value, ModuleType):
        return vars(value).get(name, _UNKNOWN)
    own = _vars(value)
    if name in own and not isinstance(value, type):
        return own[name]
    found = static(value if isinstance(value, type) else type(value), name)
    if isinstance(found, staticmethod):
        return found.__func__
    if isinstance(found, classmethod):
        return partial(found.__func__, value if isinstance(value, type) else type(value))
    if isinstance(found, FunctionType):
        return found
    if found is not None and (hasattr(type(found), "__get__") or is_constant(value)):
        kind = type(value)
        built_in = kind.__module__ in ("builtins", "numpy") or kind.__module__.startswith("numpy.")
        return getattr(value, name, _UNKNOWN) if built_in and not isinstance(value, type) else _UNKNOWN
    return _UNKNOWN if found is None else found


def _has_own_call(value: Any, space: Any) -> bool:
    """True for an object whose class is of the module that is read, and whose call runs its Python code."""
    method = (
        None
        if value is _UNKNOWN or value is PRIVATE or isinstance(value, ModuleType)
        else static(type(value), "__call__")
    )
    return isinstance(method, FunctionType) and method.__globals__ is space


def _module(name: str) -> Any:
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except Exception:
        return _UNKNOWN


def _words(root: Root) -> str:
    """A root in words."""
    kind = {"module": "", "global": "the global ", "variable": "the variable ", "argument": "the argument "}[root.kind]
    steps = [step for step in root.path if isinstance(step, str)]
    path = "".join(step if step in ("[]", "()") else f".{step}" for step in steps)
    return f"{kind}{root.name}{path}"
