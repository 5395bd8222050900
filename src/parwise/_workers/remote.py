"""Computes a task in a process of an executor of another library, as `concurrent.futures` or Dask.

The executor carries plain tuples of bytes and uint8 arrays. Engines frame arrays beside their pickles: Dask sends twice
as many megabytes a second, with a quarter of its scheduler's CPU. And what unpickles them on the way needs no parwise.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import pickle
import platform
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .._core.inputs.foreign import UnreadableError
from .._core.kernel import Outcome
from .._core.layout import ReusableMemory
from .._core.nesting import serial_calls
from .._system.blas import SharedThreadLimit, ThreadWatch
from .._system.definitions import Table, open_table
from .._system.platforms.floating_point import floats
from .._system.surroundings import follower
from .encoding import pack, pack_error
from .pickling.payload import BufferTable, load_part, private_copy
from .session import Session, TaskArguments
from .shared_globals import forget, initialize
from .worker.context_capture import captured_output, filter_warnings
from .worker.output_capture import OutputCapture, OutputEvent

#: What a process of an engine evaluates, with `CALL` as its globals: names and strings, which any Python can unpickle.
#: A function pickled by reference to parwise would fail before the task begins where parwise is not installed, which
#: ends workers of Dask (seen with 2026.8); one pickled by value holds bytecode for one version of Python.
BOOTSTRAP = "__import__('parwise._workers.remote', None, None, ('answer',)).answer(call)"

#: Versions that must be the same in both processes: bytecode and messages depend on them.
VERSIONS = {
    "Python": f"{sys.version_info[0]}.{sys.version_info[1]}",
    "parwise": sys.modules[__name__.partition(".")[0]].__version__,
}

# Smaller results are sent within the pickle of the reply, as to frame an array takes 0.1 kB.
FRAMED_BYTES = 2**12

#: Header and buffers of an outcome.
Packed = tuple[bytes, list[Any]]
#: Captures the output of a task, by its first element.
Capture: TypeAlias = "Callable[[int], contextlib.AbstractContextManager[list[OutputEvent]]]"


def names_for(call: tuple[Any, ...]) -> dict[str, Any]:
    """Globals in which `BOOTSTRAP` answers a call; with `__builtins__`, since `eval` would add that to the dict."""
    return {"__builtins__": {"__import__": __import__}, "call": call}


class Packet(NamedTuple):
    """A pickle with its arrays as bytes, and where they lie in it; a late part names definitions of the session.

    `data` is None if the process should have it already.
    """

    data: Any
    table: BufferTable
    late: bool = False


class Luggage(NamedTuple):
    """What comes with a task to a process that may not have it yet; `session` is None if the process should have it."""

    session: Packet | None
    first: TaskArguments | None
    parts: dict[int, Packet]


class Reply(NamedTuple):
    """The answer of a process; sent as a plain tuple.

    Attributes
    ----------
    kind : str
        "done"; "missing": it was not sent the session, or a part, yet; "failed": it could not load them;
        "unfit": it runs other versions; "unread": it cannot read an argument from its file.
    outcome, handshake : tuple
        The packed outcome of the task, and that of the handshake if the call is new to this process.
    error : bytes
        The packed error of "failed".
    reason : str
        That of "unread".
    process : str
        Name of the process.
    versions : dict
        Its versions.
    """

    kind: str
    process: str
    versions: dict[str, str]
    outcome: Packed = (b"", [])
    handshake: Packed | None = None
    error: bytes = b""
    reason: str = ""


def pack_call(token: str, luggage: Luggage, arguments: TaskArguments) -> tuple[Any, ...]:
    """The call of `answer`: the versions first, in whatever version of parwise, then a header and data."""
    session, first, parts = luggage
    header = pickle.dumps(
        (
            token,
            arguments._replace(memory=None),
            None if session is None else session._replace(data=None),
            None if first is None else first._replace(memory=None),
            {number: packet._replace(data=None) for number, packet in parts.items()},
        )
    )
    data = [None if session is None else session.data, None if first is None else first.memory]
    return VERSIONS, header, arguments.memory, *data, [packet.data for packet in parts.values()]


def _unpack_call(header: bytes, memory: Any, *data: Any) -> tuple[str, Luggage, TaskArguments]:
    token, arguments, session, first, parts = pickle.loads(header)
    session_data, first_memory, part_data = data
    luggage = Luggage(
        session and session._replace(data=session_data),
        first and first._replace(memory=first_memory),
        {number: one._replace(data=found) for (number, one), found in zip(parts.items(), part_data, strict=True)},
    )
    return token, luggage, arguments._replace(memory=memory)


def answer(call: tuple[Any, ...], capture: Capture = captured_output) -> tuple[Any, ...]:
    """Answer a call of `pack_call` with a `Reply`; whatever this raises is a fault of the engine."""
    versions, *content = call
    reply = Reply("done", f"{platform.node()} {os.getpid()}", {**VERSIONS, "NumPy": np.__version__})
    if versions != VERSIONS:
        return tuple(reply._replace(kind="unfit"))
    try:
        packed = compute(*_unpack_call(*content), capture)
    except UnreadableError as unread:
        return tuple(reply._replace(kind="unread", reason=str(unread)))
    except BaseException as error:  # whatever a function given as `setup` raises, SystemExit included
        return tuple(reply._replace(kind="failed", error=pack_error(error)))
    if packed is None:
        return tuple(reply._replace(kind="missing"))
    return tuple(reply._replace(outcome=packed[0], handshake=packed[1]))


def answer_in_worker(call: tuple[Any, ...]) -> tuple[Any, ...]:
    """Answer a call in a worker of parwise's own, under the caller's filters of warnings.

    What it captures would be shown in the order of submitted calls, which may end in any.
    """
    assert OutputCapture.installed is not None
    return answer(call, OutputCapture.installed.apart)


# Sessions that a process keeps: those of the latest calls.
_KEPT = 4
_sessions: OrderedDict[str, Session] = OrderedDict()
# Tables of definitions and the parts in them, by token.
_tables: dict[str, tuple[Table, set[int]]] = {}
_lock = threading.Lock()
_limit = SharedThreadLimit()
# Mark of the latest function given as `setup`.
_mark: bytes | None = None


class _Thread(threading.local):
    """The watch of each thread, for its own tasks, and memory for their results."""

    def __init__(self) -> None:
        self.watch, self.results = ThreadWatch(), ReusableMemory()


_thread = _Thread()


def compute(
    token: str, luggage: Luggage, arguments: TaskArguments, capture: Capture = captured_output
) -> tuple[Packed, Packed | None] | None:
    """Compute a task of the call `token`.

    Returns
    -------
    tuple or None
        The packed outcome, and the packed outcome of the handshake if the call is new to this process; None if this
        process lacks the session, or a part, and was not sent it.
    """
    with _lock:
        session = _sessions.get(token)
        new = session is None
        if not _take_parts(token, luggage.parts):
            return None
        if session is None:
            if luggage.session is None:
                return None
            payload, table, _ = luggage.session
            with serial_calls():
                session = _sessions[token] = _load(payload, table)
            _forget_oldest()
        _sessions.move_to_end(token)
    # Without the lock: while a function waits for a computation in Dask, its process may run another task.
    first = luggage.first if new else None
    handshake = None if first is None else _compute_handshake(token, session, first, capture)
    return _compute_packed(session, arguments, capture, stored=_is_wanted), handshake


def _forget_oldest() -> None:
    while len(_sessions) > _KEPT:
        _tables.pop(_sessions.popitem(last=False)[0], None)


def _compute_packed(
    session: Session, arguments: TaskArguments, capture: Capture, stored: Callable[[], bool] = lambda: False
) -> Packed:
    """Compute a task, and write its results to files, if that is asked for once they are there."""
    with capture(arguments.lo) as output:
        outcome = _run(session, arguments)
    if stored():
        session.store(outcome, arguments.lo, arguments.hi)
    header, buffers = pack(outcome, output, arguments.lo)
    return header, [_sent(buffer) for buffer in buffers]


def _is_wanted() -> bool:
    """False if this process is one of Dask's and has been told to forget the task: its call may have ended."""
    module = sys.modules.get("distributed.worker")
    state = getattr(getattr(module, "thread_state", None), "execution_state", None)
    if state is None:
        return True
    task = state["worker"].state.tasks.get(module.thread_state.key)  # type: ignore[union-attr]
    return task is not None and task.state in ("executing", "long-running")


def _sent(buffer: Any) -> Any:
    """A copy of a buffer, since the function may go on to use the memory of its results: engines send them later."""
    array = np.frombuffer(buffer, np.uint8)
    return array.copy() if array.nbytes > FRAMED_BYTES else array.tobytes()


def _take_parts(token: str, parts: dict[int, Packet]) -> bool:
    """Keep parts of definitions that are new to this process; return False if some are missing."""
    if not parts:
        return True
    table, known = _tables.setdefault(token, (open_table(token), set()))
    if any(packet.data is None and part not in known for part, packet in parts.items()):
        return False
    for part, packet in sorted(parts.items()):
        if packet.data is not None and part not in known:
            known.add(part)
            table.add(packet.late, functools.partial(_load_part, packet.data, packet.table))
    return True


def _load_part(payload: Any, table: BufferTable) -> None:
    load_part(private_copy(payload), table)


def _load(payload: Any, table: BufferTable) -> Session:
    """Unpickle a session, and call its `setup` unless that was the last one that this process has called."""
    global _mark
    marks: list[bytes | None] = []

    def enter(first: tuple[list[str], bytes | None]) -> None:
        path, mark = first
        sys.path.extend(folder for folder in path if folder not in sys.path)
        marks.append(mark)
        if mark not in (None, _mark):
            forget()

    session = Session.load(private_copy(payload), table, enter)
    if session.setup is not None and marks[0] != _mark:
        _mark = None
        follower.forget()
        contextvars.copy_context().run(_set_up, session)
        _mark = marks[0]
    return session


def _set_up(session: Session) -> None:
    assert session.setup is not None
    follower.follow_in_context(session.surroundings)
    try:
        follower.run(initialize, session.setup)
    except BaseException as error:
        error.add_note("in the function given as setup, in a worker process")
        raise


def _compute_handshake(token: str, session: Session, first: TaskArguments, capture: Capture) -> Packed:
    """Compute the call's first task; if that fails, forget the session, which will then be sent again."""
    try:
        return _compute_packed(session, first, capture)
    except BaseException:
        with _lock:
            _sessions.pop(token, None)
        raise


def _run(session: Session, arguments: TaskArguments) -> Outcome:
    """Compute a task in a context of its own."""
    return contextvars.copy_context().run(_run_in_context, session, arguments)


def _run_in_context(session: Session, arguments: TaskArguments) -> Outcome:
    numeric = follower.follow_in_context(session.surroundings)
    lo, hi, offsets, layouts, data = arguments
    filter_warnings(numeric.filters)
    memory = private_copy(data)
    table: Any = session.definitions
    with floats(numeric.floats), _limit(session.threads), table.installed():
        return session.run(memory, lo, hi, offsets, layouts, _thread.watch, None, _thread.results.allocate)
