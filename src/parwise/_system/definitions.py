"""Definitions: classes and functions that travel by value, once per call, and are then named.

The caller numbers each class and function that it sends; a worker keeps them in a `Table`, by number, as long as the
call lasts. Tasks name them by number. Each also has a key, which holds for all calls: by the key a result names a class
of the caller, and the caller looks up its own.

Globals of functions are kept apart by *spaces*: all functions of one module share one dict in the worker, and a global
variable goes there once. The space of ``__main__`` is a module of that name in the worker.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import itertools
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from enum import EnumType
from typing import Any

from . import reducers


def home_of(obj: Any) -> types.ModuleType | None:
    """The module in which a class or function that travels by value is found by its name."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    return module if module is not None and vars(module).get(name_of(obj)) is obj else None


def name_of(obj: Any) -> str:
    """The name of a definition within its module."""
    name: str = getattr(obj, "__qualname__", "") or obj.__name__
    return name


# Keys.


class Registry:
    """Objects by a key, with a note on each; it keeps none alive.

    No callback removes those that are gone: Ctrl-C within one would be printed and lost.
    """

    def __init__(self) -> None:
        self._entries: dict[Any, tuple[Callable[[], Any], Any]] = {}
        self._limit = 64
        self._lock = threading.RLock()

    def put(self, key: Any, obj: Any, note: Any = None) -> None:
        """Add an object."""
        with self._lock:
            if len(self._entries) >= self._limit:
                self._forget_dead()
            try:
                self._entries[key] = weakref.ref(obj), note
            except TypeError:  # an alias of typing: it stays alive
                self._entries[key] = (lambda: obj), note

    def _forget_dead(self) -> None:
        self._entries = {one: entry for one, entry in self._entries.items() if entry[0]() is not None}
        self._limit = max(64, 2 * len(self._entries))

    def get(self, key: Any) -> Any:
        """The object of a key, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]()

    def note(self, key: Any, obj: Any) -> Any:
        """The note on an object, or None."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0]() is obj else None


# Keys of objects, and whether they came from another process, by id.
_keys = Registry()
# Objects by their key: those of this process, and those that came from another one.
_own = Registry()
_received = Registry()
_numbers = itertools.count()
_process = os.urandom(8).hex()


def _new_process() -> None:
    global _process
    _process = os.urandom(8).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_process)


def key_of(obj: Any) -> str:
    """The key of a class or function, made when first asked for."""
    known: tuple[str, bool] | None = _keys.note(id(obj), obj)
    return known[0] if known is not None else _note(obj, new_token(), False)


def is_received(obj: Any) -> bool:
    """True if another process has sent this class or function."""
    known = _keys.note(id(obj), obj)
    return known is not None and bool(known[1])


def _note(obj: Any, key: str, received: bool) -> str:
    (_received if received else _own).put(key, obj)
    _keys.put(id(obj), obj, (key, received))
    return key


def _known(key: str) -> Any:
    found = _own.get(key)
    return _received.get(key) if found is None else found


def original(key: str) -> Any:
    """The object of a key: that of this process if it has one."""
    found = _known(key)
    if found is None:
        raise LookupError(
            "a class or function that a worker kept from an earlier call no longer exists in this process"
        )
    return found


#: What the calls of this process have sent, by token.
calls = Registry()


def new_token() -> str:
    """A name that no other process uses."""
    return f"{_process}-{next(_numbers)}"


# What a process has been sent.


class Table:
    """The definitions of one call in a process that computes some of its tasks; parts are unpickled when needed."""

    def __init__(self, token: str, share: bool) -> None:
        self.token, self.share = token, share
        self.objects: dict[int, Any] = {}
        self.spaces: dict[int, dict[str, Any]] = {}
        # Parts that have come; the late ones name definitions of the session.
        self._waiting: list[tuple[bool, Callable[[], Any]]] = []
        self._loading = self.begun = False
        self._modules: dict[str, types.ModuleType] = {}

    def add(self, late: bool, load: Callable[[], Any]) -> None:
        """Add a part, to be unpickled when a task begins or names what it holds."""
        self._waiting.append((late, load))

    def begin(self) -> None:
        """Note that the session, or a call with all its definitions, has been unpickled."""
        self.begun = True
        self.load_waiting()

    def load_waiting(self) -> None:
        """Unpickle the parts that have come, one after another: each may name definitions of those before it."""
        if self._loading:
            return
        self._loading = True
        try:
            self._load_waiting()
        finally:
            self._loading = False

    def _load_waiting(self) -> None:
        while self._waiting and (self.begun or not self._waiting[0][0]):
            self._waiting[0][1]()
            del self._waiting[0]

    def open_space(self, number: int, module: str | None, base: dict[str, Any]) -> dict[str, Any]:
        """The globals with a number, which other functions may have."""
        self.load_waiting()
        names = self.spaces.get(number)
        if names is None:
            names = self._make_space(module, base)
            self.spaces[number] = names
            _spaces.put(id(names), self, number)
        return names

    def _make_space(self, module: str | None, base: dict[str, Any]) -> dict[str, Any]:
        made = types.ModuleType(base.get("__name__") or "")
        names = vars(made)
        names.update(base)
        names["__builtins__"] = builtins if module == "__main__" else vars(builtins)
        if self.share:
            made = shared_modules.setdefault(made.__name__, made)
        if "__name__" not in base:  # the code of `exec` may have none
            vars(made).pop("__name__", None)
        if module is not None and _takes_place(module):
            self._modules[module] = made
            if _installs:
                sys.modules[module] = made
        return vars(made)

    def install(self) -> None:
        """Let modules of the call take their places in `sys.modules`."""
        sys.modules.update(self._modules)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Let ``__main__`` take its place for one task, in a process that has other work; not in the caller's own."""
        global _guests
        made, call = self._modules.get("__main__"), calls.get(self.token)
        # A worker of parwise has it in place.
        if made is None or _installs or (call is not None and call.owner == os.getpid()):
            yield
            return
        with _lock:
            alone, before = _guests == 0, sys.modules["__main__"]
            _guests += 1
            if alone:
                # The process may have other names in its own.
                vars(made).setdefault("__getattr__", before.__getattribute__)
                sys.modules["__main__"] = made
        try:
            yield
        finally:
            with _lock:
                _guests -= 1
                if alone:
                    sys.modules["__main__"] = before


#: Modules whose globals functions of all calls share, where an initializer may have set some; by name.
shared_modules: dict[str, types.ModuleType] = {}


def _takes_place(module: str) -> bool:
    if module in ("__main__", "__mp_main__"):
        return True
    known = sys.modules.get(module)
    if known is not None:
        return known.__spec__ is None  # of an earlier call
    return "." not in module and importlib.util.find_spec(module) is None


_tables = Registry()
# Tables by the id of globals, with their number.
_spaces = Registry()
# True in parwise's own workers, which have no other work.
_installs = False
# Tasks of others at work in this process.
_guests = 0
_lock = threading.Lock()
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
    table: Table | None = _tables.get(token)
    if table is None:
        table = Table(token, share)
        _tables.put(token, table)
    table.share |= share
    return table


# Called by pickles.


def named(token: str, number: int) -> Any:
    """The definition with a number."""
    table = _tables.get(token)
    if number not in table.objects:
        table.load_waiting()
    return table.objects[number]


def open_space(token: str, number: int, module: str | None, base: dict[str, Any]) -> dict[str, Any]:
    """The globals with a number in the table of a call."""
    table: Table = _tables.get(token)
    return table.open_space(number, module, base)


def callers_space(token: str, number: int, module: str | None) -> dict[str, Any]:
    """The caller's own globals, for a function that a worker has made."""
    definitions = calls.get(token)
    if definitions is not None:
        found: dict[str, Any] = definitions.spaces[number].names
        return found
    table: Table | None = _tables.get(token)  # a worker that looks whether its result can be unpickled
    if table is not None:
        return table.spaces[number]
    return vars(sys.modules[module or "__main__"])


def space_received(names: dict[str, Any]) -> tuple[str, int, str | None] | None:
    """Token, number and module of globals that the caller has sent."""
    table: Table | None = _spaces.get(id(names))
    number = _spaces.note(id(names), table)
    if table is None or table.spaces.get(number) is not names:
        return None
    return table.token, number, names.get("__name__")


# Ids of definitions that have been made and not filled.
_unfilled: set[int] = set()


def define(token: str, number: int, key: str, home: dict[str, Any] | None, make: Callable[..., Any], *args: Any) -> Any:
    """Make a class or function in the table of a call, once."""
    table = _tables.get(token)
    obj = table.objects.get(number)
    if obj is not None:
        return obj
    # In a pool with an initializer, what that has set on a class stays.
    shared = table.share and not (isinstance(args[1], type) and issubclass(args[1], EnumType))
    obj = _received.get(key) if shared else None
    if obj is None:
        obj = make(*args)
        _note(obj, key, True)
    _unfilled.add(id(obj))
    table.objects[number] = obj
    if home is not None:
        home[name_of(obj)] = obj
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


def fill_typing(obj: Any, state: dict[str, Any]) -> None:
    """Set the attributes of an object of typing."""
    if _is_new(obj):
        with contextlib.suppress(AttributeError):  # that of an alias can only be read
            obj.__module__ = state["__module__"]


def _is_new(obj: Any) -> bool:
    new = id(obj) in _unfilled
    _unfilled.discard(id(obj))
    return new


def update_spaces(updates: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Set global variables, the content of a part."""
    for names, values in updates:
        names.update(values)
