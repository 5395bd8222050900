"""Whether `out` lies in the same memory, or file, as what the function reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..call import Call


def overlaps(out: Any, call: Call) -> bool:
    """True if writing to `out` could change what later calls of the function read."""
    from ..effects.readable import readable_values  # most calls have no `out`

    sources = [getattr(one.source, "source", one.source) for one in call.inputs]
    values = readable_values(call.func, [*sources, *call.args, *call.kwargs.values()])
    if not isinstance(out, np.ndarray):
        return any(_is_same(out, one) for one in values)
    return any(_may_share(out, one) for one in values if issubclass(type(one), np.ndarray))


def _is_same(out: Any, other: Any) -> bool:
    """True if both are the same array in a file: h5py makes a new object each time that one is opened.

    Stores of zarr are compared by name, of which a folder may have several.
    """
    if type(out) is not type(other):
        return False
    try:
        return out is other or (out == other) is True or _have_same_recipe(out, other)
    except Exception:
        return False


def _have_same_recipe(out: Any, other: Any) -> bool:
    from ..inputs.recipes import recipe_of  # most calls do without

    mine, theirs = recipe_of(out), recipe_of(other)
    return mine is not None and theirs is not None and mine.identity is not None and mine.identity == theirs.identity


def _may_share(out: np.ndarray, other: np.ndarray) -> bool:
    """True if both may lie in the same memory, or map the same part of a file."""
    names = [getattr(one, "filename", None) for one in (out, other)]
    if np.may_share_memory(out, other) or (names[0] is not None and names[0] == names[1]):
        return True
    return out.nbytes > 0 and other.nbytes > 0 and _map_same_part(out, other)


def _map_same_part(out: np.ndarray, other: np.ndarray) -> bool:
    from ..inputs.file_mapping import mapping_at, root_of

    if not all(type(root_of(one)).__module__ == "mmap" for one in (out, other)):
        return False
    bounds = [np.lib.array_utils.byte_bounds(one) for one in (out, other)]
    mine, theirs = (mapping_at(first) for first, _ in bounds)
    if mine is None or theirs is None or (mine.device, mine.inode) != (theirs.device, theirs.inode):
        return False
    (first, end), (lo, hi) = mine.span(*bounds[0]), theirs.span(*bounds[1])
    return first < hi and lo < end
