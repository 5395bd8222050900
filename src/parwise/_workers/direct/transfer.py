"""A worker's side of direct transfer: it reads its arguments, and writes its results to where they belong."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from ..._core.inputs.place import Place
from ..._core.kernel import Kernel, Outcome
from ..._core.layout import Layout, address_of, offsets_for
from ..._core.results import Stack
from ..claims import Claim
from ..encoding import flat
from ..shared_memory import map_anonymous
from .access import CallerMemory

#: What of a task an outcome is of: elements from ``begin`` to ``end``, the seconds spent in those of the task before
#: them, whose results have been written, and the columns of it that have been written.
Extent: TypeAlias = tuple[int, int, float, list[int]]


class Target(NamedTuple):
    """Where results lie in the caller's memory: row by row, without gaps.

    Attributes
    ----------
    address : int
        Address of the result of element 0.
    kind : type or "block"
        As in `Stack`.
    dtype : dtype
    shape : tuple of int
        Shape of one row.
    """

    address: int
    kind: Any
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, rows: np.ndarray | None, kind: Any, lo: int) -> Target | None:
        """The target of all results, of which `rows` are those from element `lo` on; None for None."""
        if rows is None:
            return None
        return cls(address_of(rows) - lo * rows.strides[0], kind, rows.dtype, rows.shape[1:])

    def takes(self, column: Any, count: int) -> bool:
        """True if results of `count` elements are of that kind."""
        if not isinstance(column, Stack) or column.kind != self.kind:
            return False
        return column.array.dtype == self.dtype and column.array.shape == (count, *self.shape)

    def address_of(self, lo: int, nbytes: int, count: int) -> int:
        """Address of the result of element `lo`, if `count` results take `nbytes`."""
        return self.address + lo * (nbytes // count)


class Reading(Protocol):
    """What is to know of a session whose arguments are read."""

    @property
    def kernel(self) -> Kernel:
        """The function, and the halo of its blocks."""

    @property
    def places(self) -> list[Place]:
        """Where the arguments lie."""


class DirectTransfer:
    """Reads arguments from the caller's memory, and writes results there.

    Attributes
    ----------
    targets : list of Target or None
        Where the results of this call belong, one for each column; None for those that are sent.
    """

    def __init__(self, caller: CallerMemory) -> None:
        self._caller = caller
        self.targets: list[Target | None] = []
        # The arguments of one task after another: memory that is used again is in the cache.
        self._memory: np.ndarray | None = None

    def read(self, session: Reading, layouts: list[Layout], lo: int, hi: int) -> tuple[memoryview, Any]:
        """Read the arguments of a task; return memory with them, and their offsets there.

        Raises
        ------
        OSError
            If the caller's memory cannot be read there.
        """
        places, halo = session.places, session.kernel.halo
        first = (lo,) if halo is None else tuple(start for start, _ in halo.extents(lo, hi))
        starts, nbytes = offsets_for(layouts, [place.at(first) for place in places])
        if self._memory is None or len(self._memory) < nbytes:
            self._memory = np.frombuffer(map_anonymous(nbytes), np.uint8)
        for place, layout, start in zip(places, layouts, starts, strict=True):
            for pieces in place.pieces(first, hi, layout):
                self._caller.read(self._memory, start, pieces)
        return self._memory.data, [(start, 0, 0) for start in starts]

    def leave(self) -> None:
        """Leave the memory of the arguments to the function, which has kept one of them."""
        self._memory = None

    def writes_all(self, outcome: Outcome, lo: int, hi: int, claim: Claim) -> bool:
        """Write results to the caller's memory; False if nothing was written, or not all that there is."""
        if outcome.results is None or len(self._fitting(outcome, hi - lo)) < len(outcome.results.columns):
            return False
        buffers = [flat(column) for column in outcome.results.columns]
        written = self.write(outcome, lo, hi, buffers, claim)
        return written is not None and len(written) == len(buffers)

    def write(self, outcome: Outcome, lo: int, hi: int, buffers: list[Any], claim: Claim) -> list[int] | None:
        """Write results to the caller's memory in place of `buffers`.

        Returns the numbers of the columns that were written; None if the caller does not want any result of the task.
        """
        if not claim.take():
            return None
        try:
            return self._write_fitting(outcome, lo, hi, buffers)
        finally:
            claim.release()

    def _write_fitting(self, outcome: Outcome, lo: int, hi: int, buffers: list[Any]) -> list[int]:
        return [k for k, target in self._fitting(outcome, hi - lo) if self._write(target, lo, hi - lo, buffers, k)]

    def _fitting(self, outcome: Outcome, count: int) -> list[tuple[int, Target]]:
        """Columns of the results of `count` elements that the caller has memory for, and where it is."""
        results = outcome.results
        if results is None or outcome.error is not None or len(results.columns) != len(self.targets):
            return []
        columns = enumerate(zip(self.targets, results.columns, strict=True))
        return [(k, target) for k, (target, column) in columns if target is not None and target.takes(column, count)]

    def _write(self, target: Target, lo: int, count: int, buffers: list[Any], k: int) -> bool:
        data = buffers[k]
        try:
            if not self._caller.is_there:
                return False
            self._caller.write(target.address_of(lo, data.nbytes, count), data)
        except OSError:
            return False
        buffers[k] = b""
        return True
