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

_shared: dict[str, dict[str, Any]] = {}
# Globals that the initializer has set, by module.
_owned: dict[str, dict[str, Any]] = {}


class SharedGlobals:
    """Replaces the globals of a function in its pickle; `names` is their first content."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def __reduce__(self) -> tuple[Any, ...]:
        return _globals_of, (self._names.get("__name__", ""), self._names)


def _globals_of(module: str, names: dict[str, Any]) -> dict[str, Any]:
    """The globals that functions of `module` share in this process; `names` if they are the first."""
    return _shared.setdefault(module, names)


def restore() -> None:
    """Set the initializer's globals again, after functions with other values were unpickled."""
    for module, names in _owned.items():
        _shared[module].update(names)


def initialize(initializer: Callable[..., Any], initargs: tuple[Any, ...]) -> None:
    """Call the initializer, and note which globals it sets."""
    before = {module: dict(names) for module, names in _shared.items()}
    initializer(*initargs)
    for module, names in _shared.items():
        known = before.get(module, {})
        _owned[module] = {name: value for name, value in names.items() if name not in known or known[name] is not value}
