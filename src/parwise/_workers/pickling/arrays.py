"""Arrays in pickles keep their memory layout, also inside objects.

NumPy's own pickle makes arrays contiguous, and then of native byte order too:
``x @ w`` with a strided matrix ``w`` had the loop's bits in none of 20 cases.
Ufuncs of `np.frompyfunc`, which NumPy cannot pickle, are made anew.
"""

from __future__ import annotations

import functools
import gc
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.rec

from ..._core.layout import ALIGNMENT, Layout, address_of, block_layout, offsets_for, private_memory

#: Types that `Layout.as_given` makes; other subclasses are pickled in their own way.
ARRAYS = (np.ndarray, np.memmap, np.recarray, np.matrix)


def reduce_array(array: np.ndarray) -> Any:
    """Reduce an array, with its memory layout."""
    return _reduce_objects(array) if array.dtype.hasobject else _reduce_numbers(array)


def _layout(array: np.ndarray) -> Layout:
    """Layout of a copy of `array`."""
    like = Layout(type(array).__name__, array.dtype, array.flags.writeable, array.shape, array.strides)
    return block_layout(like)


def _reduce_numbers(array: np.ndarray) -> Any:
    if array.size and not (array.flags.forc and array.flags.aligned):
        return _reduce_strided(array)
    if type(array) is np.ndarray:
        return NotImplemented  # NumPy keeps this layout, and leaves the memory to `buffer_callback` without a copy
    return _layout(array).as_given, (array.view(np.ndarray),)


def _reduce_strided(array: np.ndarray) -> tuple[Callable[..., np.ndarray], tuple[Any, ...]]:
    layout = _layout(array)
    (offset,), nbytes = offsets_for([layout], [address_of(array)])
    memory, start = private_memory(nbytes)
    layout.view(memory, start + offset)[...] = array
    unused = (offset - layout.below) // ALIGNMENT * ALIGNMENT
    buffer = pickle.PickleBuffer(memory.data[start + unused : start + nbytes])
    return _strided, (buffer, layout, offset - unused)


def _strided(memory: Any, layout: Layout, offset: int) -> np.ndarray:
    return layout.as_given(layout.view(memory, offset))


def _reduce_objects(array: np.ndarray) -> Any:
    """Send the elements as a state, since they may refer to the array itself."""
    if type(array) is np.ndarray and array.flags.forc and array.flags.writeable:
        return NotImplemented
    state = np.array(array, order="C"), array.flags.writeable
    return _empty, (_layout(array),), state, None, None, _fill


def _empty(layout: Layout) -> np.ndarray:
    return layout._replace(writeable=True).as_given(layout.empty())


def _fill(array: np.ndarray, state: tuple[np.ndarray, bool]) -> None:
    array[...], array.flags.writeable = state


def reduce_ufunc(ufunc: np.ufunc) -> Any:
    """Reduce a ufunc by its name; one of `np.frompyfunc`, as `np.vectorize` keeps them, by its function."""
    if not ufunc.__name__.endswith(" (vectorized)"):
        return NotImplemented
    functions = [one for one in gc.get_referents(ufunc) if callable(one)]
    if len(functions) != 1:
        return NotImplemented
    identity = {} if ufunc.identity is None else {"identity": ufunc.identity}
    return functools.partial(np.frompyfunc, **identity), (functions[0], ufunc.nin, ufunc.nout)


#: Reducers by the id of an object's exact type.
ARRAY_REDUCERS: dict[int, Callable[[Any], Any]] = {
    id(np.ufunc): reduce_ufunc,
    **{id(kind): reduce_array for kind in ARRAYS},
}
