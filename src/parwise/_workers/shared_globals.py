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


def initialize(initializer: Callable[..., Any], *initargs: Any) -> None:
    """Call the initializer, and note which globals it sets."""
    before = {module: dict(names) for module, names in _shared.items()}
    initializer(*initargs)
    for module, names in _shared.items():
        known = before.get(module, {})
        found = {name: value for name, value in names.items() if name not in known or known[name] is not value}
        _owned.setdefault(module, {}).update(found)


def forget() -> None:
    """Forget all globals that were set or shared, before another function sets them."""
    _shared.clear()
    _owned.clear()


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
        found = {name for name, value in names.items() if name not in before or before[name] is not value}
        _latest, _set_here = setup, {names.get("__name__", ""): found}


def set_by(setup: Callable[[], object] | None) -> Mapping[str, AbstractSet[str]]:
    """Names of the globals that `setup` has set in this process, by module."""
    return _set_here if setup is not None and _is_latest(setup) else {}


def _is_latest(setup: Callable[[], object]) -> bool:
    # A method is another object each time that it is looked up.
    return setup is _latest or (isinstance(setup, types.MethodType) and setup == _latest)
