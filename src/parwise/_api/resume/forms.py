"""Forms of results: of what kind each column is, in words that a journal can hold."""

from __future__ import annotations

import ast
import sys
from typing import Any

import numpy as np

from ..._core.results import Column, Results, Stack


def form_of(like: Results | None) -> dict[str, Any] | None:
    """The kinds of results in words, for a journal."""
    if like is None:
        return None
    columns = [
        [name_of(one.kind), repr(np.lib.format.dtype_to_descr(one.array.dtype)), list(one.array.shape)]
        for one in like.columns
        if isinstance(one, Stack)
    ]
    return {"columns": columns, "tuple": None if like.wrap is None else name_of(like.wrap)}


def results_of(form: dict[str, Any]) -> Results:
    """No results, of the kinds that `form_of` has told.

    Examples
    --------
    >>> like = Results([Stack(float, np.empty((0, 3), "f4"))], tuple)
    >>> results_of(form_of(like)).columns[0].array
    array([], shape=(0, 3), dtype=float32)
    """
    columns: list[Column] = [
        Stack(
            kind if kind == "block" else type_of(kind, float),
            np.empty(tuple(shape), np.lib.format.descr_to_dtype(ast.literal_eval(descr))),
        )
        for kind, descr, shape in form["columns"]
    ]
    return Results(columns, None if form["tuple"] is None else type_of(form["tuple"], tuple))


def name_of(kind: Any) -> str:
    """The name of a type, with its module."""
    return kind if isinstance(kind, str) else f"{kind.__module__}:{kind.__qualname__}"


def type_of(name: str, default: type) -> type:
    """The type of a name, if its module has been imported."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else default
