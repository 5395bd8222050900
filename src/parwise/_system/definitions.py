"""Definitions: classes and functions that travel by value, once per call, and are then named.

The caller numbers each class and function that it sends; a worker keeps them in a `Table`, by number, as long as the
call lasts. Tasks name them by number. Each also has a key, which holds for all calls: by the key a result names a class
of the caller, and the caller looks up its own.

Globals of functions are kept apart by *spaces*: all functions of one module share one dict in the worker, and a global
variable goes there once. The space of ``__main__`` is a module of that name in the worker.
"""

from __future__ import annotations

import builtins
import importlib.util
import itertools
import os
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from enum import EnumType
from typing import Any, NamedTuple

from cloudpickle import cloudpickle

from . import reducers


def is_sent(obj: Any) -> bool:
    """True if a class or function travels by value, since another process cannot import it."""
    if isinstance(obj, type) and not obj.__flags__ & 1 << 9:  # no heap type
        return False
    found = cloudpickle._lookup_module_and_qualname(obj)
    return found is None or cloudpickle._is_registered_pickle_by_value(found[0])


def home_of(obj: Any) -> types.ModuleType | None:
    """The module in which a class or function that travels by value is found by its name."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    name = getattr(obj, "__qualname__", "")
    return module if module is not None and vars(module).get(name) is obj else None


# Keys.


class _Key(NamedTuple):
    obj: weakref.ref[Any]
    key: str
    received: bool


_keys: dict[int, _Key] = {}
# Objects by their key: those of this process, and those that came from another one.
_own: dict[str, weakref.ref[Any]] = {}
_received: dict[str, weakref.ref[Any]] = {}
_numbers = itertools.count()
_process = os.urandom(8).hex()


def _new_process() -> None:
    global _process
    _process = os.urandom(8).hex()


os.register_at_fork(after_in_child=_new_process)


def key_of(obj: Any) -> str:
    """The key of a class or function, made when first asked for."""
    known = _keys.get(id(obj))
    return known.key if known is not None else _note(obj, f"{_process}-{next(_numbers)}", False)


def is_received(obj: Any) -> bool:
    """True if another process has sent this class or function."""
    known = _keys.get(id(obj))
    return known is not None and known.received


def _note(obj: Any, key: str, received: bool) -> str:
    number, places = id(obj), _received if received else _own

    def forget(ref: weakref.ref[Any]) -> None:
        _keys.pop(number, None)
        if places.get(key) is ref:
            del places[key]

    ref = weakref.ref(obj, forget)
    places[key] = ref
    _keys[number] = _Key(ref, key, received)
    return key


def _known(key: str) -> Any:
    for places in (_own, _received):
        ref = places.get(key)
        obj = None if ref is None else ref()
        if obj is not None:
            return obj
    return None


def original(key: str) -> Any:
    """The object of a key: that of this process if it has one."""
    found = _known(key)
    if found is None:
        raise LookupError("a class or function that a worker kept from an earlier call is gone from this process")
    return found


# What a call has sent.


class Space:
    """The globals of some functions, and the part that has sent each of their names; None stands for the session."""

    def __init__(self, number: int, names: dict[str, Any], token: str) -> None:
        self.names = names
        self.sent: dict[str, int | None] = {}
        module = sys.modules.get(names.get("__name__") or "")
        self._place = token, number, None if module is None or vars(module) is not names else module.__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return open_space, (*self._place, base_names(self.names))


def base_names(names: dict[str, Any]) -> dict[str, Any]:
    """Globals that imports relative to the module need."""
    return {name: names[name] for name in ("__package__", "__name__", "__path__", "__file__") if name in names}


class Definitions:
    """The definitions that one call has sent: with the session, and in *parts* that only some tasks need.

    With `share` the functions of all calls share their globals, as in a pool with an initializer.
    """

    def __init__(self, share: bool = False) -> None:
        self.token = f"{_process}-{next(_numbers)}"
        self.share = share
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.spaces: list[Space] = []
        self._space_of: dict[int, Space] = {}
        self.parts: list[Any] = []
        self._needs: list[set[int]] = []
        self._part_of: dict[int, int] = {}
        # Parts that objects need which were pickled since the last `take_needed`.
        self._needed: set[int] = set()
        _calls[self.token] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return open_table, (self.token, self.share)

    def number(self, obj: Any) -> int:
        """The number of a class or function, a new one if it has none."""
        number = self.numbers.setdefault(id(obj), len(self.objects))
        if number == len(self.objects):
            self.objects.append(obj)
        return number

    def forget(self, number: int) -> None:
        """Forget all definitions from a number on, whose pickle failed."""
        for obj in self.objects[number:]:
            del self.numbers[id(obj)]
        del self.objects[number:]

    def space(self, names: dict[str, Any]) -> Space:
        """The space of some globals."""
        found = self._space_of.get(id(names))
        if found is None:
            found = self._space_of[id(names)] = Space(len(self.spaces), names, self.token)
            self.spaces.append(found)
        return found

    def add(self, part: Any, since: int, needs: set[int]) -> None:
        """Add a part with the definitions from number `since` on; `needs` are other parts."""
        self._part_of.update(dict.fromkeys(range(since, len(self.objects)), len(self.parts)))
        self.parts.append(part)
        self._needs.append(needs)

    def part_of(self, number: int) -> int | None:
        """The part that holds a definition; None if that is the session."""
        return self._part_of.get(number)

    def need(self, part: int | None) -> None:
        """Note that the object being pickled needs a part."""
        if part is not None:
            self._needed.add(part)

    def take_needed(self) -> list[int]:
        """Parts that the objects pickled since the last call of this need, in the order in which they were made."""
        found: set[int] = set()
        waiting, self._needed = self._needed, set()
        while waiting:
            part = waiting.pop()
            found.add(part)
            waiting |= self._needs[part] - found
        return sorted(found)


_calls: weakref.WeakValueDictionary[str, Definitions] = weakref.WeakValueDictionary()


# What a process has been sent.


class Table:
    """The definitions of one call in a process that computes some of its tasks; parts are unpickled when needed."""

    def __init__(self, token: str, share: bool) -> None:
        self.token, self.share = token, share
        self.objects: dict[int, Any] = {}
        self.spaces: dict[int, dict[str, Any]] = {}
        self.waiting: list[Callable[[], Any]] = []
        self._modules: dict[str, types.ModuleType] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return open_table, (self.token, self.share)

    def load_waiting(self) -> None:
        """Unpickle the parts that have come."""
        while self.waiting:
            load = self.waiting.pop(0)
            try:
                load()
            except BaseException:
                self.waiting.insert(0, load)
                raise

    def open_space(self, number: int, module: str | None, base: dict[str, Any]) -> dict[str, Any]:
        """The globals with a number, which other functions may have."""
        self.load_waiting()
        names = self.spaces.get(number)
        if names is None:
            names = self._make_space(module, base)
            self.spaces[number] = names
            place = weakref.ref(self), number
            _spaces[id(names)] = place
            weakref.finalize(self, _forget_space, id(names), place)
        return names

    def _make_space(self, module: str | None, base: dict[str, Any]) -> dict[str, Any]:
        made = types.ModuleType(base.get("__name__") or "")
        names = vars(made)
        names.update(base)
        names["__builtins__"] = builtins if module == "__main__" else vars(builtins)
        if self.share:
            made = shared_modules.setdefault(made.__name__, made)
        if module is not None and _installs and _takes_place(module):
            self._modules[module] = made
            self.install()
        return vars(made)

    def install(self) -> None:
        """Let modules of the call take their places in `sys.modules`."""
        sys.modules.update(self._modules)


#: Modules whose globals functions of all calls share, where an initializer may have set some; by name.
shared_modules: dict[str, types.ModuleType] = {}


def _forget_space(number: int, place: Any) -> None:
    if _spaces.get(number) is place:
        del _spaces[number]


def _takes_place(module: str) -> bool:
    if module in ("__main__", "__mp_main__"):
        return True
    known = sys.modules.get(module)
    if known is not None:
        return known.__spec__ is None  # of an earlier call
    return "." not in module and importlib.util.find_spec(module) is None


_tables: weakref.WeakValueDictionary[str, Table] = weakref.WeakValueDictionary()
_spaces: dict[int, tuple[weakref.ref[Table], int]] = {}
# True in parwise's own workers, which have no other work.
_installs = False
_main: types.ModuleType | None = None


def install_modules() -> None:
    """Let modules that are sent take their places in `sys.modules` of this process."""
    global _installs, _main
    _installs, _main = True, sys.modules["__main__"]


def clear_main() -> None:
    """Remove the ``__main__`` of the last call."""
    if _main is not None:
        sys.modules["__main__"] = _main


def open_table(token: str, share: bool = False) -> Table:
    """The table of a call in this process."""
    table = _tables.get(token)
    if table is None:
        table = _tables[token] = Table(token, share)
    table.share |= share
    return table


# Called by pickles.


def named(token: str, number: int) -> Any:
    """The definition with a number."""
    table = _tables[token]
    if number not in table.objects:
        table.load_waiting()
    return table.objects[number]


def open_space(token: str, number: int, module: str | None, base: dict[str, Any]) -> dict[str, Any]:
    """The globals with a number."""
    return _tables[token].open_space(number, module, base)


def callers_space(token: str, number: int, module: str | None) -> dict[str, Any]:
    """The caller's own globals, for a function that a worker has made."""
    definitions = _calls.get(token)
    if definitions is not None:
        return definitions.spaces[number].names
    table = _tables.get(token)  # a worker that looks whether its result can be unpickled
    return vars(sys.modules[module or "__main__"]) if table is None else table.spaces[number]


def space_received(names: dict[str, Any]) -> tuple[str, int, str | None] | None:
    """Token, number and module of globals that the caller has sent."""
    ref, number = _spaces.get(id(names), (None, 0))
    table = None if ref is None else ref()
    return None if table is None else (table.token, number, names.get("__name__"))


# Ids of definitions that have been made and not filled.
_unfilled: set[int] = set()


def define(token: str, number: int, key: str, home: dict[str, Any] | None, make: Callable[..., Any], *args: Any) -> Any:
    """Make a class or function in the table of a call, once."""
    table = _tables[token]
    obj = table.objects.get(number)
    if obj is not None:
        return obj
    # In a pool with an initializer, what that has set on a class stays.
    known = _received.get(key) if table.share and not (args and issubclass(type(args[1]), EnumType)) else None
    obj = None if known is None else known()
    if obj is None:
        obj = make(*args)
        _note(obj, key, True)
    _unfilled.add(id(obj))
    table.objects[number] = obj
    if home is not None:
        home[obj.__qualname__] = obj
    return obj


def define_once(key: str, make: Callable[..., Any], *args: Any) -> Any:
    """Make a class or function that another process has made itself, unless this one knows it."""
    obj = _known(key)
    if obj is None:
        obj = make(*args)
        _note(obj, key, True)
        _unfilled.add(id(obj))
    return obj


def fill_class(cls: type, state: Any) -> None:
    """Set the attributes of a class that has just been made."""
    if _is_new(cls):
        reducers.fill_class(cls, state)


def fill_function(func: types.FunctionType, state: Any) -> None:
    """Set the attributes of a function that has just been made."""
    if _is_new(func):
        reducers.fill_function(func, state)


def fill_cached(cached: Any, state: dict[str, Any]) -> None:
    """Set the attributes of a function with a cache that has just been made."""
    if _is_new(cached):
        vars(cached).update(state)


def _is_new(obj: Any) -> bool:
    new = id(obj) in _unfilled
    _unfilled.discard(id(obj))
    return new


def update_spaces(updates: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Set global variables, the content of a part."""
    for names, values in updates:
        names.update(values)
