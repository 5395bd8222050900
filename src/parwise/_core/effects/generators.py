"""Generators of random numbers that a function may draw from: global ones, and those that it holds or gets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from .side_effects import attributes_of, function_of

GLOBAL = (
    "draws from {}, a global generator: each worker process has its own, seeded anew (processes of other libraries "
    "may all draw the same numbers). Pass rng=seed, and take rng= in the function: a Generator for each element"
)
COPIED = (
    "draws from {}, a generator of which each worker has a copy, so several workers draw the same numbers. Pass "
    "rng=seed in its place, and take rng= in the function: a Generator for each element"
)


def global_generators() -> dict[str, Any]:
    """States of the generators of random numbers that all code of this process shares."""
    states: dict[str, Any] = {}
    # A program may have a module of its own named random.
    if (getstate := getattr(sys.modules.get("random"), "getstate", None)) is not None:
        states["the module random"] = getstate()
    if (module := sys.modules.get("numpy.random")) is not None:
        _, key, *rest = module.get_state()
        states["np.random"] = key.tobytes(), *rest
    return states


def held_generators(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """States of the generators among the arguments of all calls of a function, and those that it names.

    Each worker has copies of these, in one state.
    """
    states: dict[str, Any] = {}
    for name, value in _named(func, args, kwargs):
        state = _state(value)
        if state is not None:
            states[name] = state
    return states


def changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Names of the generators whose states differ, of those that were there before."""
    return " and ".join(name for name, state in before.items() if after.get(name, state) != state)


def _named(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for number, value in enumerate(args):
        yield f"args[{number}]", value
    for name, value in kwargs.items():
        yield f"kwargs[{name!r}]", value
    function, own = function_of(func)
    if function is None:
        return
    names = function.__code__.co_names
    yield from ((name, function.__globals__[name]) for name in names if name in function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not set yet
            continue
    attributes = attributes_of(own)
    yield from ((f"self.{name}", attributes[name]) for name in names if name in attributes)


def _state(value: Any) -> Any:
    numpy_random: Any = sys.modules.get("numpy.random")  # to import it takes 20 ms
    if numpy_random is not None and type(value) is numpy_random.Generator:
        return _text(value.bit_generator.state)
    if numpy_random is not None and type(value) is numpy_random.RandomState:
        return _text(value.get_state(legacy=False))
    kind = getattr(sys.modules.get("random"), "Random", None)
    return value.getstate() if type(value) is kind else None


def _text(state: Any) -> str:
    with np.printoptions(threshold=sys.maxsize):
        return repr(state)
