"""The pickler for all that travels: arrays lie in memory as they did, wherever they are found.

NumPy's own pickle makes an array contiguous that is not, and then native too:
``x @ w`` with a matrix ``w`` of steps had the loop's bits in none of 20 cases.
"""

from __future__ import annotations

import io
import marshal
import pickle
import types
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np

# Until somebody imports it, cloudpickle sends np.recarray as a copy, whose methods fail.
import numpy.rec

from ._layout import ALIGNMENT, Layout, address_of, block_layout, place, private_memory
from ._namespace import Shared

#: Types that `Layout.dress` makes; other subclasses have their own ways.
_KINDS = (np.ndarray, np.memmap, np.recarray, np.matrix)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles functions of notebooks and scripts, and arrays in the layout that they have.

    Parameters
    ----------
    stream : file
    share : bool
        Whether functions are to have their globals in common with others in the
        same worker.
    buffer_callback : callable, optional
        As of `pickle.Pickler`.
    """

    def __init__(self, stream: Any, share: bool = False, buffer_callback: Any = None) -> None:
        super().__init__(stream, protocol=5, buffer_callback=buffer_callback)
        self._share = share

    def _function_getnewargs(self, func: Any) -> tuple[Any, ...]:
        # cloudpickle's own: what a function is made of, its globals second.
        code, names, *others = super()._function_getnewargs(func)
        return code, Shared(names) if self._share else names, *others

    def reducer_override(self, obj: Any) -> Any:
        """How to make `obj` anew, or NotImplemented for the usual way."""
        if type(obj) is types.CodeType:
            # cloudpickle 3.1.3 leaves out the file, which tracebacks and warnings name.
            return marshal.loads, (marshal.dumps(obj),)
        if type(obj) in _KINDS:
            return _reduce_objects(obj) if obj.dtype.hasobject else _reduce_numbers(obj)
        return super().reducer_override(obj)


def dumps(obj: Any, share: bool = False) -> bytes:
    """Pickle `obj`, arrays and all, in one piece."""
    stream = io.BytesIO()
    Pickler(stream, share).dump(obj)
    return stream.getvalue()


def _layout(array: np.ndarray) -> Layout:
    """How a copy of `array` is to lie."""
    like = Layout(type(array).__name__, array.dtype, array.flags.writeable, array.shape, array.strides)
    return block_layout(like)


def _reduce_numbers(array: np.ndarray) -> Any:
    if array.size and not (array.flags.forc and array.flags.aligned):
        return _reduce_strided(array)
    if type(array) is np.ndarray:
        return NotImplemented  # NumPy keeps these, and copies none whose memory may go beside the pickle
    return _layout(array).dress, (array.view(np.ndarray),)


def _reduce_strided(array: np.ndarray) -> tuple[Callable[..., np.ndarray], tuple[Any, ...]]:
    layout = _layout(array)
    (offset,), nbytes = place([layout], [address_of(array)])
    memory, start = private_memory(nbytes)
    layout.view(memory, start + offset)[...] = array
    unused = (offset - layout.below) // ALIGNMENT * ALIGNMENT
    buffer = pickle.PickleBuffer(memory.data[start + unused : start + nbytes])
    return _strided, (buffer, layout, offset - unused)


def _strided(memory: Any, layout: Layout, offset: int) -> np.ndarray:
    return layout.dress(layout.view(memory, offset))


def _reduce_objects(array: np.ndarray) -> Any:
    """As a state, which may hold the array itself."""
    if type(array) is np.ndarray and array.flags.forc and array.flags.writeable:
        return NotImplemented
    state = np.array(array, order="C"), array.flags.writeable
    return _empty, (_layout(array),), state, None, None, _fill


def _empty(layout: Layout) -> np.ndarray:
    return layout._replace(writeable=True).dress(layout.empty())


def _fill(array: np.ndarray, state: tuple[np.ndarray, bool]) -> None:
    array[...], array.flags.writeable = state
