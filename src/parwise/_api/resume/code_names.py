"""What code names: variables, with the attributes that it reads of these, and modules that it imports."""

from __future__ import annotations

import dis
import importlib.util
from collections.abc import Iterator
from importlib.machinery import PathFinder
from types import CodeType
from typing import Any

GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME")
CLOSURE = ("LOAD_DEREF",)


def names_in(code: CodeType, kind: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the variables that code, and the functions that it makes, read, each with its attributes.

    Examples
    --------
    >>> list(names_in((lambda x: package.module.f(x) + k).__code__, GLOBALS))
    [('package', 'module', 'f'), ('k',)]
    """
    found: tuple[str, ...] = ()
    for instruction in _instructions(code):
        if found and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            found = (*found, instruction.argval)
            continue
        if found:
            yield found
        found = (instruction.argval,) if instruction.opname in kind else ()
    for one in _inner(code):
        yield from names_in(one, kind)


def imports_in(code: CodeType, package: str | None) -> Iterator[str]:
    """Yield the modules that code of a package, and the functions that it makes, import.

    Of ``from a import b`` also ``a.b``, which may be a module.
    """
    before: list[Any] = []
    for instruction in _instructions(code):
        if instruction.opname == "IMPORT_NAME":
            level, names = before[-2:]
            try:
                base = importlib.util.resolve_name("." * level + instruction.argval, package)
            except ImportError:  # beyond the package; the code raises it, too
                continue
            yield base
            yield from (f"{base}.{name}" for name in names or ())
        before.append(instruction.argval)
    for one in _inner(code):
        yield from imports_in(one, package)


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    return (one for one in dis.get_instructions(code) if one.opname != "EXTENDED_ARG")


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (one for one in code.co_consts if isinstance(one, CodeType))


def files_of(module: str) -> Iterator[tuple[str, str]]:
    """Yield name and file of a module, and of the packages that it is in.

    Imports nothing: whether the module has been imported before makes no difference.
    """
    parts = module.split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
    except ValueError:  # a module that was made by hand
        return
    for count in range(1, len(parts) + 1):
        if count > 1 and spec is not None:
            spec = PathFinder.find_spec(".".join(parts[:count]), spec.submodule_search_locations or [])
        if spec is None:
            return
        if spec.has_location and spec.origin is not None:
            yield spec.name, spec.origin
