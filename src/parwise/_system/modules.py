"""What another interpreter lacks: modules loaded from a path or made by hand, names in `builtins`, definitions."""

from __future__ import annotations

import builtins
import os
import re
import sys
from collections.abc import Iterable
from importlib.machinery import ExtensionFileLoader
from types import ModuleType
from typing import Any

from cloudpickle import cloudpickle

from .interpreter import CARRIED
from .module_watch import watch
from .reducers import HEAP_TYPE

# By name: the module, the module path at that time, and whether it can be imported.
_known: dict[str, tuple[ModuleType, list[str], bool]] = {}
# Parwise's own classes and functions that others import: a call names a dozen, and to look for each takes 10 us.
_own: dict[int, Any] = {}


def is_sent(obj: Any) -> bool:
    """True if a class or function travels by value, since another process cannot import it."""
    if id(obj) in _own or (isinstance(obj, type) and not obj.__flags__ & HEAP_TYPE):
        return False
    found = cloudpickle._lookup_module_and_qualname(obj)
    if found is None or cloudpickle._is_registered_pickle_by_value(found[0]):
        return True
    name = found[0].__name__
    if watch.is_edited(name) or not is_importable(name):
        return True
    if name.startswith("parwise."):
        _own[id(obj)] = obj
    return False


def is_importable(name: str) -> bool:
    """True if a new interpreter with this one's module path would import the same module by its name."""
    module = sys.modules.get(name)
    if type(module) is not ModuleType or name == "__main__":  # an object in the place of a module; the script
        return True
    known = _known.get(name)
    if known is not None and known[0] is module and known[1] == sys.path:
        return known[2]
    importable = _look(name, module)
    _known[name] = (module, sys.path[:], importable)
    return importable


def _look(name: str, module: ModuleType) -> bool:
    """Look for a module as an import would if it were not loaded."""
    spec = getattr(module, "__spec__", None)
    if getattr(sys, "frozen", False):  # a worker is the same program
        return True
    if name in CARRIED:
        return True
    if name == "__mp_main__":  # the script, in processes of multiprocessing
        return False
    if spec is not None and (spec.name != name or isinstance(spec.loader, ExtensionFileLoader)):
        return True  # another name for a module; or it cannot be sent in any other way
    parent, _, _ = name.rpartition(".")
    if parent and not is_importable(parent):
        return False
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    if parent and path is None:  # a module that its parent has made, as `os.path`
        return True
    found = _find(name, path)
    if found is not None:
        return spec is None or _same_file(found.origin, spec.origin)
    # Without a file it may be made by the import of its package, as `six.moves` is.
    return bool(parent) and (spec is None or not spec.has_location)


def _find(name: str, path: Any) -> Any:
    """The spec of a module, by the finders that a new interpreter has too."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path) if _is_usual(finder) else None
        if spec is not None:
            return spec
    return None


def _is_usual(finder: Any) -> bool:
    """True for finders of Python itself, of editable installs and of others in site-packages: of private modules."""
    module = str(getattr(finder, "__module__", ""))
    return (module.startswith("_") or "editable" in module) and module != "__main__"


def _same_file(one: str | None, other: str | None) -> bool:
    if one == other or one is None or other is None:
        return one == other
    return os.path.realpath(one) == os.path.realpath(other)


# Modules of functions and classes that Python itself and `site` put into `builtins`; constants have none.
_OWN_MODULES = {"builtins", "io", "_io", "_sitebuiltins"}
_CONSTANTS = {"Ellipsis", "NotImplemented", "__doc__", "__loader__", "__name__", "__package__", "__spec__"}


def added_builtins(names: Iterable[str]) -> dict[str, Any]:
    """Those of `names` that a program has put into `builtins`, as gettext does with ``_``, and their values."""
    found = {name: vars(builtins)[name] for name in names if name in vars(builtins) and name not in _CONSTANTS}
    return {name: value for name, value in found.items() if getattr(value, "__module__", None) not in _OWN_MODULES}


_MISSING = (
    re.compile(r"name '(?P<name>\w+)' is not defined"),
    re.compile(r"No module named '(?P<module>[\w.]+)'"),
    re.compile(r"cannot import name '(?P<name>\w+)' from '(?P<module>[\w.]+)'"),
    re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'"),
    re.compile(r"(type object )?'(?P<kind>\w+)'( object)? has no attribute '(?P<name>\w+)'"),
)


def note_what_is_missing(error: BaseException) -> None:
    """Add the remedy to a worker's exception that tells of a name which this process has."""
    if not isinstance(error, NameError | AttributeError | ImportError):
        return
    for pattern in _MISSING:
        match = pattern.match(str(error))
        if match is not None and _is_here(**match.groupdict()):
            error.add_note(
                "this process has it, but a worker process does not; pass setup=f (of a Pool: "
                "initializer=f), a function that makes it and that each worker calls before func"
            )
            return


def _is_here(name: str = "", module: str | None = None, kind: str | None = None) -> bool:
    """True if this process has a module, a name in it or in `builtins`, or a class `kind` with this attribute."""
    if kind is not None:
        classes = (getattr(one, "__dict__", {}).get(kind) for one in list(sys.modules.values()))
        return any(isinstance(one, type) and hasattr(one, name) for one in classes)
    if module is not None:
        return module in sys.modules and hasattr(sys.modules[module], name or "__name__")
    return hasattr(builtins, name)
