"""What a function is made of: its code, and the values that it names; and whether it is the user's own.

Nothing of the user's own classes is called.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, MemberDescriptorType, MethodType
from typing import Any, Literal, TypeAlias

#: Where a function finds what a name stands for.
Where: TypeAlias = Literal["global", "variable", "attribute"]


def function_of(func: Any) -> tuple[FunctionType | None, Any]:
    """The Python function that a callable calls, and the object that it is a method of."""
    for _ in range(10):  # wrappers may form a circle
        if type(func) is functools.partial:
            func = func.func
        elif type(func) is not FunctionType and "__wrapped__" in attributes_of(func):  # parwise's own among them
            func = attributes_of(func)["__wrapped__"]
    if type(func) is FunctionType:
        return func, None
    own = func
    method = func if type(func) is MethodType else getattr(type(func), "__call__", None)  # noqa: B004
    if type(method) is MethodType:
        own, method = method.__self__, method.__func__
    return (method, own) if type(method) is FunctionType else (None, None)


def codes_of(function: FunctionType, own: Any) -> list[CodeType]:
    """The code of a function, of functions within it, and of those of its module and object that it calls."""
    codes, space = [function.__code__], function.__globals__
    cells = dict(zip(codes[0].co_freevars, function.__closure__ or (), strict=True))
    for code in codes:  # grows meanwhile
        found = [one for one in code.co_consts if isinstance(one, CodeType)]
        for name in (*code.co_names, *code.co_freevars):
            named = [space.get(name), *(vars(kind).get(name) for kind in type(own).__mro__)]
            with contextlib.suppress(KeyError, ValueError):
                named.append(cells[name].cell_contents)
            found += [one.__code__ for one in named if type(one) is FunctionType and one.__globals__ is space]
        codes += [one for one in dict.fromkeys(found) if one not in codes]
    return codes


def named_values(function: FunctionType, own: Any, names: Iterable[str]) -> Iterator[tuple[Where, str, Any]]:
    """The globals and the attributes of `own` with these names, and the variables of enclosing functions."""
    space, attributes = function.__globals__, attributes_of(own)
    spaces: list[Any] = [attributes, *(() if own is None else map(vars, type(own).__mro__))]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not set yet
            yield "variable", name, cell.cell_contents
    for name in names:
        if name in space:
            yield "global", name, space[name]
        found = next((one[name] for one in spaces if name in one), None)
        if type(found) is MemberDescriptorType:  # of __slots__
            with contextlib.suppress(AttributeError):  # not set yet
                yield "attribute", name, found.__get__(own, type(own))
        elif found is not None:
            yield "attribute", name, found


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object itself."""
    try:  # `contextlib.suppress` takes 1 us, twice in each call
        own: Any = object.__getattribute__(value, "__dict__")
    except Exception:  # none, or a property
        return {}
    return own if type(own) is dict else {}


@functools.cache
def _installed() -> tuple[str, ...]:
    """Folders of Python and of what was installed."""
    import sysconfig  # most calls do without

    return tuple({path for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platlib", "purelib")})


def is_own(module: str | None) -> bool:
    """True for a module of the user, whose code may change from one run to the next."""
    if not may_be_own(module or ""):
        return False
    return not is_installed(getattr(sys.modules.get(module or ""), "__file__", None) or "")


def may_be_own(module: str) -> bool:
    """False for a module of Python, and of parwise."""
    name = module.partition(".")[0]
    return name == "__main__" or (name != "parwise" and name not in sys.stdlib_module_names)


def is_installed(file: str) -> bool:
    """True for a file of Python, or of what was installed, the version of which stands for its code."""
    return file.startswith(_installed()) or "site-packages" in file or "dist-packages" in file
