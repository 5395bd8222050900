"""What is known of a value within a function that is examined: whether it may lie in the memory of an argument."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np


class UnprovenError(Exception):
    """Nothing is proved: the function may write to its arguments, keep them, or do what is not understood."""


class Value(NamedTuple):
    """What is known of a value; values of the same kind and detail are alike.

    Attributes
    ----------
    kind : str
        The kinds of `HARMLESS` values hold no argument, and their operators run no function of the user's. "shared" is
        an ndarray, or a number of NumPy, that may lie in the memory of an argument or of a global array; of a dtype
        without objects. A "list", "tuple" or "iterator" may hold such. Of the others nothing can be done but what
        their name tells: "function", "known" (in `parwise._core.inputs.reading.known`), "module", "method", "null",
        "exception". "opaque" may be anything.
    detail : object
        Of "shared" the number of dimensions, None if that is unknown; of "array" True if its dtype has no objects for
        certain; of others what they consist of.
    """

    kind: str
    detail: Any = None


INT, NUMBER, NONE, SLICE, PLAIN = map(Value, ("int", "number", "none", "slice", "plain"))
#: An ndarray or a number of NumPy's in memory that the function has made; the second for certain without objects.
ARRAY, TYPED_ARRAY = Value("array", False), Value("array", True)
#: An unknown number of new arrays in a tuple.
ARRAYS = Value("arrays")
DTYPE, RANGE, NULL, EXCEPTION, OPAQUE, MISSING = map(
    Value, ("dtype", "range", "null", "exception", "opaque", "missing")
)

#: Kinds that hold no argument, and whose operators run no function of the user's.
HARMLESS = frozenset({"int", "number", "none", "slice", "plain", "array", "arrays", "dtype", "range"})
NUMBERS = frozenset({"int", "number"})
#: Operands for which NumPy's operators make a new array and run nothing else.
OPERANDS = NUMBERS | {"array", "shared"}

#: Kinds of dtypes whose items are numbers.
NUMERIC_KINDS = "biufc"
_NUMBER_TYPES = frozenset(
    {float, complex, bool, *(one for one in np.sctypeDict.values() if issubclass(one, np.number | np.bool_))}
)


def shared(ndim: int | None) -> Value:
    """An array that may lie in an argument's memory."""
    return Value("shared", ndim)


def is_harmless(value: Value) -> bool:
    """True if the value holds no argument, and its operators run no function of the user's."""
    if value.kind == "tuple":
        return all(map(is_harmless, value.detail))
    return value.kind in HARMLESS


def holds_data(value: Value) -> bool:
    """True for numbers, arrays and the like, shared or not, also in a tuple or list."""
    if value.kind in ("tuple", "list"):
        return all(map(holds_data, value.detail))
    return value.kind in HARMLESS or value.kind == "shared"


def join(one: Value, other: Value) -> Value:
    """What is known of a value that is one or the other."""
    if one == other or other.kind == "missing":
        return one
    if one.kind == "missing":
        return other
    if one.kind == other.kind == "tuple" and len(one.detail) == len(other.detail):
        return Value("tuple", tuple(map(join, one.detail, other.detail)))
    if not (holds_data(one) and holds_data(other)):
        return OPAQUE
    kinds = {one.kind, other.kind}
    if kinds <= NUMBERS:
        return NUMBER
    if kinds <= OPERANDS:
        if ARRAY in (one, other):  # which may have objects, that nothing shared has
            return OPAQUE if "shared" in kinds else ARRAY
        return shared(None) if "shared" in kinds else ARRAY
    return PLAIN if is_harmless(one) and is_harmless(other) else OPAQUE


def joined(values: Iterable[Value]) -> Value:
    """What is known of a value that is one of several."""
    result = MISSING
    for value in values:
        result = join(result, value)
    return result


def classify(thing: Any) -> Value:
    """What is known of an object that is there before the function is called.

    Only weak references are kept to what is the user's. Global lists and the like are opaque: they may change, and what
    is put there is kept.
    """
    kind = type(thing)
    if kind is int:
        return INT
    if kind in _NUMBER_TYPES:
        return NUMBER
    if kind is FunctionType or kind in _callable_types():
        from .known import known

        rule = known(thing)
        if rule is not None:
            return Value("known", rule)
        return Value("function", (weakref.ref(thing), thing.__code__)) if kind is FunctionType else OPAQUE
    if kind is ModuleType:
        return Value("module", weakref.ref(thing))
    if kind is np.ndarray:
        return shared(thing.ndim) if thing.dtype.kind in NUMERIC_KINDS else OPAQUE
    return _classify_constant(thing, kind)


def _classify_constant(thing: Any, kind: type) -> Value:
    if thing is None:
        return NONE
    if kind is tuple:
        return Value("tuple", tuple(map(classify, thing)))
    if kind is slice:
        return slice_of([classify(one) for one in (thing.start, thing.stop, thing.step)])
    if kind is CodeType:
        return Value("code", thing)
    return PLAIN if kind in (str, bytes) or thing is Ellipsis else OPAQUE


def slice_of(parts: list[Value]) -> Value:
    """A slice of such parts."""
    if all(one in (INT, NONE) for one in parts):
        return SLICE
    if all(map(is_harmless, parts)):
        return PLAIN
    raise UnprovenError("a slice holds an argument")


def _callable_types() -> tuple[type, ...]:
    # `np.sum` and most others are of a type without a public name.
    return (BuiltinFunctionType, type, np.ufunc, type(np.sum))
