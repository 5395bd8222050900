"""Whether `out` lies in the same memory, or file, as what the function reads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..call import Call

if TYPE_CHECKING:
    from ..inputs.file_mapping import FileMapping


def overlaps(out: Any, call: Call) -> bool:
    """True if writing to `out` could change what later calls of the function read."""
    from ..effects.readable import readable_values  # most calls have no `out`

    sources = [getattr(one.source, "source", one.source) for one in call.inputs]
    same = partial(_may_share, out, _Mappings()) if isinstance(out, np.ndarray) else partial(_is_same, out)
    try:
        return any(map(same, readable_values(call.func, [*sources, *call.args, *call.kwargs.values()])))
    except Exception:  # the user's objects may do anything, and other threads may change them now
        return True


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


class _Mappings:
    """Which parts of files arrays map; it takes a millisecond to look one up."""

    def __init__(self) -> None:
        # By the identity of the memory's owner, which is kept.
        self._known: dict[int, tuple[Any, FileMapping | None]] = {}

    def part(self, array: np.ndarray) -> tuple[FileMapping, int, int] | None:
        """The file that an array maps, and where in it that begins and ends; None if it maps none."""
        from ..inputs.file_mapping import mapping_at, root_of

        root = root_of(array)
        if not array.nbytes or type(root).__module__ != "mmap":
            return None
        first, end = np.lib.array_utils.byte_bounds(array)
        if id(root) not in self._known:
            self._known[id(root)] = root, mapping_at(first)
        mapping = self._known[id(root)][1]
        return None if mapping is None else (mapping, *mapping.span(first, end))


def _may_share(out: np.ndarray, mappings: _Mappings, other: Any) -> bool:
    """True if both may lie in the same memory, or map the same part of a file."""
    if not issubclass(type(other), np.ndarray):
        return False
    names = [getattr(one, "filename", None) for one in (out, other)]
    if np.may_share_memory(out, other) or (names[0] is not None and names[0] == names[1]):
        return True
    if (mine := mappings.part(out)) is None or (its := mappings.part(other)) is None:
        return False
    same = (mine[0].device, mine[0].inode) == (its[0].device, its[0].inode)
    return same and mine[1] < its[2] and its[1] < mine[2]
