"""Global variables that the functions of an initialized worker have in common.

A function of a script or notebook travels with a copy of the globals that it
uses, each call's functions with their own. An initializer is there to set
globals for functions that come later, as ``global model; model = load()`` has
it, so in a pool with one all functions of one module share theirs, and what the
initializer has set there stands, whatever the caller's own module has by that
name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_shared: dict[str, dict[str, Any]] = {}
# What the initializer has set, by module.
_owned: dict[str, dict[str, Any]] = {}


class SharedGlobals:
    """Travels in the place of a function's globals.

    Parameters
    ----------
    names : dict
        What these begin with.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def __reduce__(self) -> tuple[Any, ...]:
        return _globals_of, (self._names.get("__name__", ""), self._names)


def _globals_of(module: str, names: dict[str, Any]) -> dict[str, Any]:
    """The globals of that module's functions in this process."""
    return _shared.setdefault(module, names)


def restore() -> None:
    """Put back what newly unpickled functions have brought other values for."""
    for module, names in _owned.items():
        _shared[module].update(names)


def initialize(initializer: Callable[..., Any], initargs: tuple[Any, ...]) -> None:
    """Call it, and keep what it sets."""
    before = {module: dict(names) for module, names in _shared.items()}
    initializer(*initargs)
    for module, names in _shared.items():
        known = before.get(module, {})
        _owned[module] = {name: value for name, value in names.items() if name not in known or known[name] is not value}
