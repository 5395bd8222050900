"""One call, as a process that computes some of its tasks knows it.

`Session` is packed by the caller and loaded by parwise's own workers (`worker`)
and by processes of other executors (`remote`), which compute its tasks.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from .._core.cursor import Cursor
from .._core.kernel import Allocate, Kernel, Outcome, new_memory
from .._core.layout import Layout
from .._system.blas import ThreadCounts, ThreadWatch
from .._system.environment import NumericState, ProcessState, read_numeric_state, read_process_state
from .encoding import pack_error
from .output_capture import LogLevels, read_log_levels
from .protocol import Channel
from .serialization import Payload, dump, load
from .shared_globals import restore

# Workers keep a function until the next call, unless it takes more bytes than this.
LARGE_BYTES = 2**20


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
    first : TaskArguments, optional
        The first task, which each process of another executor computes for the handshake.
    """

    kernel: Kernel
    layouts: list[Layout]
    threads: ThreadCounts
    numeric_state: NumericState
    log_levels: LogLevels | None
    first: TaskArguments | None

    @classmethod
    def pack(
        cls,
        kernel: Kernel,
        layouts: list[Layout],
        threads: ThreadCounts,
        share: bool = False,
        *,
        own_process: bool = True,
        first: TaskArguments | None = None,
    ) -> Payload:
        """Pickle a session, with the state of this process.

        With `share` functions share the globals that an initializer has set. Parwise's `own_process` takes over all of
        the caller's state; a process with other work takes over the module path, and for each task the numeric state.
        """
        state = read_process_state()
        levels = read_log_levels() if own_process else None
        session = cls(kernel, layouts, threads, read_numeric_state(), levels, first)
        return dump(state if own_process else state.path, session, share)

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


def unload_large(channels: Iterable[Channel], payload: Payload) -> None:
    """Tell workers to release a session if it is large, or holds connections: the next call may come late."""
    if payload.nbytes > LARGE_BYTES or payload.attachments:
        for channel in channels:
            with contextlib.suppress(OSError):
                channel.send("unload")


def pack_initializer(initializer: Callable[..., Any], initargs: tuple[Any, ...]) -> Payload:
    """Pickle a pool's initializer, with the state of this process."""
    return dump(read_process_state(), (initializer, initargs), share=True)


def perform(packed: bytes) -> tuple[bool, Any]:
    """Call a submitted function in a worker; return True and its result, or False and the packed error."""
    try:
        func, args, kwargs = pickle.loads(packed)
        restore()
        return True, func(*args, **kwargs)
    except BaseException as error:
        return False, pack_error(error)
