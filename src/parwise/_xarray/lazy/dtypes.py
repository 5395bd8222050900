"""Dtypes that are declared of lazy results; and strings, whose length only the results tell."""

from __future__ import annotations

from typing import Any

import numpy as np
from dask.delayed import delayed

from ..request import Request, dtypes_per_output


def declared_dtypes(request: Request, count: int) -> list[np.dtype[Any]]:
    """The dtype of each of `count` outputs; raise a ValueError if one is not told."""
    if request.output_dtypes is None:
        raise ValueError(
            "the data is in Dask's blocks, where results are not known before they are computed; pass "
            "output_dtypes=[...] (and output_core_dims, output_sizes), or map over array.load()"
        )
    return [check_declared(dtype) for dtype in dtypes_per_output(request, count)]


def check_declared(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return `dtype`; raise a ValueError if results of several blocks may have different ones of its kind."""
    if dtype.kind in "mM" and np.datetime_data(dtype)[0] == "generic":
        raise ValueError(f"output_dtypes has {dtype}, which has no unit; pass it with one, as in '{dtype.str}[ns]'")
    if dtype.kind == "V" and not dtype.itemsize:
        raise ValueError(f"output_dtypes has {dtype}, which has no length; pass it with one, as in 'V8'")
    return dtype


def strings_of_one_length(array: Any, dtype: np.dtype[Any]) -> Any:
    """A Dask array whose blocks hold strings of one length, that of the longest, if `dtype` has no length itself."""
    return all_of_one_length([array], dtype)[0]


def all_of_one_length(arrays: list[Any], dtype: np.dtype[Any]) -> list[Any]:
    """Several Dask arrays that will be joined, with strings of one length in all their blocks.

    Dask gives all blocks the dtype of the first where it joins them, and would cut longer strings.
    """
    if dtype.kind not in "US" or dtype.itemsize:
        return arrays
    blocks = [block for one in arrays for block in one.to_delayed().ravel()]
    longest = delayed(_longest)(blocks)
    return [one.map_blocks(_lengthen, longest, dtype=one.dtype, meta=one._meta) for one in arrays]


def _longest(blocks: list[np.ndarray]) -> np.dtype[Any]:
    return np.result_type(*(one.dtype for one in blocks))


def _lengthen(block: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    return block.astype(dtype)
