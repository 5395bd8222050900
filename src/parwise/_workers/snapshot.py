"""Snapshots: copies of objects in this process, which keep their classes, functions, and the layout of their arrays."""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

from .picklers import Pickler


class _Restoring(threading.local):
    """The definitions that the snapshot being restored in this thread refers to."""

    definitions: list[Any]


_restoring = _Restoring()


class Snapshot:
    """An object as it is now, whatever happens to it afterwards.

    Classes and functions that another process could not import are not copied.
    """

    __slots__ = ("_data", "_definitions")

    def __init__(self, obj: Any) -> None:
        stream = io.BytesIO()
        pickler = _SnapshotPickler(stream)
        pickler.dump(obj)
        self._data, self._definitions = stream.getvalue(), pickler.definitions

    def restore(self) -> Any:
        """Make a copy of the object."""
        _restoring.definitions = self._definitions
        return pickle.loads(self._data)


class _SnapshotPickler(Pickler):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.definitions: list[Any] = []

    def _reduce_definition(self, obj: Any, parts: Callable[[Any], tuple[Any, Any, Any]]) -> tuple[Any, ...]:
        self.definitions.append(obj)
        return _definition, (len(self.definitions) - 1,)

    def _chained(self, error: BaseException | None) -> Any:
        return error


def _definition(index: int) -> Any:
    return _restoring.definitions[index]


# Number of items by which the transfer of one is measured, unless one takes so many seconds.
SAMPLE_ITEMS = 64
SAMPLE_SECONDS = 100e-6


def transfer_seconds(sample: Callable[[int], list[Any]]) -> float:
    """Estimated seconds to pickle an item and to unpickle it; `sample` returns some."""

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        Snapshot(sample(count))
        return time.perf_counter() - begun

    try:
        one = min(seconds(1) for _ in range(3))  # the first time takes longer
        more = 0.0 if one > SAMPLE_SECONDS else seconds(SAMPLE_ITEMS)
    except Exception:  # told by the dispatcher
        return 0.0
    return 2 * one if one > SAMPLE_SECONDS else 2 * max(0.0, more - one) / SAMPLE_ITEMS
