"""One call, as a process that computes some of its tasks knows it.

`Session` is packed by the caller and loaded by parwise's own workers (`worker`)
and by processes of other executors (`remote`), which compute its tasks.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from .._core.cursor import Cursor
from .._core.kernel import Allocate, Kernel, Outcome, new_memory
from .._core.layout import Layout
from .._system.blas import ThreadCounts, ThreadWatch
from .._system.definitions import Table, clear_main, open_table
from .._system.environment import NumericState, ProcessState, read_numeric_state, read_process_state
from .encoding import pack_error
from .output_capture import LogLevels, read_log_levels
from .picklers import dump
from .protocol import Channel
from .serialization import Definitions, Payload, load
from .shared_globals import restore

# Workers keep a function until the next call, unless it takes more bytes than this.
LARGE_BYTES = 2**20
# Tables of definitions that a worker keeps, those of the latest calls; the caller counts in the same way.
KEPT_TABLES = 4


class TaskArguments(NamedTuple):
    """A task and its arguments in memory: byte offset of each, and its size if it is pickled, else 0."""

    lo: int
    hi: int
    offsets: list[tuple[int, int]]
    layouts: list[Layout] | None
    memory: Any


class Session(NamedTuple):
    """The function of one call and the state of the caller that it depends on.

    Attributes
    ----------
    layouts : list of Layout
        Layouts of the arguments; empty if they differ from task to task.
    """

    definitions: Definitions  # in a worker their table; first, as it is needed to unpickle the rest
    kernel: Kernel
    layouts: list[Layout]
    threads: ThreadCounts
    numeric_state: NumericState
    log_levels: LogLevels | None

    @classmethod
    def pack(
        cls,
        kernel: Kernel,
        layouts: list[Layout],
        threads: ThreadCounts,
        definitions: Definitions,
        *,
        own_process: bool = True,
    ) -> Payload:
        """Pickle a session, with the state of this process.

        Parwise's `own_process` takes over all of the caller's state; a process with other work takes over the module
        path, and for each task the numeric state.
        """
        state = read_process_state()
        levels = read_log_levels() if own_process else None
        session = cls(definitions, kernel, layouts, threads, read_numeric_state(), levels)
        return dump(state if own_process else state.path, session, definitions)

    @classmethod
    def load(cls, memory: memoryview, table: list[tuple[int, int, bool]], own_process: bool = True) -> Session:
        """Unpickle a session in the computing process, its arrays in `memory`, and take over the caller's state."""
        session: Session = load(memory, table, ProcessState.apply if own_process else _extend_path)
        if own_process:
            session.numeric_state.apply()
        if session.log_levels is not None:
            session.log_levels.apply()
        return session

    def arguments(
        self, memory: Any, offsets: list[tuple[int, int]], layouts: list[Layout] | None, count: int
    ) -> list[np.ndarray]:
        """Rebuild the arguments of a task of `count` elements; arrays are views of `memory`."""
        table: Any = self.definitions
        table.begin()
        # The session's own layouts have room for the longest task.
        used = None if layouts else count
        arguments = []
        for (offset, nbytes), layout in zip(offsets, layouts or self.layouts, strict=True):
            array = _unpickle(memory[offset : offset + nbytes]) if nbytes else layout.view(memory, offset, used)
            arguments.append(layout.as_given(array))
        return arguments

    def run(
        self,
        memory: Any,
        lo: int,
        hi: int,
        offsets: list[tuple[int, int]],
        layouts: list[Layout] | None,
        watch: ThreadWatch,
        cursor: Cursor | None = None,
        allocate: Allocate = new_memory,
    ) -> Outcome:
        """Compute a task; `watch` is that of this thread, `cursor` and `allocate` are as in `Kernel.run`."""
        try:
            arguments = self.arguments(memory, offsets, layouts, hi - lo)
        except BaseException as error:  # whatever an object raises while it is rebuilt, SystemExit included
            return Outcome(None, 0.0, index=lo, error=error)
        with watch:
            outcome = self.kernel.run(arguments, lo, hi, cursor, allocate)
        outcome.threaded = watch.busy is True
        return outcome


def _unpickle(data: Any) -> Any:
    try:
        return pickle.loads(data)
    except BaseException as error:
        error.add_note("while unpickling the elements in a worker process")
        raise


def _extend_path(path: list[str]) -> None:
    """Append the caller's module path to that of this process."""
    sys.path.extend(folder for folder in path if folder not in sys.path)


def unload_large(channels: Iterable[Channel], nbytes: int) -> None:
    """Tell workers to release a session of so many bytes, if that is much: the next call may come late."""
    if nbytes > LARGE_BYTES:
        for channel in channels:
            with contextlib.suppress(OSError):
                channel.send("unload")


class Tables:
    """Holds the tables of definitions in a worker, of the latest calls."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Table] = OrderedDict()

    def add(self, token: str, late: bool, load: Callable[[], Any]) -> None:
        """Add a part to a table."""
        keep(self._kept, token, open_table(token)).add(late, load)

    def clear(self) -> None:
        """Release all tables."""
        self._kept.clear()


def keep(kept: OrderedDict[str, Any], token: str, new: Any) -> Any:
    """Return the entry of a token, which becomes the latest, and forget the oldest ones."""
    found = kept.setdefault(token, new)
    kept.move_to_end(token)
    while len(kept) > KEPT_TABLES:
        kept.popitem(last=False)
    return found


def pack_initializer(initializer: Callable[..., Any], initargs: tuple[Any, ...]) -> Payload:
    """Pickle a pool's initializer, with the state of this process."""
    definitions = Definitions(share=True)
    return dump(read_process_state(), (definitions, initializer, initargs), definitions)


def perform(packed: bytes) -> tuple[bool, Any]:
    """Call a submitted function in a worker; return True and its result, or False and the packed error."""
    try:
        table, (func, args, kwargs) = pickle.loads(packed)
        table.begin()
        table.install()
        restore()
        return True, func(*args, **kwargs)
    except BaseException as error:
        return False, pack_error(error)
    finally:
        if len(packed) > LARGE_BYTES:
            clear_main()
