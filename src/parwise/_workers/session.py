"""One call, as a process that computes some of its tasks knows it.

`Session` is packed by the caller and loaded by parwise's own workers (`worker`)
and by processes of other executors (`remote`), which compute its tasks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from .._core.cursor import Cursor
from .._core.kernel import Allocate, Kernel, Outcome, new_memory
from .._core.layout import Layout
from .._core.settings import Settings
from .._system.blas import ThreadCounts, ThreadWatch
from .._system.context_variables import Place, set_variables
from .._system.environment import read_process_state
from .._system.library_settings import LocalSettings
from .._system.surroundings import Surroundings, read_surroundings
from .encoding import pack_error
from .protocol import Channel
from .serialization import Payload, Pickler, dump, dumps, load
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
    setup : callable, optional
        What each process of another executor calls first.
    """

    kernel: Kernel
    layouts: list[Layout]
    threads: ThreadCounts
    surroundings: Surroundings
    first: TaskArguments | None = None
    setup: Callable[[], object] | None = None

    @classmethod
    def pack(
        cls,
        kernel: Kernel,
        layouts: list[Layout],
        threads: ThreadCounts,
        settings: Settings,
        local: LocalSettings | None = None,
    ) -> Payload:
        """Pickle a session for parwise's own workers, with the state of this process.

        `local` are settings of libraries in the thread that made the call, if that is another one.
        """
        session = cls(kernel, layouts, threads, read_surroundings(_Variables(), local))
        return dump(read_process_state(), session, settings.shares_globals, settings.setup)

    @classmethod
    def pack_for_guest(
        cls,
        kernel: Kernel,
        layouts: list[Layout],
        threads: ThreadCounts,
        settings: Settings,
        first: TaskArguments | None,
    ) -> Payload:
        """Pickle a session for processes of another executor, which take over the path, and the state of a task."""
        setup = settings.setup
        session = cls(kernel, layouts, threads, read_surroundings(_Variables()), first, setup)
        mark = None if setup is None else mark_of(setup)
        return dump((list(sys.path), mark), session, settings.shares_globals, setup)

    @classmethod
    def load(cls, memory: memoryview, table: list[tuple[int, int, bool]], enter: Callable[[Any], None]) -> Session:
        """Unpickle a session in the computing process, its arrays in `memory`, after `enter` got what comes first."""
        session: Session = load(memory, table, enter)
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
        except Exception as error:
            return Outcome(None, 0.0, index=lo, error=error)
        with watch:
            outcome = self.kernel.run(arguments, lo, hi, cursor, allocate)
        outcome.threaded = watch.busy is True
        return outcome


def _unpickle(data: Any) -> Any:
    try:
        return pickle.loads(data)
    except Exception as error:
        error.add_note("while unpickling the elements in a worker process")
        raise


def unload_large(channels: Iterable[Channel], payload: Payload) -> None:
    """Tell workers to release a session if it is large: the next call may come late."""
    if payload.nbytes > LARGE_BYTES:
        for channel in channels:
            with contextlib.suppress(OSError):
                channel.send("unload")


class _Variables:
    """The context variables that are set; read when they are pickled, behind the function that may hold some."""

    def __reduce__(self) -> tuple[Any, ...]:
        packed: dict[Place, bytes] = {}
        for place, value in set_variables():
            with contextlib.suppress(Exception):  # a connection, for example: not all of them are meant for workers
                packed[place] = dumps(value)
        return dict, (packed,)


def pack_initializer(
    initializer: Callable[..., Any], *initargs: Any, setup: Callable[[], object] | None = None
) -> Payload:
    """Pickle a function that prepares a worker, with the state of this process; `setup` is given if it is that."""
    content = initializer, initargs, read_surroundings(_Variables())
    return dump(read_process_state(), content, True, setup)


class SetUp(NamedTuple):
    """The function given as `setup`, packed for workers, and a mark by which it is known again."""

    mark: bytes
    payload: Payload

    @classmethod
    def of(cls, setup: Callable[[], object]) -> SetUp:
        """Pack a function."""
        return cls(mark_of(setup), pack_initializer(setup, setup=setup))


def mark_of(setup: Callable[[], object]) -> bytes:
    """A digest of a function and all that it holds; another one each time if that cannot be read."""
    stream = io.BytesIO()
    try:
        _MarkPickler(stream, setup=setup).dump(setup)
    except Exception:
        return os.urandom(16)
    return hashlib.blake2b(stream.getbuffer(), digest_size=16).digest()


class _MarkPickler(Pickler):
    """Pickles code by its identity: `marshal` gives other bytes for the same code from time to time."""

    def reducer_override(self, obj: Any) -> Any:
        """As in `Pickler`."""
        return (int, (id(obj),)) if type(obj) is types.CodeType else super().reducer_override(obj)


def perform(packed: bytes) -> tuple[bool, Any]:
    """Call a submitted function in a worker; return True and its result, or False and the packed error."""
    try:
        func, args, kwargs = pickle.loads(packed)
        restore()
        return True, func(*args, **kwargs)
    except BaseException as error:
        return False, pack_error(error)
