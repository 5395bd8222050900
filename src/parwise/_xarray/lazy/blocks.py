"""Dask arrays cut into the blocks of a block function, of which each may have a part of its neighbours."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph


def in_blocks(array: Any, axis: int, extents: list[tuple[int, int]]) -> Any:
    """A Dask array with one chunk for each of `extents`, start and stop along an axis, and one along all others.

    Extents may overlap: the result is then longer than `array`.
    """
    whole = {k: -1 for k in range(array.ndim) if k != axis}
    lengths = tuple(stop - start for start, stop in extents)
    ends = [0, *accumulate(lengths)]
    if extents == list(pairwise(ends)):
        return array.rechunk({**whole, axis: lengths})
    array = array.rechunk(whole)
    name = f"halo-{tokenize(array.name, axis, extents)}"
    bounds = [0, *accumulate(array.chunks[axis])]

    def key(of: str, number: int) -> tuple[Any, ...]:
        return (of, *(number if k == axis else 0 for k in range(array.ndim)))

    tasks: dict[Any, Any] = {}
    for number, (start, stop) in enumerate(extents):
        first = bisect_right(bounds, start) - 1
        last = max(first, bisect_right(bounds, stop - 1) - 1)
        parts = [key(array.name, k) for k in range(first, last + 1)]
        tasks[key(name, number)] = (_joined, parts, axis, start - bounds[first], stop - bounds[last])
    chunks = tuple(lengths if k == axis else one for k, one in enumerate(array.chunks))
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[array])
    return da.Array(graph, name, chunks, meta=array._meta)


def _joined(parts: list[Any], axis: int, start: int, stop: int) -> Any:
    """Neighbouring chunks as one array, from index `start` of the first to `stop` of the last."""
    before = (slice(None),) * axis
    parts[-1] = parts[-1][(*before, slice(None, stop))]
    parts[0] = parts[0][(*before, slice(start, None))]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
