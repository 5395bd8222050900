"""Results of the elements of an array, some of which may be None or make no array, for `parallel`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..call import Call
from ..indexing import Task
from ..results import Results, Stack, pack, tuple_of, unstacked
from .output import ArrayOutput


class OptionalOutput(ArrayOutput):
    """The results as arrays, or as a list where they do not make arrays of one entry for each element.

    Then all has been computed: an error would lose it.
    """

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        # Results that go to no column, by the first element of their task: indices, and values.
        self._apart: dict[int, tuple[np.ndarray, list[Any]]] = {}

    def _add(self, task: Task, results: Results, indices: np.ndarray | None) -> None:
        values = results.columns[0]
        mixed = results.wrap is None and isinstance(values, list) and any(map(_stands_apart, values))
        if mixed or (self._begun and not self._is_like_columns(results)):
            chosen = np.arange(task.lo, task.hi) if indices is None else indices
            self._apart[task.lo] = (chosen, _each(results))
        else:
            super()._add(task, results, indices)

    def finish(self, gaps: np.ndarray) -> Any:
        """Return the array or arrays, or a list of all results, with None in gaps."""
        if not self._apart:
            try:
                return super().finish(gaps)
            except ValueError:  # of different shapes
                pass
        every: list[Any] = [None] * self._call.count
        taken = [gaps, *(indices for indices, _ in self._apart.values())]
        if self._begun:
            columns = [unstacked(one.unchanged(np.concatenate(taken))) for one in self._columns]
            every = _rows(columns, self.wrap)
        for indices, values in self._apart.values():
            for index, value in zip(indices.tolist(), values, strict=True):
                every[index] = value
        for index in gaps.tolist():
            every[index] = None
        return every


def _stands_apart(result: Any) -> bool:
    """True for a result of which no single array is made."""
    return result is None or isinstance(result, tuple)


def _each(results: Results) -> list[Any]:
    return _rows([unstacked(one) for one in results.columns], results.wrap)


def _rows(columns: list[list[Any]], wrap: type[tuple[Any, ...]] | None) -> list[Any]:
    """The results of single elements, of columns."""
    if wrap is None:
        return list(columns[0])
    return [tuple_of(wrap, list(row)) for row in zip(*columns, strict=True)]


def arrays_or_list(values: list[Any]) -> Any:
    """What `parallel_apply` makes of these results; the list itself if they do not make arrays.

    Examples
    --------
    >>> import numpy as np
    >>> arrays_or_list([1.5, 2])
    array([1.5, 2. ])
    >>> arrays_or_list([[1], [2, 3]])
    [[1], [2, 3]]
    """
    try:
        results = pack(values, range(len(values)), "arrays")
        arrays = [_as_array(one) for one in results.columns]
    except (TypeError, ValueError):
        return values
    return arrays[0] if results.wrap is None else tuple_of(results.wrap, arrays)


def _as_array(column: Stack | list[Any]) -> np.ndarray:
    if isinstance(column, Stack) and column.array.dtype.isnative and column.array.dtype.kind in "?biufc":
        return column.array
    return np.asarray(unstacked(column))  # of other dtypes a list may make another one
