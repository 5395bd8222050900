"""Reducers: how objects that pickle cannot take apart are taken apart in one process and rebuilt in another.

Classes are rebuilt without their metaclass's code and without ``__init_subclass__``: nothing of the caller's program
runs a second time, and whatever such code has done is part of the state that travels.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found]
import abc
import contextlib
import dataclasses
import functools
import gc
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

#: Modules with metaclasses that only prepare a class, so that a class can be made without them.
_PREPARING = ("builtins", "abc", "enum", "typing")
# Attributes that Python itself makes, or copyreg has noted.
_MADE = {"__dict__", "__weakref__", "__module__", "_abc_impl", "__slotnames__", "__annotate_func__", "__annotate__"}
#: Flag of types that can be changed, as those that users define.
HEAP_TYPE = 1 << 9
_lock = threading.Lock()


# Classes.


def class_arguments(cls: type, is_sent: Callable[[Any], bool]) -> tuple[Any, ...]:
    """Arguments of `make_class`; `is_sent` tells which classes travel by value."""
    names = vars(cls)
    body: dict[str, Any] = {"__qualname__": cls.__qualname__}
    body.update({name: names[name] for name in ("__module__", "__orig_bases__", "__firstlineno__") if name in names})
    if isinstance(names.get("__dict__"), property):
        body["__dict__"] = names["__dict__"]
    if "__slots__" in names:
        made = (types.MemberDescriptorType, types.GetSetDescriptorType)
        body["__slots__"] = tuple(name for name, value in names.items() if type(value) in made and _is_own(cls, value))
    meta: Any = type(cls)
    imported = next(one for one in meta.__mro__ if not is_sent(one))
    definer = next(one for one in cls.__mro__[1:] if "__init_subclass__" in vars(one))
    if imported.__module__ in _PREPARING:
        return None, meta, cls.__name__, cls.__bases__, body, definer if is_sent(definer) else None
    bases = names.get("__orig_bases__", cls.__bases__)
    return imported, meta, cls.__name__, bases if imported is meta else cls.__bases__, body, None


def _is_own(cls: type, descriptor: Any) -> bool:
    return getattr(descriptor, "__objclass__", None) is cls


def make_class(
    imported: type | None, meta: type, name: str, bases: tuple[Any, ...], body: dict[str, Any], definer: type | None
) -> type:
    """Make a class without the content that `fill_class` adds.

    Parameters
    ----------
    imported : type, optional
        A library's metaclass, which must make the class itself.
    definer : type, optional
        The base whose ``__init_subclass__`` Python would call.
    """
    if imported is meta:
        return types.new_class(name, bases, {"metaclass": meta}, lambda names: names.update(body))
    if imported is not None:
        made: type = imported.__new__(meta, name, bases, body)
        return made
    with contextlib.nullcontext() if definer is None else _silent(definer):
        made = type.__new__(meta, name, bases, body)
    if issubclass(meta, abc.ABCMeta):
        _abc._abc_init(made)
    return made


@contextlib.contextmanager
def _silent(definer: type) -> Iterator[None]:
    """Replace the ``__init_subclass__`` of a class for a moment."""
    with _lock:
        own = vars(definer).get("__init_subclass__")
        type.__setattr__(definer, "__init_subclass__", classmethod(lambda cls, **options: None))
        try:
            yield
        finally:
            if own is None:  # a class that has not been filled itself
                type.__delattr__(definer, "__init_subclass__")
            else:
                type.__setattr__(definer, "__init_subclass__", own)


def class_state(cls: type) -> tuple[dict[str, Any], list[type]]:
    """Attributes of a class, in order, and the classes registered at an abstract one."""
    state = {
        name: value
        for name, value in dict(vars(cls)).items()
        if name not in _MADE and not (_is_made(value) and _is_own(cls, value))
    }
    if sys.version_info >= (3, 14) and "__annotate_func__" in vars(cls):
        with contextlib.suppress(Exception):
            state["__annotations__"] = cls.__annotations__
    registered = abc._get_dump(cls)[0] if isinstance(cls, abc.ABCMeta) else ()  # type: ignore[attr-defined]
    return state, [one for ref in registered if (one := ref()) is not None]


def _is_made(value: Any) -> bool:
    """True for descriptors that Python makes from ``__slots__`` and ctypes from ``_fields_``."""
    kind = type(value)
    return kind in (types.MemberDescriptorType, types.GetSetDescriptorType) or kind.__module__ == "_ctypes"


def fill_class(cls: type, state: tuple[dict[str, Any], list[type]]) -> None:
    """Set the attributes of a class that `make_class` has made, past the ``__setattr__`` of its metaclass."""
    for name, value in state[0].items():
        try:
            type.__setattr__(cls, name, value)
        except TypeError:  # a metaclass of C, which has its own way
            setattr(cls, name, value)
    for one in state[1]:
        abc.ABCMeta.register(cls, one)  # type: ignore[arg-type]


# Members of an enumeration: raw while the class itself is pickled, afterwards by name.


def raw_member(member: Any) -> tuple[Any, ...]:
    """Reduce a member to its data, for the class that holds it."""
    reduced: Any = object.__reduce_ex__(member, 2)
    args = reduced[1]
    first, *others = args
    others = others if first is type(member) else list(args)
    return _make_member, (type(member), type(member)._member_type_, tuple(others)), vars(member), None, None, _fill


def _make_member(cls: Any, data: type, args: tuple[Any, ...]) -> Any:
    return data.__new__(cls, *args)


def _fill(obj: Any, state: dict[str, Any]) -> None:
    vars(obj).update(state)


def named_member(member: Any) -> tuple[Any, ...]:
    """Reduce a member to its class and name; a combination of flags to its value."""
    cls = type(member)
    if cls._member_map_.get(member._name_) is member:
        return _member, (cls, member._name_)
    return cls, (member._value_,)


def _member(cls: Any, name: str) -> Any:
    return cls._member_map_[name]


# Functions.


def type_parameters(func: Any) -> dict[str, Any]:
    """Type parameters of a function, which cloudpickle 3.1.3 leaves out; none before Python 3.12."""
    found = getattr(func, "__type_params__", ())
    return {"__type_params__": found} if found else {}


def fill_function(func: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any], tuple[Any, ...]]) -> None:
    """Set the attributes, globals and free variables of a function."""
    attributes, slots, contents = state
    vars(func).update(attributes)
    func.__globals__.update(slots.pop("__globals__"))
    del slots["__closure__"]
    for cell, content in zip(func.__closure__ or (), contents, strict=True):
        if content:
            (cell.cell_contents,) = content
    for name, value in slots.items():
        setattr(func, name, value)


def cell_content(cell: types.CellType) -> tuple[Any, ...]:
    """The content of a cell in a tuple, which is empty if the cell is."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def fill_cell(cell: types.CellType, content: tuple[Any, ...]) -> None:
    """Set the content of a cell that belongs to no function."""
    if content:
        (cell.cell_contents,) = content


def make_cached(func: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Make a function with an empty cache, as `functools.lru_cache` does."""
    return functools.lru_cache(maxsize, typed)(func)


def cached_arguments(cached: Any) -> tuple[Any, ...]:
    """Arguments of `make_cached`."""
    parameters = cached.cache_parameters()
    return cached.__wrapped__, parameters["maxsize"], parameters["typed"]


def fill_cached(cached: Any, state: dict[str, Any]) -> None:
    """Set the attributes of a function with a cache."""
    vars(cached).update(state)


# Other objects of the standard library that classes and decorated functions hold.


def _cached_property(obj: Any) -> tuple[Any, ...]:
    # Python 3.11 keeps a lock in it, which cannot be pickled.
    state = {name: value for name, value in vars(obj).items() if name != "lock"}
    return type(obj), (obj.func,), state


def _partial_method(obj: Any) -> tuple[Any, ...]:
    # Python 3.14 makes none without its function.
    return object.__new__, (type(obj),), vars(obj)


def _proxy(obj: types.MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    # The dict itself, which a function may go on changing, as `functools.singledispatch` does.
    (names,) = gc.get_referents(obj)
    return types.MappingProxyType, (names if type(names) is dict else dict(obj),)


def _missing(obj: Any) -> Any:
    # Compared by identity.
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY"):
        if obj is getattr(dataclasses, name):
            return getattr, (dataclasses, name)
    return NotImplemented


# Objects of typing, which pickle finds by their name in a module only.


def typing_arguments(obj: Any) -> tuple[Any, ...]:
    """A function that makes such an object anew, and its arguments."""
    if isinstance(obj, typing.NewType):
        return typing.NewType, obj.__name__, obj.__supertype__
    if isinstance(obj, typing.TypeVarTuple):
        return typing.TypeVarTuple, obj.__name__
    if hasattr(obj, "__value__"):
        return type(obj), obj.__name__, obj.__value__
    options = {name: getattr(obj, f"__{name}__") for name in ("bound", "covariant", "contravariant")}
    if getattr(obj, "__infer_variance__", False):
        options = {"bound": obj.__bound__, "infer_variance": True}
    return _make_variable, type(obj), obj.__name__, getattr(obj, "__constraints__", ()), options


def _make_variable(kind: Any, name: str, constraints: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return kind(name, *constraints, **options)


# Python 3.12 has it: ``type Number = int | float``.
_ALIAS = getattr(typing, "TypeAliasType", typing.NewType)
TYPING = (typing.NewType, typing.ParamSpec, typing.TypeVarTuple, typing.TypeVar, _ALIAS)


def _property(obj: property) -> tuple[Any, ...]:
    return _make_property, (type(obj), obj.fget, obj.fset, obj.fdel, obj.__doc__), getattr(obj, "__dict__", None)


def _make_property(cls: type[property], *content: Any) -> property:
    made = cls.__new__(cls)
    property.__init__(made, *content)
    return made


# Reducers by the id of an object's exact type, which may not be hashable.
_REDUCERS: dict[int, Callable[[Any], Any]] = {
    id(functools.cached_property): _cached_property,
    id(functools.partialmethod): _partial_method,
    id(types.MappingProxyType): _proxy,
}


def reducer_of(kind: type) -> Callable[[Any], Any] | None:
    """The reducer of objects of a type, if it has one here."""
    found = _REDUCERS.get(id(kind))
    if found is None and issubclass(kind, property) and kind is not property:
        return _property
    if found is None and kind.__module__ == "dataclasses":
        return _missing
    return found


# Exceptions: rebuilt without their `__init__`, whose parameters may differ from `args`.


def says_how(kind: type[BaseException]) -> bool:
    """True if a class of exceptions says itself how it is pickled."""
    return any(isinstance(getattr(kind, name), types.FunctionType) for name in _PICKLING)


_PICKLING = ("__reduce_ex__", "__reduce__", "__setstate__")


def parts_of_its_own(error: BaseException, cause: Any, context: Any) -> Any:
    """Reduce an exception as its class says, and add what it leaves out."""
    reduced = error.__reduce_ex__(5)
    if not isinstance(reduced, tuple) or len(reduced) > 3:
        return reduced
    make, args, *state = reduced
    notes = vars(error).get("__notes__")
    return make, args, (tuple(state), notes, cause, context, error.__suppress_context__), None, None, _add_to_exception


def _add_to_exception(error: Any, content: tuple[Any, ...]) -> None:
    state, notes, cause, context, suppress = content
    for one in state:
        error.__setstate__(one)
    if not isinstance(error, BaseException):
        return
    if notes is not None:
        vars(error)["__notes__"] = notes
    error.__cause__, error.__context__, error.__suppress_context__ = cause, context, suppress


def exception_parts(
    error: BaseException, cause: Any, context: Any
) -> tuple[Callable[..., Any], tuple[Any, ...], Any, None, None, Callable[..., None]]:
    """Reduce an exception with its cause and context."""
    base: Any = type(error)
    while base.__module__ != "builtins":
        base = base.__base__
    if isinstance(error, BaseExceptionGroup):
        args: Any = error.message, error.exceptions
    else:
        reduced: Any = base.__reduce__(error)
        args = reduced[1]
    state = error.args, _exception_state(error, base), cause, context, error.__suppress_context__
    return make_exception, (type(error), base, args), state, None, None, fill_exception


def _exception_state(error: BaseException, base: type[BaseException]) -> tuple[dict[str, Any], ...]:
    """Attributes of an exception: those of Python's own type, those in slots, and the others."""
    own: dict[str, Any] = {}
    slots: dict[str, Any] = {}
    for one in type(error).__mro__:
        for name, value in vars(one).items():
            if _is_member(value) and name != "obj":  # of an AttributeError: any object at all
                with contextlib.suppress(AttributeError):  # an empty slot
                    (own if one in base.__mro__ else slots)[name] = getattr(error, name)
    return own, slots, dict(vars(error))


def _is_member(value: Any) -> bool:
    return type(value) is types.MemberDescriptorType


def make_exception(kind: type[BaseException], base: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Make an exception as Python's own type does."""
    error: BaseException = base.__new__(kind, *args)
    with contextlib.suppress(TypeError, ValueError):  # arguments that were never meant for it
        base.__init__(error, *args)
    return error


def fill_exception(error: BaseException, state: tuple[Any, ...]) -> None:
    """Set the attributes, the cause and the context of an exception."""
    args, (own, slots, attributes), cause, context, suppress = state
    error.args = args
    for name, value in own.items():
        with contextlib.suppress(AttributeError, TypeError):  # some can only be read
            if value is not None:
                BaseException.__setattr__(error, name, value)
            elif getattr(error, name) is not None:  # to set None would show in its text
                BaseException.__delattr__(error, name)
    for name, value in slots.items():
        BaseException.__setattr__(error, name, value)
    vars(error).update(attributes)
    error.__cause__, error.__context__, error.__suppress_context__ = cause, context, suppress
