"""Global variables that functions in a worker with an initializer share.

A function of a script or notebook travels with a copy of the globals that it
uses, and each call has its own copy. But an initializer sets globals for later
functions (``global model; model = load()``). So in a pool with an initializer all
functions of one module share their globals, and a value that the initializer has
set takes precedence over the caller's. The same holds for a function given as
`setup`, which the caller calls, too: what it sets there is not sent.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from .._system.definitions import shared_modules

# Globals that the initializer has set, by module.
_owned: dict[str, dict[str, Any]] = {}
# Attributes that it has set, by the class.
_owned_attributes: list[tuple[type, dict[str, Any]]] = []
_prepared = False


def restore() -> None:
    """Set the initializer's globals again, after functions with other values were unpickled."""
    for module, names in _owned.items():
        vars(shared_modules[module]).update(names)
    for cls, attributes in _owned_attributes:
        for name, value in attributes.items():
            type.__setattr__(cls, name, value)


def initialize(initializer: Callable[..., Any], *initargs: Any) -> None:
    """Call the initializer, and note which globals and attributes of classes it sets."""
    global _prepared
    _prepared = True
    before = {name: dict(vars(module)) for name, module in shared_modules.items()}
    classes = [(cls, dict(vars(cls))) for module, names in before.items() for cls in _classes_of(module, names)]
    initializer(*initargs)
    for name, module in shared_modules.items():
        _owned.setdefault(name, {}).update(_changes(before.get(name, {}), vars(module)))
    _owned_attributes.extend((cls, _changes(attributes, dict(vars(cls)))) for cls, attributes in classes)


def is_prepared() -> bool:
    """True if this process has called an initializer, or a function given as `setup`."""
    return _prepared


def forget() -> None:
    """Forget all globals that were set or shared, before another function sets them."""
    shared_modules.clear()
    _owned.clear()
    _owned_attributes.clear()


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if name not in before or before[name] is not value}


def _classes_of(module: str, names: dict[str, Any]) -> list[type]:
    return [one for one in names.values() if isinstance(one, type) and one.__module__ == module]


_lock = threading.RLock()
# The function that was last called as `setup` in this process, and the globals that it set, by module.
_latest: Callable[[], object] | None = None
_set_here: dict[str, AbstractSet[str]] = {}


def set_up_here(setup: Callable[[], object]) -> None:
    """Call a function given as `setup` in this process, unless it is the last one that was called so."""
    global _latest, _set_here
    with _lock:
        if _is_latest(setup):
            return
        names: dict[str, Any] = getattr(setup, "__globals__", {})
        before, _latest = dict(names), None
        try:
            setup()
        except BaseException as error:
            error.add_note("in the function given as setup, in this process")
            raise
        _latest, _set_here = setup, {names.get("__name__", ""): frozenset(_changes(before, names))}


def set_by(setup: Callable[[], object] | None) -> Mapping[str, AbstractSet[str]]:
    """Names of the globals that `setup` has set in this process, by module."""
    return _set_here if setup is not None and _is_latest(setup) else {}


def _is_latest(setup: Callable[[], object]) -> bool:
    # A method is another object each time that it is looked up.
    return setup is _latest or (isinstance(setup, types.MethodType) and setup == _latest)
