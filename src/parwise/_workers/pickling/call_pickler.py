"""Pickles submitted calls: each by itself, or chunks of one call."""

from __future__ import annotations

import builtins
import io
import operator
import pickle
import sys
import types
from collections import OrderedDict
from typing import Any, NamedTuple, TypeAlias

from cloudpickle import cloudpickle

from ..._core.results import SCALARS
from ..._system.definitions import home_of
from ..._system.modules import is_importable, is_sent
from ..._system.reducers import cell_content
from .multiprocessing_objects import Packed
from .picklers import DefinitionPickler, add_part, add_wanted, dumps_items
from .sent_definitions import BY_NAME, Definitions, base_names, names_in_texts

#: Function, arguments, arguments by name.
FunctionCall: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any]]

#: Types that any process can unpickle without an import, and that hold no other objects.
PLAIN = SCALARS | {str, bytes, type(None)}
# Functions whose pickles are kept, those of the latest calls.
KEPT_FUNCTIONS = 16
_ABSENT = object()


class _KnownFunction(NamedTuple):
    """The pickle of a function and of those that it calls, and all that it was made of; keeps them alive."""

    definitions: Definitions
    head: bytes
    modules: int  # that were imported: a package among the globals takes its modules along
    content: list[Any]

    def holds(self) -> bool:
        """True if nothing has changed since."""
        return are_same(self.content, content(self.definitions.objects)) and self.modules == len(sys.modules)

    def constant(self) -> bool:
        """True if that would be seen: nothing of it can change but by becoming another object."""
        functions = self.definitions.objects
        ids = set(map(id, functions))
        simple = not self.definitions.parts and all(map(_is_simple, functions))
        return simple and all(id(one) in ids or _is_fixed(one) for one in self.content)


class CallPickler:
    """Pickles calls for workers.

    A call is ``(head, (function, arguments, arguments by name))``, and `head` its table of definitions, or None if it
    needs none. With a function that is constant `head` is bytes, the pickle of the table and the function.

    Parameters
    ----------
    share : bool
        As for `Definitions`.
    """

    def __init__(self, share: bool) -> None:
        self._share = share
        self._known: OrderedDict[int, _KnownFunction] = OrderedDict()

    def pack(self, call: FunctionCall) -> tuple[bytes, Definitions | None]:
        """Pickle a call; return that, and the definitions that it needs, if any."""
        func, args, kwargs = call
        plain = PLAIN.issuperset(map(type, args)) and PLAIN.issuperset(map(type, kwargs.values()))
        if plain and type(func) is types.FunctionType:
            # Most calls are such. `DefinitionPickler` takes 12 us for an importable function, and 40 for another one.
            if not is_sent(func):
                return pickle.dumps((None, call), protocol=5), None
            known = self._know(func)
            if known is not None:
                return pickle.dumps((known.head, (None, args, kwargs)), protocol=5), known.definitions
        definitions = Definitions(self._share)
        return _define((definitions, call), definitions), definitions

    def _know(self, func: types.FunctionType) -> _KnownFunction | None:
        """The pickle of a function, made anew if it or what it was made of has changed; None if it is not constant."""
        known = self._known.get(id(func))
        if known is not None and known.holds():
            return known
        if not _may_be_constant(func):
            return None
        definitions = Definitions(self._share)
        head = _define((definitions, func), definitions)
        found = _KnownFunction(definitions, head, len(sys.modules), content(definitions.objects))
        if type(head) is not bytes or not found.constant():
            return None
        self._known[id(func)] = found
        if len(self._known) > KEPT_FUNCTIONS:
            self._known.popitem(last=False)
        return found


def _define(obj: Any, definitions: Definitions) -> bytes:
    """Pickle an object with all definitions."""
    stream = io.BytesIO()
    pickler = DefinitionPickler(stream, definitions)
    pickler.define(obj)
    definitions.begun = True
    definitions.always |= add_wanted(definitions, pickler.wanted)
    return Packed.with_attachments(stream.getvalue(), pickler.attachments)


def pack_chunk(call: FunctionCall, func: Any, definitions: Definitions) -> bytes:
    """Pickle one of many calls of a function, which travels once for all of them."""
    if isinstance(func, types.FunctionType) and is_sent(func) and id(func) not in definitions.numbers:
        add_part(definitions, func)
    return dumps_items((definitions, call), definitions)


def are_same(one: list[Any], other: list[Any]) -> bool:
    """True if both hold the same objects."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def content(objects: list[Any]) -> list[Any]:
    """All that pickles of functions are made of; classes count as changing."""
    return [one for obj in objects for one in (_parts_of(obj) if type(obj) is types.FunctionType else [object()])]


def _parts_of(func: types.FunctionType) -> list[Any]:
    names, added = func.__globals__, vars(builtins)
    used = [*cloudpickle._extract_code_globals(func.__code__), *names_in_texts(func)]
    found = [func.__code__, func.__name__, func.__qualname__, func.__module__, func.__doc__, home_of(func) is None]
    found += func.__defaults__ or ()
    for cell in func.__closure__ or ():
        found += cell_content(cell) or (_ABSENT,)
    for some in (func.__kwdefaults__ or {}, func.__annotations__, func.__dict__, base_names(names)):
        found += some.keys()
        found += some.values()
    found += [names[name] if name in names else added.get(name, _ABSENT) for name in used]
    return found


def _may_be_constant(func: types.FunctionType) -> bool:
    """True if a function refers to nothing that changes, but for other functions, which are pickled to find out."""
    parts = _parts_of(func)
    return _is_simple(func) and all(type(one) is types.FunctionType or _is_fixed(one) for one in parts)


def _is_simple(obj: Any) -> bool:
    """True for a function that looks up no globals by names of its own making, see `wanted_names`."""
    if type(obj) is not types.FunctionType or getattr(obj, "__type_params__", None):
        return False
    return "__main__" not in obj.__code__.co_consts and BY_NAME.isdisjoint(obj.__code__.co_names)


def _is_fixed(obj: Any) -> bool:
    kind: Any = type(obj)
    if kind is types.ModuleType:
        name = obj.__name__
        return obj is sys.modules.get(name) and is_importable(name)
    if kind is types.BuiltinFunctionType:
        return type(obj.__self__) is types.ModuleType
    return obj is _ABSENT or kind in PLAIN or kind is types.CodeType or (kind is type and obj.__module__ == "builtins")
