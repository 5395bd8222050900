"""Notes of an exception of the mapped function: which element, what the function was given, and what it may lack."""

from __future__ import annotations

from typing import Any

from ..call import Call
from ..inputs.items import ItemSequence, ItemStream
from ..inputs.starmap import StarFunction
from .misfits import misfit
from .shown import MOST_CHARACTERS, cut, shown

#: Exceptions of functions that got something of another shape or kind than they were written for.
_OF_SHAPE = (TypeError, ValueError, IndexError, AttributeError)


def error_notes(call: Call, index: int, stop: int, error: BaseException) -> list[str]:
    """The notes of what the function raised for element `index`, or for the block from there to `stop`."""
    items = items_at(call, index)
    text = _misfit(call, items) if type(error) is TypeError else ""
    # A function that was written for something else raises at once: a later exception is about the values.
    if not text and not items and index == 0 and isinstance(error, _OF_SHAPE):
        text = _given(call, index, stop)
    name = name_with_item(call, index, stop, items)
    return [name, text] if text else [name]


def name_with_item(call: Call, index: int, stop: int | None = None, items: list[Any] | None = None) -> str:
    """The name of an element in a message; of an item also its text."""
    found = items_at(call, index) if items is None else items
    name = call.name(index, stop)
    return f"{name}: {cut(', '.join(map(shown, found)), 2 * MOST_CHARACTERS)}" if found else name


def items_at(call: Call, index: int) -> list[Any]:
    """The items of element `index`, one of each iterable; none if it is not made of items, or if they are gone."""
    feed = call.feed
    if not isinstance(feed, ItemSequence | ItemStream):
        return []
    try:
        return [feed.items(k, index, index + 1)[0] for k in range(len(call.inputs))]
    except Exception:  # released, or a copy that cannot be made any more
        return []


def _misfit(call: Call, items: list[Any]) -> str:
    names = [*call.kwargs, *(["rng"] if call.streams is not None else [])]
    if isinstance(call.func, StarFunction):
        parts = len(items[0]) if items and isinstance(items[0], tuple | list) else None
        return "" if parts is None else misfit(call.func, parts + len(call.args), names)
    return misfit(call.func, len(call.inputs) + len(call.args), names, items)


def _given(call: Call, index: int, stop: int) -> str:
    """What the function gets of each array, and what it does not get: the mapped axes."""
    # The raw results of NumPy's drop-ins are mapped along axes of their own.
    mapped = call.naming.mapped(call) if call.form in ("arrays", "optional") else ""
    if not mapped:
        return ""
    shapes = [_shape(call, k, index, stop) for k in range(len(call.inputs))]
    if not any(shapes):
        dtypes = " and ".join(dict.fromkeys(str(one.like.dtype) for one in call.inputs))
        return f"func got single values of dtype {dtypes}, not arrays; {mapped}"
    kind = "a block" if call.vectorized else "an array"
    text = f"{kind} of shape {shapes[0]}" if len(shapes) == 1 else f"shapes {' and '.join(map(str, shapes))}"
    return f"func got {text}; {mapped}"


def _shape(call: Call, k: int, index: int, stop: int) -> tuple[int, ...]:
    one = call.inputs[k]
    if not call.vectorized:
        return one.element_shape
    extents = call.halo.extents(index, stop) if call.halo else ((index, stop),)
    shape = list(one.element_shape)
    for axis, (first, last) in sorted(zip(one.axes, extents, strict=True)):
        shape.insert(axis, last - first)
    return tuple(shape)
