"""The function and what it holds, in a form that travels to workers.

Arrays inside it (arguments, closures, globals) are not copied into the pickle:
they go beside it, once, at the address modulo 4096 and in the layout that they
have in the caller.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ._layout import Layout, address_of, place, private_memory
from ._namespace import restore
from ._pickler import Pickler

_BYTES = np.dtype(np.uint8)


class Payload(NamedTuple):
    """A pickle and the buffers that belong to it.

    Attributes
    ----------
    buffers : list of memoryview
        The pickle first, then the arrays' memory.
    offsets : list of int
        Where each goes, in page-aligned memory.
    nbytes : int
        Memory that all take.
    """

    buffers: list[memoryview]
    offsets: list[int]
    nbytes: int

    @property
    def table(self) -> list[tuple[int, int, bool]]:
        """Offset, size and read-only flag of each buffer."""
        return [(at, b.nbytes, b.readonly) for at, b in zip(self.offsets, self.buffers, strict=True)]

    def to_bytes(self) -> bytes:
        """All in one piece."""
        whole = bytearray(self.nbytes)
        for offset, buffer in zip(self.offsets, self.buffers, strict=True):
            whole[offset : offset + buffer.nbytes] = buffer
        return bytes(whole)

    def write(self, fd: int) -> None:
        """Write all to a file of `nbytes` bytes."""
        for offset, buffer in zip(self.offsets, self.buffers, strict=True):
            while buffer.nbytes:
                done = os.pwrite(fd, buffer, offset)
                buffer, offset = buffer[done:], offset + done


def dump(first: Any, second: Any, share: bool = False) -> Payload:
    """Pickle two objects, functions of notebooks and scripts included.

    The second may need what the first brings (a module path, say) to be
    unpickled.

    Parameters
    ----------
    first, second : object
    share : bool
        Whether functions are to have their globals in common with others in the
        same worker.

    Raises
    ------
    TypeError
        If something in it cannot be pickled.
    """
    arrays: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    try:
        Pickler(stream, share, arrays.append).dump(second)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        raise TypeError(
            f"the function cannot be sent to a worker process: {error}; make that object inside the function, "
            "or use executor='threads'"
        ) from error
    # getvalue shares the memory; getbuffer would have to be released before the
    # stream, which the collector does not know.
    heads = [memoryview(pickle.dumps(first)), memoryview(stream.getvalue())]
    bodies = [array.raw() for array in arrays]
    views = [np.frombuffer(buffer, np.uint8) for buffer in [*heads, *bodies]]
    layouts = [Layout("ndarray", _BYTES, True, view.shape, (1,)) for view in views]
    offsets, nbytes = place(layouts, [0, 0, *map(address_of, views[2:])])
    return Payload(heads + bodies, offsets, nbytes)


def load(memory: Any, index: list[tuple[int, int, bool]], between: Callable[[Any], None]) -> Any:
    """The second object, its arrays lying in `memory`.

    Parameters
    ----------
    memory : buffer
    index : list
        `Payload.table`.
    between : callable
        Gets the first object before the second is unpickled.
    """
    view = memoryview(memory)
    parts = [view[at : at + n].toreadonly() if readonly else view[at : at + n] for at, n, readonly in index]
    between(pickle.loads(parts[0]))
    second = pickle.loads(parts[1], buffers=parts[2:])
    restore()
    return second


def private_copy(data: bytes) -> memoryview:
    """Page-aligned writable memory that holds `data`."""
    memory, start = private_memory(len(data))
    view = memory.data[start : start + len(data)]
    view[:] = data
    return view
