"""Snapshots: copies of objects in this process, of the caller's own classes."""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable
from typing import Any

from ..._clock import perf_counter
from .multiprocessing_objects import is_handle
from .picklers import Pickler


class _Restoring(threading.local):
    """The definitions that the snapshot being restored in this thread refers to."""

    def __init__(self) -> None:
        self.definitions: list[Any] = []


_restoring = _Restoring()


class Snapshot:
    """An object as it is now, whatever happens to it afterwards.

    Classes and functions that another process could not import are not copied, nor are connections, locks and files.
    """

    __slots__ = ("_data", "_definitions")

    def __init__(self, obj: Any) -> None:
        stream = io.BytesIO()
        pickler = _SnapshotPickler(stream)
        pickler.dump(obj)
        self._data, self._definitions = stream.getvalue(), pickler.definitions

    def restore(self) -> Any:
        """Make a copy of the object."""
        before, _restoring.definitions = _restoring.definitions, self._definitions
        try:
            return pickle.loads(self._data)
        finally:  # a call in an object's own ``__setstate__`` restores others
            _restoring.definitions = before


class _SnapshotPickler(Pickler):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.definitions: list[Any] = []

    def _reduce_definition(self, obj: Any, parts: Callable[[Any], tuple[Any, Any, Any]]) -> tuple[Any, ...]:
        self.definitions.append(obj)
        return _definition, (len(self.definitions) - 1,)

    def _reduce_attached(self, obj: Any) -> Any:
        return self._reduce_definition(obj, tuple) if is_handle(type(obj)) else super()._reduce_attached(obj)

    def _chained(self, error: BaseException | None) -> Any:
        return error


def _definition(index: int) -> Any:
    return _restoring.definitions[index]


# Number of items by which the transfer of one is measured, unless one takes so many seconds; seconds of a result.
SAMPLE_ITEMS = 64
SAMPLE_SECONDS = 100e-6
RESULT_SECONDS = 1.5e-7


class ItemTransfer:
    """Estimates, once, the seconds that it takes to send an item and its result; `sample` returns some items."""

    def __init__(self, sample: Callable[[int], list[Any]]) -> None:
        self._sample = sample
        self._seconds: float | None = None

    def __call__(self) -> float:
        if self._seconds is None:
            try:
                self._seconds = self._measured() + RESULT_SECONDS
            except Exception:  # an item that cannot be pickled: told by the dispatcher
                self._seconds = 0.0
        return self._seconds

    def _measured(self) -> float:
        one = min(self._snapshot_seconds(1) for _ in range(3))  # the first time takes longer
        if one > SAMPLE_SECONDS:
            return 2 * one
        return 2 * max(0.0, self._snapshot_seconds(SAMPLE_ITEMS) - one) / SAMPLE_ITEMS

    def _snapshot_seconds(self, count: int) -> float:
        begun = perf_counter()
        Snapshot(self._sample(count))
        return perf_counter() - begun
