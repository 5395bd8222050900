"""Picklers: of functions with all that they need, of items, and of results."""

from __future__ import annotations

import builtins
import contextlib
import copyreg
import functools
import io
import pickle
import sys
import types
from collections.abc import Callable
from contextvars import ContextVar
from enum import EnumType
from typing import Any

import cloudpickle

from ..._system import reducers
from ..._system.context_variables import reduce_variable
from ..._system.definitions import (
    callers_space,
    define,
    define_once,
    fill_cached,
    fill_class,
    fill_function,
    fill_typing,
    home_of,
    is_received,
    key_of,
    named,
    original,
    space_received,
    update_spaces,
)
from ..._system.modules import added_builtins, is_importable, is_sent
from .arrays import ARRAY_REDUCERS
from .multiprocessing_objects import Attachments, Packed, needs_attachments, reduce, spawning
from .payload import Payload, payload_of, sendable
from .sent_definitions import (
    Closed,
    Definitions,
    Reduced,
    Space,
    base_names,
    globals_of,
    is_light,
    reduce_code,
    wanted_names,
)
from .weak_references import WEAK_REDUCERS

# Causes of causes that travel with an exception.
MAX_CHAIN = 20


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles results: a class or function of the caller is named, and one that was made here travels by value."""

    def __init__(self, stream: Any, buffer_callback: Any = None) -> None:
        # As cloudpickle's, which is a ChainMap: that takes 2 us for each object.
        self.dispatch_table = {**copyreg.dispatch_table, **self._dispatch_table}
        super().__init__(stream, protocol=5, buffer_callback=buffer_callback)
        self.attachments = Attachments()
        # How objects of a type are reduced: the name of a method, or a function. By id, since a type may not be
        # hashable; and no bound methods: with a cycle here all that was pickled would wait for a garbage collection.
        self._reducers: dict[int, str | Callable[[Any], Any] | None] = {}
        self._open_enums: set[int] = set()
        # Ids of the exceptions of whose causes this pickle is one.
        self._chain: frozenset[int] = frozenset()

    def dump(self, obj: Any) -> None:
        """Pickle an object."""
        with spawning(self.attachments):
            super().dump(obj)

    def reducer_override(self, obj: Any) -> Any:
        """How to rebuild `obj`, as from ``__reduce__``; NotImplemented for the usual way."""
        kind = type(obj)
        try:
            reduce = self._reducers[id(kind)]
        except KeyError:
            reduce = self._reducers[id(kind)] = _reducer_of(kind)
        if reduce is None:
            return NotImplemented
        return getattr(self, reduce)(obj) if isinstance(reduce, str) else reduce(obj)

    def _reduce_attached(self, obj: Any) -> Any:
        found = reduce(obj, self.attachments)
        return super().reducer_override(obj) if found is None else found

    # Classes and functions.

    def _reduce_module(self, module: types.ModuleType) -> Any:
        if sys.modules.get(module.__name__) is module and not is_importable(module.__name__):
            cloudpickle.register_pickle_by_value(module)
        return super().reducer_override(module)

    def _reduce_class(self, cls: Any) -> Any:
        if not cls.__flags__ & reducers.HEAP_TYPE:
            return super().reducer_override(cls)
        return self._reduce_definition(cls, self._class_parts) if is_sent(cls) else NotImplemented

    def _reduce_function(self, func: types.FunctionType) -> Any:
        return self._reduce_definition(func, self._function_parts) if is_sent(func) else NotImplemented

    def _reduce_cached(self, cached: Any) -> Any:
        return self._reduce_definition(cached, _cached_parts) if is_sent(cached) else NotImplemented

    def _reduce_typing(self, obj: Any) -> Any:
        if not is_sent(obj):
            return super().reducer_override(obj)
        return self._reduce_definition(obj, _typing_parts)

    def _reduce_definition(self, obj: Any, parts: Callable[[Any], tuple[Any, Any, Any]]) -> tuple[Any, ...]:
        if is_received(obj):
            return original, (key_of(obj),)
        arguments, state, fill = parts(obj)
        return define_once, (key_of(obj), *arguments), state, None, None, fill

    def _class_parts(self, cls: Any) -> tuple[Any, Any, Any]:
        state: tuple[Any, ...] = reducers.class_state(cls)
        if isinstance(cls, EnumType):
            # While its members are pickled they have no names.
            self._open_enums.add(id(cls))
            state = *state, Closed(cls)
        return (reducers.make_class, *reducers.class_arguments(cls, is_sent)), state, fill_class

    def _close(self, closed: Closed) -> Any:
        self._open_enums.discard(id(closed.cls))
        return bool, ()

    def _reduce_member(self, member: Any) -> Any:
        is_open = id(type(member)) in self._open_enums
        return reducers.raw_member(member) if is_open else reducers.named_member(member)

    def _function_parts(self, func: types.FunctionType) -> tuple[Any, Any, Any]:
        attributes, slots = cloudpickle.cloudpickle._function_getstate(func)
        contents = tuple(map(reducers.cell_content, func.__closure__ or ()))
        slots.update(reducers.type_parameters(func), __closure__=None)
        used = slots["__globals__"] | self._builtins_of(func)
        globals_, slots["__globals__"] = self._globals(func.__globals__, used)
        # The cells are empty at first: they may hold the function itself. Functions go on sharing them.
        self._closures.update(map(id, func.__closure__ or ()))
        arguments = types.FunctionType, func.__code__, globals_, func.__name__, None, func.__closure__
        return arguments, (attributes, slots, contents), fill_function

    def _builtins_of(self, func: types.FunctionType) -> dict[str, Any]:
        """Names that a function uses, and that were put into `builtins`."""
        unknown = cloudpickle.cloudpickle._extract_code_globals(func.__code__).keys() - func.__globals__.keys()
        found = {}
        for name, value in added_builtins(unknown).items():
            with contextlib.suppress(Exception):  # as a notebook's `get_ipython`
                dumps(value)
                found[name] = value
        return found

    @functools.cached_property
    def _closures(self) -> set[int]:
        """Ids of cells that belong to functions."""
        return set()

    def _reduce_cell(self, cell: types.CellType) -> tuple[Any, ...]:
        if id(cell) in self._closures:
            return types.CellType, ()
        return types.CellType, (), reducers.cell_content(cell), None, None, reducers.fill_cell

    def _globals(self, names: dict[str, Any], used: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The globals of a function that is made anew, and those of its variables that travel with it."""
        received = space_received(names)
        if received is not None:
            return Reduced(callers_space, *received), {}
        known = self.globals_ref.setdefault(id(names), {})
        if not known:
            known.update(base_names(names))
            known["__builtins__"] = Reduced(vars, builtins)
        return known, used

    # Exceptions.

    def _reduce_exception(self, error: BaseException) -> Any:
        cause = self._chained(error.__cause__)
        context = cause if error.__context__ is error.__cause__ else self._chained(error.__context__)
        if reducers.says_how(type(error)):
            return reducers.parts_of_its_own(error, cause, context)
        return reducers.exception_parts(error, cause, context)

    def _chained(self, error: BaseException | None) -> Any:
        """A cause or context, as an object that is pickled in its place; None if it cannot be."""
        if error is None or id(error) in self._chain or len(self._chain) > MAX_CHAIN:
            return None
        stream = io.BytesIO()
        pickler = Pickler(stream)
        pickler._chain = self._chain | {id(error)}
        try:
            pickler.dump(error)
            pickle.loads(stream.getvalue())
        except Exception:
            return None
        return Reduced(pickle.loads, stream.getvalue())


def _reducer_of(kind: type) -> str | Callable[[Any], Any] | None:
    if issubclass(kind, type):
        return "_reduce_class"
    if issubclass(kind, BaseException):
        return "_reduce_exception"
    if isinstance(kind, EnumType) and is_sent(kind):
        return "_reduce_member"
    if needs_attachments(kind):
        return "_reduce_attached"
    return _REDUCERS.get(id(kind)) or reducers.reducer_of(kind)


def _cached_parts(cached: Any) -> tuple[Any, Any, Any]:
    return (reducers.make_cached, *reducers.cached_arguments(cached)), vars(cached), fill_cached


def _typing_parts(obj: Any) -> tuple[Any, Any, Any]:
    return reducers.typing_arguments(obj), {"__module__": obj.__module__}, fill_typing


_REDUCERS: dict[int, str | Callable[[Any], Any]] = {
    id(types.FunctionType): "_reduce_function",
    id(types.CellType): "_reduce_cell",
    id(types.CodeType): reduce_code,
    id(types.ModuleType): "_reduce_module",
    id(functools._lru_cache_wrapper): "_reduce_cached",
    id(Closed): "_close",
    id(ContextVar): reduce_variable,
    **WEAK_REDUCERS,
    **{id(kind): "_reduce_typing" for kind in reducers.TYPING},
    **ARRAY_REDUCERS,
}


class DefinitionPickler(Pickler):
    """Pickles a session, or a part of the definitions of a call: classes and functions by value, with numbers."""

    def __init__(self, stream: Any, definitions: Definitions, buffer_callback: Any = None) -> None:
        super().__init__(stream, buffer_callback)
        self._definitions = definitions
        self._since = len(definitions.objects)
        # Names of globals in this pickle, by space.
        self._names: list[tuple[Space, dict[str, Any]]] = []
        #: Parts that this pickle needs.
        self.needs: set[int] = set()
        #: Globals that are looked up by name, in pickles and annotations, and sent if that is possible.
        self.wanted: list[tuple[Space, set[str]]] = []

    def define(self, obj: Any, part: int | None = None) -> None:
        """Pickle an object to the stream, for a part with this number; on failure nothing counts as sent."""
        try:
            self.dump(obj)
        except BaseException:
            self._definitions.forget(self._since)
            raise
        for space, names in self._names:
            for name in names:
                space.sent.setdefault(name, part)

    def _reduce_definition(self, obj: Any, parts: Callable[[Any], tuple[Any, Any, Any]]) -> tuple[Any, ...]:
        definitions = self._definitions
        number = definitions.number(obj)
        if number < self._since:
            self._need(definitions.part_of(number))
            return named, (definitions.token, number)
        arguments, state, fill = parts(obj)
        home = home_of(obj)
        space = None if home is None else definitions.space(vars(home))
        if names := wanted_names(obj):
            self.wanted.append((definitions.space(globals_of(obj)), names))
        return define, (definitions.token, number, key_of(obj), space, *arguments), state, None, None, fill

    def _need(self, part: int | None) -> None:
        if part is not None:
            self.needs.add(part)

    def _chained(self, error: BaseException | None) -> Any:
        return error

    def _globals(self, names: dict[str, Any], used: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        space = self._definitions.space(names)
        for name in used.keys() & space.sent.keys():
            self._need(space.sent[name])
        new = self._definitions.unsent(space, used)
        self._names.append((space, new))
        return space, new


class ItemPickler(Pickler):
    """Pickles items of a task: classes are named; those that are new go into a part of their own."""

    def __init__(self, stream: Any, definitions: Definitions) -> None:
        super().__init__(stream)
        self._definitions = definitions

    def _reduce_definition(self, obj: Any, parts: Callable[[Any], tuple[Any, Any, Any]]) -> tuple[Any, ...]:
        definitions = self._definitions
        number = definitions.numbers.get(id(obj))
        if number is None:
            if isinstance(obj, types.FunctionType) and home_of(obj) is None:  # a lambda: likely another one each time
                (make, *args), state, _ = parts(obj)
                return make, tuple(args), state, None, None, reducers.fill_function
            add_part(definitions, obj)
            number = definitions.numbers[id(obj)]
        definitions.need(definitions.part_of(number))
        return named, (definitions.token, number)

    def _chained(self, error: BaseException | None) -> Any:
        return error

    def _globals(self, names: dict[str, Any], used: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        definitions = self._definitions
        space = definitions.space(names)
        new = definitions.unsent(space, used)
        if new:
            add_part(definitions, None, [(space, new)])
        for name in used.keys() & space.sent.keys():
            definitions.need(space.sent[name])
        return space, {}


def add_part(
    definitions: Definitions,
    obj: Any,
    globals_: list[tuple[Space, dict[str, Any]]] | None = None,
    optional: bool = False,
) -> None:
    """Pickle a class or function, or some globals, to a part; an `optional` one may fail in a worker."""
    since, part = len(definitions.objects), len(definitions.parts)
    names = globals_ or []
    content = definitions, obj, Reduced(update_spaces, names)
    arrays: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    pickler = DefinitionPickler(stream, definitions, arrays.append)
    pickler.define(content, part)
    for space, values in names:
        space.sent.update(dict.fromkeys(values, part))
    needs = pickler.needs
    definitions.add(payload_of(optional, stream, arrays, pickler.attachments), since, needs)
    needs |= add_wanted(definitions, pickler.wanted)


def add_wanted(definitions: Definitions, wanted: list[tuple[Space, set[str]]]) -> set[int]:
    """Pickle globals that may be missing, as far as that is possible; return the parts that hold them."""
    parts: set[int] = set()
    for space, names in wanted:
        for name in sorted(names - space.sent.keys()):
            value = space.names.get(name)
            if is_light(value):
                with contextlib.suppress(Exception):
                    add_part(definitions, None, [(space, {name: value})], optional=True)
        parts |= {part for name in names if (part := space.sent.get(name)) is not None}
    return parts


def dumps(obj: Any) -> bytes:
    """Pickle a result with its arrays to one bytes object."""
    stream = io.BytesIO()
    pickler = Pickler(stream)
    pickler.dump(obj)
    return Packed.with_attachments(stream.getvalue(), pickler.attachments)


def dumps_items(items: Any, definitions: Definitions) -> bytes:
    """Pickle items of a task to one bytes object; `definitions.take_needed` then tells what they need."""
    stream = io.BytesIO()
    pickler = ItemPickler(stream, definitions)
    pickler.dump(items)
    return Packed.with_attachments(stream.getvalue(), pickler.attachments)


def dump(
    first: Any, second: Any, definitions: Definitions | None = None, sending: tuple[str, ...] = ("the function",)
) -> Payload:
    """Pickle two objects, functions of notebooks and scripts included.

    The first is unpickled before the second, which may need it (a module path, for example). `sending` has the
    arguments of `sendable`: what the second is, in an error.

    Raises
    ------
    TypeError
        If the second cannot be pickled.
    """
    arrays: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    with sendable(*sending):
        if definitions is None:
            pickler = Pickler(stream, arrays.append)
            pickler.dump(second)
        else:
            pickler = definer = DefinitionPickler(stream, definitions, arrays.append)
            definer.define(second)
            definitions.begun = True
            definitions.always |= add_wanted(definitions, definer.wanted)
    return payload_of(first, stream, arrays, pickler.attachments)
