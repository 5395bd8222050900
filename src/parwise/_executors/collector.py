"""Computes elements in the calling thread, nearly as fast as a list comprehension; another thread may take over."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.nesting import ALWAYS, NESTED
from .._core.results import SCALARS, detached

if TYPE_CHECKING:
    from .._core.kernel import Kernel


class Collector:
    """Computes elements one after another, in batches.

    A batch is one loop that looks at no clock. What another thread claims is cut from the list that the loop iterates
    over, so that each element is computed by one of both.

    Parameters
    ----------
    runs : list of ndarray
        One for each mapped array.

    Attributes
    ----------
    raw : list
        Results of the function.
    stop : int or None
        The first element that is not computed here, once that is fixed.
    kinds : set of type or None
        Types of the results, if all are numbers or strings, and if it is known.
    """

    def __init__(self, kernel: Kernel, runs: list[np.ndarray]) -> None:
        self.raw: list[Any] = []
        self.stop: int | None = None
        self._run = runs[0]
        self._calls = kernel.calls(runs)
        # Arrays may lie in memory that the function uses again; a list keeps the objects themselves.
        self._as_is = kernel.form == "list"
        self.kinds: set[type] | None = None if self._as_is else set()
        # The type of the first result.
        self._kind: type | None = None
        # The batch, its iterator, and the number of elements before it.
        self._batch: list[Any] = []
        self._left = iter(self._batch)
        self._begin = 0
        self._lock = threading.Lock()

    def collect(self, count: int) -> BaseException | None:
        """Compute the next `count` elements, or fewer if another thread claims some; return what the function raised.

        The first element is computed in any case.
        """
        with self._lock:
            self._begin = len(self.raw)
            if self.stop is not None and self._begin:
                return None
            count = min(count, self.stop or count)
            self._batch = list(self._run[self._begin : self._begin + count])
            elements = self._start_batch()
        calls = self._calls(elements)
        nested = NESTED.set(ALWAYS)
        try:
            if self.kinds is None:
                self.raw.extend(calls if self._as_is else map(detached, calls))
            else:
                self._collect_scalars(calls)
        except BaseException as error:
            self.kinds = None
            return error
        finally:
            NESTED.reset(nested)
        if self._index is not None:
            # `map` takes a StopIteration from the function for its own end; a plain loop lets it through.
            return StopIteration()
        return None

    def _start_batch(self) -> Iterator[Any]:
        """Iterate over the batch."""
        self._left = iter(self._batch)
        return self._left

    def _collect_scalars(self, calls: Iterator[Any]) -> None:
        """Append results that have been numbers or strings so far, each detached before the function is called again.

        To look at the types of all afterwards takes as long.
        """
        append, kind = self.raw.append, self._kind
        for result in calls:
            append(result if type(result) is kind else self._unlike(result))

    def _unlike(self, result: Any) -> Any:
        """A result of another type than the first one, or the first one, detached."""
        kind = type(result)
        self._kind = self._kind or kind
        if kind not in SCALARS:
            self.kinds = None
        elif self.kinds is not None:
            self.kinds.add(kind)
        return detached(result)

    def claim(self, stop: int | None = None) -> int:
        """Fix `stop`, once, and return it; without a number it is the element behind the one being computed."""
        with self._lock:
            if self.stop is None:
                self.stop = self._cut() if stop is None else stop
            return self.stop

    def _cut(self) -> int:
        """End the batch behind the element being computed; return the number of elements computed by then."""
        # The first element is always computed here, also where its batch is there and its loop has not begun.
        kept = max(self._position, 0 if self._begin else 1)
        del self._batch[kept:]
        # The loop may have read more elements meanwhile: then none after them, as its list is shorter now.
        return self._begin + max(kept, self._position)

    @property
    def _position(self) -> int:
        """Number of elements of the batch that have been read."""
        # At its end an iterator forgets its index: then all that was read has its result.
        return len(self.raw) - self._begin if (index := self._index) is None else index

    @property
    def _index(self) -> int | None:
        """Index of the iterator of the batch; None once it has told its end, be it that of a batch that was cut."""
        reduced: Any = self._left.__reduce__()
        return int(reduced[2]) if len(reduced) > 2 else None


class FreeCollector(Collector):
    """A `Collector` for a Python without the GIL, which takes each element under a lock: that takes 0.1 us.

    There an iterator of a list hands out an element before it counts that.
    """

    _taken = 0
    _elements: Any

    def _iterate(self) -> Generator[Any]:
        for index, element in enumerate(self._batch, self._begin):
            with self._lock:
                if self.stop is not None and index >= max(1, self.stop):
                    return
                self._taken = index + 1
            yield element

    def _start_batch(self) -> Iterator[Any]:
        self._elements = elements = self._iterate()
        return elements

    def _cut(self) -> int:
        return max(1, self._taken)

    @property
    def _index(self) -> int | None:
        return None if self._elements.gi_frame is None else self._taken - self._begin
