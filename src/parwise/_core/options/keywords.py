"""How signatures, `help` and notebooks show the keywords of TypedDicts, such as `Options`, for ``**options``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from .settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def show_keywords(
    *keywords: Any,
    defaults: Mapping[str, Any] = MappingProxyType({}),
    without: Collection[str] = (),
    keep: bool = False,
) -> Callable[[F], F]:
    """Make a decorator: `inspect.signature`, `help` and notebooks see the keywords of TypedDicts for ``**options``.

    Type checkers read ``**options: Unpack[Options]`` and need it not; only they do.

    Parameters
    ----------
    *keywords : TypedDict
        Each documents its names as attributes, and the first paragraph of each goes to the docstring. One that others
        extend comes last.
    defaults : mapping, optional
        Defaults of keywords that are no options.
    without : collection of str, optional
        Keywords that are not shown.
    keep : bool, optional
        True to show ``**options`` too.
    """

    def show(func: F) -> F:
        target: Any = func.__init__ if isinstance(func, type) else func  # type: ignore[misc]
        signature = inspect.signature(target)
        *given, rest = signature.parameters.values()
        types: dict[str, Any] = {}
        for one in reversed(keywords):
            types = {name: kind for name, kind in one.__annotations__.items() if name not in types} | types
        names = [name for name in types if name not in signature.parameters and name not in without]
        values = {**Settings._field_defaults, **defaults}
        shown = [_parameter(name, types[name].__forward_arg__, values[name]) for name in names]
        parameters = [*given, *shown, *([rest] if keep else [])]
        target.__signature__ = inspect.Signature(
            parameters, return_annotation=signature.return_annotation, __validate_parameters__=False
        )
        if func.__doc__ is not None:  # as it is with python -OO
            found = {name: entry for one in keywords for name, entry in _entries(one.__doc__).items()}
            entries = dict.fromkeys(found[name] for name in names)  # one may be for several names
            func.__doc__ = _filled(func.__doc__, rest.name, list(entries), keep)
        return func

    return show


@functools.cache
def _parameter(name: str, kind: str, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


@functools.cache
def _entries(doc: str) -> dict[str, tuple[str, ...]]:
    """The lines of each attribute in a docstring, up to the end of the first paragraph."""
    section = doc.partition("Attributes\n")[2].splitlines()
    margin = len(section[0]) - len(section[0].lstrip())
    lines = [line[margin:] for line in section[1:]]
    entries: dict[str, tuple[str, ...]] = {}
    lines = lines[: next((k for k, line in enumerate(lines) if line[:3] == "---"), len(lines))]  # of the next section
    for at in [k for k, line in enumerate(lines) if line[:1].strip() and " : " in line]:
        stop = next((k for k in range(at + 1, len(lines)) if not lines[k].startswith(" ")), len(lines))
        entries.update(dict.fromkeys(lines[at].partition(" : ")[0].split(", "), tuple(lines[at:stop])))
    return entries


def _filled(doc: str, rest: str, entries: Sequence[Sequence[str]], keep: bool) -> str:
    """A docstring with entries in the place of that of ``**rest``, or after it."""
    lines = doc.splitlines()
    at = next(k for k, line in enumerate(lines) if line.strip() == f"**{rest}")
    indent = lines[at][: -len(lines[at].lstrip())]
    stop = at + 1
    while lines[stop].startswith(f"{indent} "):
        stop += 1
    lines[stop if keep else at : stop] = [f"{indent}{line}" for entry in entries for line in entry]
    return "\n".join(lines)
