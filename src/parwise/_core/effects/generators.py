"""Generators of random numbers that a function may draw from: global ones, and those that it holds or gets."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np

from .functions import codes_of, function_of, named_values

#: Objects by name, with their states.
Held: TypeAlias = dict[str, tuple[Any, bytes]]
COPIED = (
    "draws from {}, a generator of which each worker has a copy, so several workers draw the same numbers. Pass "
    "rng=seed in its place, and take rng= in the function: a Generator for each element"
)
# What puts a generator into a state that does not depend on earlier numbers.
_SEEDING = frozenset({"seed", "set_state", "setstate", "state"})
# Items of a list or dict that are looked at.
_ITEMS = 50


def global_generators() -> Held:
    """The generators that all code of this process shares, with their states."""
    found: Held = {}
    # A program may have a module of its own named random.
    if (getstate := getattr(sys.modules.get("random"), "getstate", None)) is not None:
        found["the module random"] = getstate, _as_bytes(getstate())
    if (module := sys.modules.get("numpy.random")) is not None:
        found["np.random"] = module, _as_bytes(module.get_state(legacy=False))
    return found


def objects_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    """Objects that a function gets in all calls, or names, and those within lists and dicts; each worker has copies."""
    return [pair for name, value in _named(func, args, kwargs) for pair in _within(name, value)]


def held_generators(objects: Iterable[tuple[str, Any]]) -> Held:
    """Generators among objects of `objects_of`, with their states."""
    return held(objects, _state)


def held(objects: Iterable[tuple[str, Any]], state: Callable[[Any], bytes | None]) -> Held:
    """Those objects for which `state` returns one."""
    found: Held = {}
    for name, one in objects:
        now = state(one)
        if now is not None:
            found.setdefault(name, (one, now))
    return found


def drawn_from(before: Held, after: Held) -> dict[str, bytes]:
    """Names of the objects whose states differ, with the states before; not of those that others have replaced."""
    changed = (name for name, (one, _) in after.items() if name in before and one is before[name][0])
    return {name: before[name][1] for name in changed if after[name][1] != before[name][1]}


def seeds(func: Any) -> bool:
    """True if a function may set the state of a generator, so that its numbers do not depend on earlier ones."""
    function, own = function_of(func)
    codes = [] if function is None else codes_of(function, own)
    return any(not _SEEDING.isdisjoint(code.co_names) for code in codes)


def _named(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for number, value in enumerate(args):
        yield f"args[{number}]", value
    for name, value in kwargs.items():
        yield f"kwargs[{name!r}]", value
    while type(func) is functools.partial:
        yield from ((f"args[{number}] of the partial", value) for number, value in enumerate(func.args))
        yield from ((f"{name}= of the partial", value) for name, value in func.keywords.items())
        func = func.func
    function, own = function_of(func)
    if function is None:
        return
    yield from _defaults(function)
    names = dict.fromkeys(name for code in codes_of(function, own) for name in code.co_names)
    for where, name, value in named_values(function, own, names):
        yield f"self.{name}" if where == "attribute" else name, value


def _defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    for name, value in (*zip(names, values, strict=True), *(function.__kwdefaults__ or {}).items()):
        yield f"the default of {name}", value


def _within(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value, or the items of a list or dict."""
    if type(value) is dict and len(value) <= _ITEMS:
        yield from ((f"{name}[{key!r}]", one) for key, one in value.items() if type(key) in (str, int))
    elif type(value) in (list, tuple) and len(value) <= _ITEMS:
        yield from ((f"{name}[{number}]", one) for number, one in enumerate(value))
    else:
        yield name, value


def _state(value: Any) -> bytes | None:
    """The state of a generator as bytes; None for other objects."""
    numpy_random: Any = sys.modules.get("numpy.random")  # to import it takes 20 ms
    if numpy_random is not None and type(value) is numpy_random.Generator:
        spawned = getattr(value.bit_generator.seed_seq, "n_children_spawned", 0)
        return _as_bytes((value.bit_generator.state, spawned))
    if numpy_random is not None and type(value) is numpy_random.RandomState:
        return _as_bytes(value.get_state(legacy=False))
    kind = getattr(sys.modules.get("random"), "Random", None)
    return _as_bytes(value.getstate()) if type(value) is kind else None


def _as_bytes(state: Any) -> bytes:
    """The same bytes for the same state, in any process: those of a pickle depend on which strings are one object."""
    if isinstance(state, dict):
        return b"".join(part for key, value in state.items() for part in (repr(key).encode(), _as_bytes(value)))
    if isinstance(state, np.ndarray):
        return state.tobytes()
    return b"".join(map(_as_bytes, state)) if type(state) is tuple and len(state) < _ITEMS else repr(state).encode()
