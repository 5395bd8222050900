"""Context variables of modules and scripts: found and read in the caller, and set in a worker."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import operator
import os
import pickle
import sys
import types
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, NamedTuple

from .late_imports import when_imported

Variable = ContextVar[Any]


class Place(NamedTuple):
    """Where a variable is found in any process: in a module, or, without one, by a name that the caller has made."""

    module: str
    name: str


#: Packages whose context variables are carried in other ways, or not at all.
_SKIPPED = ("numpy", "parwise")

_places: dict[Variable, Place] = {}
# Variables that no module holds, and how many modules there were.
_homeless: dict[Variable, int] = {}
# Variables by their places, where no module of this process holds them.
_rebuilt: dict[Place, Variable] = {}
# What to do in a worker when a variable is rebuilt.
_awaited: dict[Place, Callable[[], None]] = {}
_numbers = itertools.count()


class SetVariables:
    """The variables that are set in the current context, compared by the identity of their values.

    Parameters
    ----------
    pack : callable
        Pickles a value.
    """

    def __init__(self, pack: Callable[[Any], bytes]) -> None:
        self._pack = pack
        self._context = copy_context()
        # A variable of a script is told from the time that a function was pickled with it.
        self._nameless = len(_rebuilt)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SetVariables):
            return NotImplemented
        mine, theirs = self._context, other._context
        return (
            self._nameless == other._nameless
            and len(mine) == len(theirs)
            and all(theirs.get(one, self) is value for one, value in mine.items())
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Looked up now: a function that was pickled before may hold variables of its own.
        packed: dict[Place, bytes] = {}
        for variable, value in self._context.items():
            place = _place(variable)
            if place is not None and _is_followed(place):
                with contextlib.suppress(Exception):  # a connection, for example: not all are meant for workers
                    packed[place] = self._pack(value)
        return dict, (packed,)

    __hash__ = None  # type: ignore[assignment]


def reduce_variable(variable: Variable) -> tuple[Callable[..., Variable], tuple[Any, ...]]:
    """How a variable is rebuilt in another process, as from ``__reduce__``: each one once."""
    place = _place(variable)
    if place is None:
        place = _places[variable] = Place("", f"{os.getpid()} {next(_numbers)}")
        _rebuilt[place] = variable  # a result may bring it back
    # Only a context in which it is not set shows its default.
    default: tuple[Any, ...] = ()
    with contextlib.suppress(LookupError):
        default = (Context().run(variable.get),)
    return _rebuild, (place, variable.name, *default)


def _place(variable: Variable) -> Place | None:
    place = _places.get(variable)
    if place is not None and (not place.module or _look_up(place) is variable):
        return place
    if _homeless.get(variable) == len(sys.modules):
        return None
    place = _find(variable)
    if place is not None:
        _places[variable] = place
    else:
        if len(_homeless) > 1000:  # a function may make one in each call
            _homeless.clear()
        _homeless[variable] = len(sys.modules)
    return place


def _is_followed(place: Place | None) -> bool:
    return place is not None and place.module.partition(".")[0] not in _SKIPPED


def _find(variable: Variable) -> Place | None:
    """Look for a variable in all modules but the script, and in their classes: 2 ms."""
    for module, content in list(sys.modules.items()):
        # multiprocessing makes the script a module of a second name, which workers do not have.
        if module in ("__main__", "__mp_main__") or not isinstance(content, types.ModuleType):
            continue
        for name, value in list(content.__dict__.items()):
            if value is variable:
                return Place(module, name)
            if type(value) is type and value.__module__ == module:
                inner = next((k for k, v in vars(value).items() if v is variable), None)
                if inner is not None:
                    return Place(module, f"{name}.{inner}")
    return None


def _look_up(place: Place) -> Variable | None:
    if not place.module:
        return _rebuilt.get(place)
    try:
        found: Variable = operator.attrgetter(place.name)(sys.modules[place.module])
    except (KeyError, AttributeError):
        return _rebuilt.get(place)
    return found


def _rebuild(place: Place, name: str, *default: Any) -> Variable:
    if place.module:
        with contextlib.suppress(ImportError):
            importlib.import_module(place.module)
    variable = _look_up(place)
    if variable is None:
        variable = _rebuilt[place] = ContextVar(name, default=default[0]) if default else ContextVar(name)
        _places[variable] = place
        if place in _awaited:  # of a submitted call, which comes after the state that surrounds it
            _awaited.pop(place)()
    return variable


class VariableFollower:
    """Sets the caller's variables in a worker, in a context that belongs to one call."""

    def __init__(self) -> None:
        self._told: dict[Place, bytes] = {}
        self._waiting: set[Place] = set()
        # Variables that an initializer has set, to which values, and the caller's pickled values at that time.
        self._own: dict[Variable, tuple[Any, bytes | None]] = {}

    def follow(self, told: dict[Place, bytes]) -> None:
        """Set variables to pickled values; those of other modules once they are imported."""
        self._told = told
        for place, packed in told.items():
            if _look_up(place) is not None:
                self._set(place, packed)
            else:
                # A module that cannot be imported here comes with the function, and its variables are rebuilt.
                _awaited[place] = partial(self._set_late, place)
                if place.module and place not in self._waiting:
                    self._waiting.add(place)
                    when_imported(place.module, partial(self._set_late, place))
        # In a process with other work the initializer had a context of its own.
        packed_now = {_look_up(place): packed for place, packed in told.items()}
        for variable, (value, packed_then) in self._own.items():
            if packed_now.get(variable) == packed_then:
                variable.set(value)

    def forget(self) -> None:
        """Forget what an initializer has set."""
        self._own.clear()

    def run(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function, and keep what it sets until the caller sets something else."""
        before = copy_context()
        try:
            function(*args)
        finally:
            places = {_look_up(place): packed for place, packed in self._told.items()}
            for variable, value in copy_context().items():
                # NumPy's and decimal's settings are followed in other ways.
                if before.get(variable, _rebuilt) is not value and _is_followed(_place(variable)):
                    self._own[variable] = value, places.get(variable)

    def _set_late(self, place: Place) -> None:
        if place in self._told:
            self._set(place, self._told[place])

    def _set(self, place: Place, packed: bytes) -> None:
        variable = _look_up(place)
        if variable is None or self._own.get(variable, (None, b""))[1] == packed:
            return
        with contextlib.suppress(Exception):  # a value of a class that only the caller has
            variable.set(pickle.loads(packed))
