"""Classes and functions that one call has sent to other processes."""

from __future__ import annotations

import marshal
import os
import re
import sys
import types
from collections.abc import Callable
from typing import Any

from ..._system.definitions import calls, name_of, new_token, open_space, open_table
from ..._system.modules import is_sent
from ..shared_globals import set_by


class Closed:
    """Ends the state of an enumeration: its members have names from here on."""

    def __init__(self, cls: type) -> None:
        self.cls = cls


class Reduced:
    """Pickled as a call of a function."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        function, *args = self._call
        return function, tuple(args)


def reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    """Reduce code, with the name of its file."""
    # cloudpickle 3.1.3 leaves out the file name, which tracebacks and warnings show.
    return marshal.loads, (marshal.dumps(code),)


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

    With `share` the functions of all calls share their globals, as in a pool with an initializer. Globals that `setup`
    sets are left out.
    """

    def __init__(self, share: bool = False, setup: Callable[[], object] | None = None) -> None:
        self.token = new_token()
        self.left_out = set_by(setup)
        self.share = share
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.spaces: list[Space] = []
        self._space_of: dict[int, Space] = {}
        self.parts: list[Any] = []
        self._needs: list[set[int]] = []
        # True once the session is packed; and for each part, whether it was when that was made.
        self.begun = False
        self.late: list[bool] = []
        self._part_of: dict[int, int] = {}
        # Parts that objects need which were pickled since the last `take_needed`.
        self._needed: set[int] = set()
        # Parts that every task needs.
        self.always: set[int] = set()
        self.owner = os.getpid()
        calls.put(self.token, self)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_table, (self.token, self.share)

    def number(self, obj: Any) -> int:
        """The number of a class or function, a new one if it has none."""
        number = self.numbers.setdefault(id(obj), len(self.objects))
        if number == len(self.objects):
            self.objects.append(obj)
        return number

    def unsent(self, space: Space, used: dict[str, Any]) -> dict[str, Any]:
        """Those of some globals that have not been sent, and that `setup` does not set."""
        left_out = self.left_out.get(space.names.get("__name__", ""), ())
        return {name: value for name, value in used.items() if name not in space.sent and name not in left_out}

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
        self.late.append(self.begun)

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
        waiting, self._needed = self._needed | self.always, set()
        while waiting:
            part = waiting.pop()
            found.add(part)
            waiting |= self._needs[part] - found
        return sorted(found)


def globals_of(obj: Any) -> dict[str, Any]:
    """The globals of a function, or of the module of a class."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    found: dict[str, Any] = getattr(obj, "__globals__", {} if module is None else vars(module))
    return found


_NAME = re.compile(r"[^\W\d]\w*")
#: A function with one of these names looks up globals that it does not name itself.
BY_NAME = {"__main__", "globals"}


def names_in_texts(obj: Any) -> set[str]:
    """Names in annotations of a class or function, and that of what it is nested in."""
    outer, nested, _ = name_of(obj).partition(".")
    names = {outer} if nested else set()
    notes = vars(obj).get("__annotations__") if isinstance(obj, type) else getattr(obj, "__annotations__", None)
    for note in (notes or {}).values():
        if isinstance(note, str):
            names.update(_NAME.findall(note))
    return names


def wanted_names(obj: Any) -> set[str]:
    """Globals that a class or function does not use, and that others look up by their names to pickle or check it."""
    names = names_in_texts(obj)
    code = getattr(obj, "__code__", None)
    if code is not None and ("__main__" in code.co_consts or not BY_NAME.isdisjoint(code.co_names)):
        names.update(code.co_names, (one for one in code.co_consts if isinstance(one, str)))
    return names & globals_of(obj).keys() if names else names


def is_light(value: Any) -> bool:
    """True for an object that is sent though a function may not need it: no import takes time for it."""
    if isinstance(value, types.ModuleType):
        return _is_imported(value.__name__)
    if isinstance(value, types.FunctionType | type) or hasattr(value, "cache_parameters"):
        return _is_imported(value.__module__) or is_sent(value)
    return type(value).__module__ in ("typing", "types")


def _is_imported(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names | {"numpy"} and module != "__main__"
