"""Arrays and pickles on their way to another process; arrays keep their memory layout, also inside objects.

NumPy's own pickle makes arrays contiguous, and then of native byte order too:
``x @ w`` with a strided matrix ``w`` had the loop's bits in none of 20 cases.
"""

from __future__ import annotations

import contextlib
import io
import marshal
import os
import pickle
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.rec

from .._core.layout import ALIGNMENT, Layout, address_of, block_layout, offsets_for, private_memory
from .._system.definitions import calls, is_sent, name_of, new_token, open_space, open_table
from .._system.interpreter import DeferredInterrupt
from .._system.limits import file_limit, memory_limit
from ..errors import ParwiseError
from .multiprocessing_objects import Attachments, Packed, UnnamedLockError
from .protocol import INLINE_BYTES, Channel
from .shared_globals import restore, set_by
from .shared_memory import create_fd

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


class Closed:
    """Ends the state of an enumeration: its members have names from here on."""

    def __init__(self, cls: type) -> None:
        self.cls = cls


class Reduced:
    """Pickled as a call of a function."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        function, *args = self._call
        return function, tuple(args)


def reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    """Reduce code, with the name of its file."""
    # cloudpickle 3.1.3 leaves out the file name, which tracebacks and warnings show.
    return marshal.loads, (marshal.dumps(code),)


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

    def send(self, channels: Iterable[Channel], kind: str, call: Any) -> None:
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


class Space:
    """The globals of some functions, and the part that has sent each of their names; None stands for the session."""

    def __init__(self, number: int, names: dict[str, Any], token: str) -> None:
        self.names = names
        self.sent: dict[str, int | None] = {}
        module = sys.modules.get(names.get("__name__") or "")
        self._place = token, number, None if module is None or vars(module) is not names else module.__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return open_space, (*self._place, base_names(self.names))


def base_names(names: dict[str, Any]) -> dict[str, Any]:
    """Globals that imports relative to the module need."""
    return {name: names[name] for name in ("__package__", "__name__", "__path__", "__file__") if name in names}


class Definitions:
    """The definitions that one call has sent: with the session, and in *parts* that only some tasks need.

    With `share` the functions of all calls share their globals, as in a pool with an initializer. Globals that `setup`
    sets are left out.
    """

    def __init__(self, share: bool = False, setup: Callable[[], object] | None = None) -> None:
        self.token = new_token()
        self.left_out = set_by(setup)
        self.share = share
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.spaces: list[Space] = []
        self._space_of: dict[int, Space] = {}
        self.parts: list[Any] = []
        self._needs: list[set[int]] = []
        # True once the session is packed; and for each part, whether it was when that was made.
        self.begun = False
        self.late: list[bool] = []
        self._part_of: dict[int, int] = {}
        # Parts that objects need which were pickled since the last `take_needed`.
        self._needed: set[int] = set()
        # Parts that every task needs.
        self.always: set[int] = set()
        self.owner = os.getpid()
        calls.put(self.token, self)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_table, (self.token, self.share)

    def number(self, obj: Any) -> int:
        """The number of a class or function, a new one if it has none."""
        number = self.numbers.setdefault(id(obj), len(self.objects))
        if number == len(self.objects):
            self.objects.append(obj)
        return number

    def unsent(self, space: Space, used: dict[str, Any]) -> dict[str, Any]:
        """Those of some globals that have not been sent, and that `setup` does not set."""
        left_out = self.left_out.get(space.names.get("__name__", ""), ())
        return {name: value for name, value in used.items() if name not in space.sent and name not in left_out}

    def forget(self, number: int) -> None:
        """Forget all definitions from a number on, whose pickle failed."""
        for obj in self.objects[number:]:
            del self.numbers[id(obj)]
        del self.objects[number:]

    def space(self, names: dict[str, Any]) -> Space:
        """The space of some globals."""
        found = self._space_of.get(id(names))
        if found is None:
            found = self._space_of[id(names)] = Space(len(self.spaces), names, self.token)
            self.spaces.append(found)
        return found

    def add(self, part: Any, since: int, needs: set[int]) -> None:
        """Add a part with the definitions from number `since` on; `needs` are other parts."""
        self._part_of.update(dict.fromkeys(range(since, len(self.objects)), len(self.parts)))
        self.parts.append(part)
        self._needs.append(needs)
        self.late.append(self.begun)

    def part_of(self, number: int) -> int | None:
        """The part that holds a definition; None if that is the session."""
        return self._part_of.get(number)

    def need(self, part: int | None) -> None:
        """Note that the object being pickled needs a part."""
        if part is not None:
            self._needed.add(part)

    def take_needed(self) -> list[int]:
        """Parts that the objects pickled since the last call of this need, in the order in which they were made."""
        found: set[int] = set()
        waiting, self._needed = self._needed | self.always, set()
        while waiting:
            part = waiting.pop()
            found.add(part)
            waiting |= self._needs[part] - found
        return sorted(found)


def globals_of(obj: Any) -> dict[str, Any]:
    """The globals of a function, or of the module of a class."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    found: dict[str, Any] = getattr(obj, "__globals__", {} if module is None else vars(module))
    return found


_NAME = re.compile(r"[^\W\d]\w*")
# A function with one of these names looks up globals that it does not name itself.
_BY_NAME = {"__main__", "globals"}


def wanted_names(obj: Any) -> set[str]:
    """Globals that a class or function does not use, and that others look up by their names to pickle or check it."""
    names: set[str] = set()
    outer, nested, _ = name_of(obj).partition(".")
    if nested:
        names.add(outer)
    notes = vars(obj).get("__annotations__") if isinstance(obj, type) else getattr(obj, "__annotations__", None)
    for note in (notes or {}).values():
        if isinstance(note, str):
            names.update(_NAME.findall(note))
    code = getattr(obj, "__code__", None)
    if code is not None and ("__main__" in code.co_consts or not _BY_NAME.isdisjoint(code.co_names)):
        names.update(code.co_names, (one for one in code.co_consts if isinstance(one, str)))
    return names & globals_of(obj).keys() if names else names


def is_light(value: Any) -> bool:
    """True for an object that is sent though a function may not need it: no import takes time for it."""
    if isinstance(value, types.ModuleType):
        return _is_imported(value.__name__)
    if isinstance(value, types.FunctionType | type) or hasattr(value, "cache_parameters"):
        return _is_imported(value.__module__) or is_sent(value)
    return type(value).__module__ in ("typing", "types")


def _is_imported(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names | {"numpy"} and module != "__main__"


def payload_of(first: Any, stream: io.BytesIO, arrays: list[pickle.PickleBuffer], attachments: Attachments) -> Payload:
    """The payload of an object and of a pickle with its arrays."""
    # getvalue shares the memory; a view of getbuffer must be released before the
    # stream, an order that the garbage collector does not keep.
    pickles = [memoryview(pickle.dumps(first)), memoryview(stream.getvalue())]
    bodies = [array.raw() for array in arrays]
    views = [np.frombuffer(buffer, np.uint8) for buffer in [*pickles, *bodies]]
    layouts = [Layout("ndarray", _BYTES, True, view.shape, (1,)) for view in views]
    offsets, nbytes = offsets_for(layouts, [0, 0, *map(address_of, views[2:])])
    return Payload(pickles + bodies, offsets, nbytes, attachments)


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


def load_part(memory: Any, table: list[tuple[int, int, bool]]) -> None:
    """Unpickle a part of definitions; one that only may be needed fails without a word."""
    optional: list[bool] = []
    try:
        load(memory, table, optional.append)
    except Exception:
        if not optional[0]:
            raise


def private_copy(data: bytes) -> memoryview:
    """Copy `data` to page-aligned writable memory."""
    memory, start = private_memory(len(data))
    view = memory.data[start : start + len(data)]
    view[:] = data
    return view
