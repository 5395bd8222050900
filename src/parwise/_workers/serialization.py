"""Pickles functions, arguments and results; arrays keep their memory layout, also inside objects.

NumPy's own pickle makes arrays contiguous, and then of native byte order too:
``x @ w`` with a strided matrix ``w`` had the loop's bits in none of 20 cases.
"""

from __future__ import annotations

import contextlib
import io
import marshal
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import numpy.rec

from .._core.layout import ALIGNMENT, Layout, address_of, block_layout, offsets_for, private_memory
from .._system.interpreter import DeferredInterrupt
from .._system.limits import file_limit, memory_limit
from .._system.modules import added_builtins, is_importable
from ..errors import ParwiseError
from .multiprocessing_objects import Attachments, Packed, UnnamedLockError, reduce, spawning
from .protocol import INLINE_BYTES, Channel
from .shared_globals import SharedGlobals, restore
from .shared_memory import create_fd

#: Types that `Layout.as_given` makes; other subclasses are pickled in their own way.
_KINDS = (np.ndarray, np.memmap, np.recarray, np.matrix)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles functions of notebooks and scripts, and arrays with their memory layout.

    With `share` functions share their globals with others in the same worker.
    """

    def __init__(self, stream: Any, share: bool = False, buffer_callback: Any = None) -> None:
        super().__init__(stream, protocol=5, buffer_callback=buffer_callback)
        self._share = share
        self.attachments = Attachments()

    def dump(self, obj: Any) -> None:
        """Pickle an object to the stream."""
        with spawning(self.attachments):
            super().dump(obj)

    def _function_getnewargs(self, func: Any) -> tuple[Any, ...]:
        # cloudpickle's own method: the constructor's arguments, the globals second.
        code, names, *others = super()._function_getnewargs(func)
        return code, SharedGlobals(names) if self._share else names, *others

    def _dynamic_function_reduce(self, func: types.FunctionType) -> Any:
        # cloudpickle's own method: the state holds the globals that the function uses.
        found = super()._dynamic_function_reduce(func)
        unknown = cloudpickle.cloudpickle._extract_code_globals(func.__code__).keys() - func.__globals__.keys()
        for name, value in added_builtins(unknown).items():
            with contextlib.suppress(Exception):  # as a notebook's `get_ipython`
                dumps(value)
                found[2][1]["__globals__"][name] = value
        return found

    def reducer_override(self, obj: Any) -> Any:
        """How to rebuild `obj`, as from ``__reduce__``; NotImplemented for the usual way."""
        if type(obj) is types.CodeType:
            # cloudpickle 3.1.3 leaves out the file name, which tracebacks and warnings show.
            return marshal.loads, (marshal.dumps(obj),)
        if type(obj) in _KINDS:
            return _reduce_objects(obj) if obj.dtype.hasobject else _reduce_numbers(obj)
        if isinstance(obj, _OF_MODULES):
            _send_by_value(obj.__name__ if type(obj) is types.ModuleType else obj.__module__)
        found = reduce(obj, self.attachments)
        return super().reducer_override(obj) if found is None else found


_OF_MODULES = (types.FunctionType, type, types.ModuleType)


def _send_by_value(module: Any) -> None:
    """Have cloudpickle send what a module holds, and not its name, if a worker could not import it."""
    if isinstance(module, str) and not is_importable(module):
        cloudpickle.register_pickle_by_value(sys.modules[module])


def dumps(obj: Any, share: bool = False) -> bytes:
    """Pickle `obj` with its arrays to one bytes object."""
    stream = io.BytesIO()
    pickler = Pickler(stream, share)
    pickler.dump(obj)
    return Packed.with_attachments(stream.getvalue(), pickler.attachments)


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


_BYTES = np.dtype(np.uint8)


class Payload(NamedTuple):
    """Two pickles, and the memory of the arrays in the second.

    Attributes
    ----------
    buffers, offsets : list
        The pickles and arrays, and the byte offset of each.
    nbytes : int
        Their size together.
    attachments : Attachments
        Those of the second pickle.
    """

    buffers: list[memoryview]
    offsets: list[int]
    nbytes: int
    attachments: Attachments

    @property
    def table(self) -> list[tuple[int, int, bool]]:
        """Offset, size and read-only flag of each buffer."""
        return [(at, b.nbytes, b.readonly) for at, b in zip(self.offsets, self.buffers, strict=True)]

    def to_bytes(self) -> bytes:
        """Copy all buffers to one bytes object."""
        whole = bytearray(self.nbytes)
        for offset, buffer in zip(self.offsets, self.buffers, strict=True):
            whole[offset : offset + buffer.nbytes] = buffer
        return Packed.with_attachments(bytes(whole), self.attachments)

    def write(self, fd: int) -> None:
        """Write all buffers to a file of `nbytes` bytes."""
        for offset, buffer in zip(self.offsets, self.buffers, strict=True):
            while buffer.nbytes:
                done = os.pwrite(fd, buffer, offset)
                buffer, offset = buffer[done:], offset + done

    def send(self, channels: Iterable[Channel], kind: str, call: int) -> None:
        """Send it to workers: a small one in a message, a large one in one file for all of them."""
        # The table goes behind the buffers: it may be too long for a message.
        table = pickle.dumps(self.table)
        nbytes = self.nbytes + len(table)
        inline = self.to_bytes() + table if nbytes <= INLINE_BYTES else None
        fds: list[int] = []
        try:
            if inline is None:
                with DeferredInterrupt():
                    fds.append(_shared_file(nbytes))
                self.write(fds[0])
                os.pwrite(fds[0], table, self.nbytes)
            for channel in channels:
                with contextlib.suppress(ConnectionError):  # the worker is dead; its pidfd reports that
                    channel.send_attachments([self.attachments])
                    channel.send(kind, call, self.nbytes, nbytes, inline, fds=fds)
        finally:
            with DeferredInterrupt():
                for fd in fds:
                    os.close(fd)


def _shared_file(nbytes: int) -> int:
    """Create shared memory for a large function."""
    limit = min(file_limit(), memory_limit())
    if nbytes > limit:
        raise ParwiseError(
            f"the function and its arguments take {nbytes} bytes, but shared memory may have {limit} (ulimit -f and "
            "the memory limit); map over the large arrays, or open them inside the function from a file"
        )
    return create_fd(nbytes)


def dump(first: Any, second: Any, share: bool = False) -> Payload:
    """Pickle two objects, functions of notebooks and scripts included.

    The first is unpickled before the second, which may need it (a module path, for example).

    Raises
    ------
    TypeError
        If the second cannot be pickled.
    """
    arrays: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    pickler = Pickler(stream, share, arrays.append)
    with sendable("the function"):
        pickler.dump(second)
    # getvalue shares the memory; a view of getbuffer must be released before the
    # stream, an order that the garbage collector does not keep.
    pickles = [memoryview(pickle.dumps(first)), memoryview(stream.getvalue())]
    bodies = [array.raw() for array in arrays]
    views = [np.frombuffer(buffer, np.uint8) for buffer in [*pickles, *bodies]]
    layouts = [Layout("ndarray", _BYTES, True, view.shape, (1,)) for view in views]
    offsets, nbytes = offsets_for(layouts, [0, 0, *map(address_of, views[2:])])
    return Payload(pickles + bodies, offsets, nbytes, pickler.attachments)


@contextlib.contextmanager
def sendable(what: str) -> Iterator[None]:
    """Raise a TypeError with the remedy if `what` cannot be pickled, whatever a library raises for it."""
    try:
        yield
    except (MemoryError, ParwiseError):
        raise
    except Exception as error:
        has_remedy = isinstance(error, UnnamedLockError)
        remedy = "" if has_remedy else "; make that object inside the function, or use executor='threads'"
        raise TypeError(f"{what} cannot be sent to a worker process: {error}{remedy}") from error


def load(memory: Any, table: list[tuple[int, int, bool]], apply_first: Callable[[Any], None]) -> Any:
    """Unpickle the second object of a payload, its arrays in `memory`, after `apply_first` got the first one."""
    view = memoryview(memory)
    parts = [view[at : at + n].toreadonly() if readonly else view[at : at + n] for at, n, readonly in table]
    apply_first(pickle.loads(parts[0]))
    second = pickle.loads(parts[1], buffers=parts[2:])
    restore()
    return second


def private_copy(data: bytes) -> memoryview:
    """Copy `data` to page-aligned writable memory."""
    memory, start = private_memory(len(data))
    view = memory.data[start : start + len(data)]
    view[:] = data
    return view
