"""Global variables that functions in a worker with an initializer share.

A function of a script or notebook travels with a copy of the globals that it
uses, and each call has its own copy. But an initializer sets globals for later
functions (``global model; model = load()``). So in a pool with an initializer all
functions of one module share their globals, and a value that the initializer has
set takes precedence over the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._system.definitions import shared_modules

# Globals that the initializer has set, by module.
_owned: dict[str, dict[str, Any]] = {}
# Attributes that it has set, by the class.
_owned_attributes: list[tuple[type, dict[str, Any]]] = []


def restore() -> None:
    """Set the initializer's globals again, after functions with other values were unpickled."""
    for module, names in _owned.items():
        vars(shared_modules[module]).update(names)
    for cls, attributes in _owned_attributes:
        for name, value in attributes.items():
            type.__setattr__(cls, name, value)


def initialize(initializer: Callable[..., Any], initargs: tuple[Any, ...]) -> None:
    """Call the initializer, and note which globals and attributes of classes it sets."""
    before = {name: dict(vars(module)) for name, module in shared_modules.items()}
    classes = [(cls, dict(vars(cls))) for module, names in before.items() for cls in _classes_of(module, names)]
    initializer(*initargs)
    for name, module in shared_modules.items():
        _owned[name] = _changes(before.get(name, {}), vars(module))
    _owned_attributes.extend((cls, _changes(attributes, dict(vars(cls)))) for cls, attributes in classes)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if name not in before or before[name] is not value}


def _classes_of(module: str, names: dict[str, Any]) -> list[type]:
    return [one for one in names.values() if isinstance(one, type) and one.__module__ == module]
