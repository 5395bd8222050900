"""Results of one task: stacked if they are of one kind; and whether two have the same bits."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import MethodType
from typing import Any, Literal, TypeAlias

import numpy as np


class Stack:
    """Results of one type, dtype and shape, as one array.

    Attributes
    ----------
    kind : type or "block"
        Type of each result: a Python or NumPy scalar type, `numpy.ndarray`, or
        "block" for the one result of a block function.
    array : ndarray
        Stacked along its first axis; for a block, the result itself.
    """

    __slots__ = ("array", "kind")

    def __init__(self, kind: Any, array: np.ndarray) -> None:
        self.kind = kind
        self.array = array

    @staticmethod
    def takes_any_order(result: np.ndarray, form: Form) -> bool:
        """True if no call of this form shows the memory layout of results like this one."""
        return form == "arrays" or result.ndim < 2

    @classmethod
    def keeps(cls, result: np.ndarray, form: Form) -> bool:
        """True if a stack keeps all of `result` that a call may show: its items are in C order."""
        return cls.takes_any_order(result, form) or result.flags.c_contiguous

    def unstack(self) -> list[Any]:
        """The single results, as the function returned them."""
        if self.kind in (float, int, bool, complex):
            return self.array.tolist()  # type: ignore[no-any-return]
        if self.kind is np.ndarray and self.array.ndim == 1:  # `list` would make scalars of 0-d arrays
            return [self.array[at, ...] for at in range(len(self.array))]
        return list(self.array)


#: The form in which a call returns its results: "arrays", one array, or one for each item of a tuple; "raw", each
#: as the function returned it, in memory of its own; "list", a list of the objects themselves; "optional", arrays,
#: or a list if some results are None or do not make arrays.
Form: TypeAlias = Literal["arrays", "raw", "list", "optional"]

#: One result of each element: a stack, or a list.
Column: TypeAlias = Stack | list[Any]


class Results:
    """Results for the elements of one task: one column, or one for each item of tuples of type `wrap`."""

    __slots__ = ("columns", "wrap")

    def __init__(self, columns: list[Column], wrap: type[tuple[Any, ...]] | None = None) -> None:
        self.columns = columns
        self.wrap = wrap


def owned(results: Results) -> Results:
    """A copy of results, apart from a slot's or the function's memory."""
    return Results(list(map(owned_column, results.columns)), results.wrap)


def owned_column(column: Column) -> Column:
    """One column, with its stack copied."""
    return Stack(column.kind, column.array.copy()) if isinstance(column, Stack) else column


def stacked(results: Results) -> Results:
    """The same results, with numbers of one type in a list as an array, which travels faster and loses nothing."""
    return Results(list(map(_stacked_column, results.columns)), results.wrap)


def _stacked_column(column: Column) -> Column:
    if isinstance(column, Stack) or len(kinds := set(map(type, column))) != 1 or not kinds <= SCALARS:
        return column
    return pack_column(column)


def unstacked(column: Column) -> list[Any]:
    """The single results of a column."""
    return column.unstack() if isinstance(column, Stack) else column


#: Types whose values hold no memory that the function could change.
SCALARS = frozenset({float, int, bool, complex, str, bytes, *np.sctypeDict.values()} - {np.void, np.object_})

#: Types of arrays of which ``np.asarray`` makes the same. Functions of rows of a memmap mostly return memmaps.
PLAIN_ARRAYS = frozenset({np.ndarray, np.memmap})

#: Types of 8 bytes, with the dtype that ``np.asarray`` chooses for a list of them.
WORDS: dict[type, type] = {float: np.float64, np.float64: np.float64, int: np.int64, np.int64: np.int64}


def detached(result: Any) -> Any:
    """`result` with copies of the arrays in it, whose memory the function may use again."""
    if type(result) in PLAIN_ARRAYS:
        return result.copy(order="K")
    if not isinstance(result, tuple) or SCALARS.issuperset(map(type, result)):
        return result
    if PLAIN_ARRAYS.isdisjoint(map(type, result)):
        return result
    # Without a call of the type, which may want different arguments.
    copied = tuple.__new__(type(result), map(detached, result))
    if hasattr(result, "__dict__"):  # of a type that has more than its items
        vars(copied).update(vars(result))
    return copied


def wrap_of(kind: type[tuple[Any, ...]]) -> type[tuple[Any, ...]]:
    """The type of tuple in which results of this type are returned: `kind` if it is a named tuple, else `tuple`.

    The constructor says nothing: SciPy's results are tuples whose types want arguments that no column of results tells.
    """
    return kind if callable(getattr(kind, "_make", None)) else tuple


def tuple_of(kind: type[tuple[Any, ...]], items: list[Any]) -> tuple[Any, ...]:
    """Make a named tuple of type `kind`, or a plain tuple if the type has no way of its own to take items as they are.

    Examples
    --------
    >>> from collections import namedtuple
    >>> tuple_of(namedtuple("Fit", "slope offset"), [2.0, 1.0])
    Fit(slope=2.0, offset=1.0)
    """
    plain = tuple(items)
    try:
        made = plain if wrap_of(kind) is tuple else kind._make(items)  # type: ignore[attr-defined]
    except Exception:
        return plain
    same = isinstance(made, tuple) and len(made) == len(plain) and all(map(operator.is_, made, plain))
    return made if same else plain


def pack(raw: list[Any], indices: Sequence[int], form: Form, kinds: set[type] | None = None) -> Results:
    """Make results of some elements: stacked if they are of one kind; `kinds` are their types, if that is known."""
    if form == "list":
        return Results([raw])
    if form == "raw":
        return Results([pack_column(raw, form, kinds)])
    if form == "optional":
        kinds = kinds or set(map(type, raw))
        if not _make_columns(raw, kinds):
            refuse_more(kinds)
            return Results([raw])
    if raw and isinstance(raw[0], tuple):
        columns, kind = split_tuples(raw, indices)
        return Results([pack_column(column, form) for column in columns], kind)
    return Results([pack_column(raw, form, kinds)])


def _make_columns(raw: list[Any], kinds: set[type]) -> bool:
    """True if no result is None, and all are tuples of one length or none is a tuple."""
    if type(None) in kinds:
        return False
    tuples = sum(issubclass(kind, tuple) for kind in kinds)
    return not tuples or (tuples == len(kinds) and len(set(map(len, raw))) == 1)


def pack_column(raw: list[Any], form: Form = "arrays", kinds: set[type] | None = None) -> Column:
    """Stack results if ``np.asarray`` of all of them would do no more than that.

    Results of mixed types, and those whose common dtype depends on their
    values (strings, Python ints beyond 64 bits), stay a list, for a single
    ``np.asarray`` over the results of all tasks: int8, uint16 and float16
    promote to a different dtype in steps than at once.

    Parameters
    ----------
    form : {"arrays", "raw", "optional"}
        All but "raw" refuse masked arrays and the like, whose masks ``np.asarray`` forgets.
    kinds : set of type, optional
        The types of the results: to look at all takes 11 ns for each.
    """
    if not raw:
        return raw
    kinds = kinds or set(map(type, raw))
    refuse = form != "raw"
    if refuse and kinds <= PLAIN_ARRAYS:
        return _pack_arrays(raw, form)
    if len(kinds) > 1:
        if refuse:
            refuse_more(kinds)
        return raw
    (kind,) = kinds
    if kind in (float, bool, complex):
        # fromiter stores each as asarray does, without finding out the dtype.
        return Stack(kind, np.fromiter(raw, kind, len(raw)))
    if kind is int:
        array = np.asarray(raw)
        return Stack(kind, array) if array.dtype == np.int64 else raw
    if kind is np.ndarray:
        return _pack_arrays(raw, form)
    if issubclass(kind, np.datetime64 | np.timedelta64):  # these have units
        return Stack(kind, np.asarray(raw)) if len({one.dtype for one in raw}) == 1 else raw
    if issubclass(kind, np.number | np.bool_):
        return Stack(kind, np.fromiter(raw, kind, len(raw)))
    if refuse:
        refuse_more(kinds)
    return raw


def _pack_arrays(raw: list[np.ndarray], form: Form) -> Column:
    dtype, shape = raw[0].dtype, raw[0].shape
    if dtype.hasobject or any(one.shape != shape or one.dtype != dtype or not Stack.keeps(one, form) for one in raw):
        return raw
    stack = np.empty((len(raw), *shape), dtype)
    for at, one in enumerate(raw):
        stack[at] = one
    return Stack(np.ndarray, stack)


def is_masked(kind: type) -> bool:
    """True for the type of a masked array; importing numpy.ma to ask takes 0.1 s."""
    ma = sys.modules.get("numpy.ma")
    # Another thread may be importing it just now.
    masked = getattr(ma, "MaskedArray", None)
    return masked is not None and issubclass(kind, masked)


def has_more(kind: type) -> bool:
    """True for an array type with rules of its own, as for units, that ``np.asarray`` forgets."""
    own = (getattr(kind, name, None) for name in ("__array_function__", "__array_ufunc__"))
    plain = np.ndarray.__array_function__, np.ndarray.__array_ufunc__
    return issubclass(kind, np.ndarray) and any(one is not other for one, other in zip(own, plain, strict=True))


def refuse_more(kinds: Iterable[type]) -> None:
    """Raise a TypeError for results that have more than values: a mask, a unit, or zeros left out."""
    for kind in kinds:
        if is_masked(kind):
            raise TypeError(
                "func returned a MaskedArray, whose mask would be lost; return result.filled(value), "
                "or a tuple (result.data, np.ma.getmaskarray(result))"
            )
        foreign = hasattr(kind, "__array_function__") or hasattr(kind, "__array_namespace__")
        # Dask's arrays are computed.
        other = foreign and not issubclass(kind, np.ndarray | np.generic) and not kind.__module__.startswith("dask.")
        if other or has_more(kind):
            raise TypeError(
                f"func returned a {kind.__module__}.{kind.__name__}, whose unit or the like would be lost; "
                "return an ndarray of its values"
            )


def split_tuples(raw: list[Any], indices: Sequence[int]) -> tuple[Iterator[list[Any]], type[tuple[Any, ...]]]:
    """The columns of tuple results, and the tuple type."""
    kind, width = wrap_of(type(raw[0])), len(raw[0])
    lo = indices[0]
    if not width:
        raise ValueError(
            f"func returned an empty tuple for element {lo}; return an array, a number or a tuple of them, or use "
            "parallel_map, which returns a list"
        )
    for index, one in zip(indices, raw, strict=True):
        if not isinstance(one, tuple):
            raise ValueError(
                f"func returned a tuple for element {lo} but {type(one).__name__} for element {index}; return "
                "the same for all elements, or use parallel_map, which returns a list"
            )
        if len(one) != width:
            raise ValueError(
                f"func returned {width} results for element {lo} but {len(one)} for element {index}; return "
                "as many for all elements, or use parallel_map, which returns a list"
            )
    return map(list, zip(*raw, strict=True)), kind


def same_results(one: Results, other: Results) -> bool:
    """True if two results of the same task have the same types and bits."""
    if one.wrap is not other.wrap and (one.wrap is None or other.wrap is None):
        return False
    if len(one.columns) != len(other.columns):
        return False
    return all(same(a, b) for a, b in zip(one.columns, other.columns, strict=True))


def same_values(one: Results, other: Results) -> bool:
    """As `same_results`, whether results are stacked or not."""
    return same_results(_loose(one), _loose(other))


def _loose(results: Results) -> Results:
    columns = [c.unstack() if isinstance(c, Stack) and c.kind != "block" else c for c in results.columns]
    return Results(columns, results.wrap)


def same(a: Any, b: Any) -> bool:
    """True if two values have the same type and bits."""
    if type(a) is not type(b):
        return _are_twins(type(a), type(b))
    if isinstance(a, Stack):
        return bool(a.kind == b.kind) and same_array(a.array, b.array)
    if isinstance(a, np.ndarray):
        return same_array(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, float | complex | np.generic):
        return same_array(np.asarray(a), np.asarray(b))
    if isinstance(a, MethodType):  # compared by the identity of its object
        return same(a.__self__, b.__self__) and a.__func__.__qualname__ == b.__func__.__qualname__
    # Objects of other types differ only if their own `__eq__` says so. Many have
    # none and compare by identity, which no copy can pass.
    return "__eq__" not in _defined(type(a)) or _not_unequal(a, b)


def _are_twins(one: type, other: type) -> bool:
    """True if the function has made a class in either process: of their instances nothing is known."""
    return "<locals>" in one.__qualname__ and (one.__module__, one.__qualname__) == (
        other.__module__,
        other.__qualname__,
    )


def _defined(kind: type) -> set[str]:
    """Names that a class or its bases, except `object`, define."""
    return {name for base in kind.__mro__[:-1] for name in vars(base)}


def _not_unequal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:
        return True


def same_array(a: np.ndarray, b: np.ndarray) -> bool:
    """True if two arrays have the same dtype, shape and bits."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.names is not None:  # fields one by one: padding has no value
        return all(same_array(a[name], b[name]) for name in a.dtype.names)
    if a.dtype.hasobject:
        return all(map(same, a.ravel().tolist(), b.ravel().tolist()))
    if a.dtype.char in "gG" and a.size:
        return np.array_equal(item_bytes(a), item_bytes(b))
    return a.tobytes() == b.tobytes()


def item_bytes(a: np.ndarray) -> np.ndarray:
    """The bytes of each item of `a`, without the padding of 80-bit floats, which has no value."""
    bytes_ = np.ascontiguousarray(a).reshape(-1).view(np.uint8).reshape(a.size, -1)
    if a.dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:
        width = np.dtype(np.longdouble).itemsize
        return bytes_.reshape(a.size, -1, width)[:, :, :10].reshape(a.size, -1)
    return bytes_
