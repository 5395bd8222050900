"""Weak references: in another process nobody else may hold their objects, so they hold these themselves there."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class LastingReference(weakref.ref[Any]):
    """A weak reference whose object lives as long as it does: where it was made the object's owner does."""

    __slots__ = ("_object",)
    _object: Any

    def __new__(cls, target: Any) -> LastingReference:
        """Make one."""
        made = super().__new__(cls, target)
        made._object = target
        return made


def _reduce_reference(reference: weakref.ref[Any]) -> tuple[Any, ...]:
    target = reference()
    return (_dead_reference, ()) if target is None else (LastingReference, (target,))


class _Ended:
    pass


def _dead_reference() -> weakref.ref[Any]:
    return weakref.ref(_Ended())


def _reduce_dict(obj: Any) -> tuple[Any, ...]:
    items = list(obj.items())
    # Beside what the dict keeps of its own.
    return type(obj), (), {"_parwise_objects": items}, None, iter(items)


def _refuse(obj: Any) -> Any:
    # Its copy would be one that has been called.
    raise TypeError("cannot pickle a 'weakref.finalize' object")


#: Reducers by the id of an object's exact type.
WEAK_REDUCERS: dict[int, Callable[[Any], Any]] = {
    id(weakref.ref): _reduce_reference,
    id(LastingReference): _reduce_reference,
    id(weakref.WeakKeyDictionary): _reduce_dict,
    id(weakref.WeakValueDictionary): _reduce_dict,
    id(weakref.finalize): _refuse,
}
