"""Computes a task in a process of an executor of another library, as `concurrent.futures` or Dask."""

from __future__ import annotations

import contextvars
import functools
import os
import sys
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

from .._core.inputs.source import UnreadableError
from .._core.kernel import Outcome
from .._core.nesting import serial_calls
from .._system.blas import SharedThreadLimit, ThreadWatch
from .._system.definitions import Table, open_table
from .._system.floating_point import floats
from .._system.surroundings import follower
from .encoding import pack
from .pickling.payload import BufferTable, load_part, private_copy
from .session import Session, TaskArguments
from .shared_globals import forget, initialize

#: Reply of a process that has not been sent the session yet.
MISSING = "missing"
#: Beginning of the reply of a process that cannot read an argument from its file, before the reason.
UNREAD = "unread: "
#: Header and buffers of an outcome.
Packed = tuple[bytes, list[Any]]


class Packet(NamedTuple):
    """A pickle with its arrays as bytes, and where they lie in it; a late part names definitions of the session."""

    data: bytes
    table: BufferTable
    late: bool = False


class Luggage(NamedTuple):
    """What comes with a task to a process that may not have it yet.

    `session` is None and `parts` of definitions are None if the process should have them.
    """

    session: Packet | None
    first: TaskArguments | None
    parts: dict[int, Packet | None]


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
    """The watch of each thread, for its own tasks."""

    def __init__(self) -> None:
        self.watch = ThreadWatch()


_thread = _Thread()


def compute(token: str, luggage: Luggage, arguments: TaskArguments) -> str | tuple[Packed, Packed | None, str]:
    """Compute a task of the call `token`.

    Returns
    -------
    str or tuple
        `MISSING`, or `UNREAD` and a reason; or the packed outcome, the packed outcome of the handshake
        (None unless the call is new to this process), and the name of this process.
    """
    with _lock:
        session = _sessions.get(token)
        new = session is None
        if not _take_parts(token, luggage.parts):
            return MISSING
        if session is None:
            if luggage.session is None:
                return MISSING
            payload, table, _ = luggage.session
            with serial_calls():
                session = _sessions[token] = _load(payload, table)
            while len(_sessions) > _KEPT:
                _tables.pop(_sessions.popitem(last=False)[0], None)
        _sessions.move_to_end(token)
    # Without the lock: while a function waits for a computation in Dask, its process may run another task.
    handshake = _compute_handshake(token, session, luggage.first) if new and luggage.first is not None else None
    try:
        outcome = _run(session, arguments)
    except UnreadableError as error:
        return f"{UNREAD}{error}"
    if _is_wanted():
        session.store(outcome, arguments.lo, arguments.hi)
    packed = _to_bytes(pack(outcome, [], arguments.lo))
    process = f"{os.uname().nodename} {os.getpid()}"
    return packed, None if handshake is None else _to_bytes(pack(handshake, [], arguments.lo)), process


def _is_wanted() -> bool:
    """False if this process is one of Dask's and has been told to forget the task: its call may have ended."""
    module = sys.modules.get("distributed.worker")
    state = getattr(getattr(module, "thread_state", None), "execution_state", None)
    if state is None:
        return True
    task = state["worker"].state.tasks.get(module.thread_state.key)  # type: ignore[union-attr]
    return task is not None and task.state in ("executing", "long-running")


def _take_parts(token: str, parts: dict[int, Packet | None]) -> bool:
    """Keep parts of definitions that are new to this process; return False if some are missing."""
    if not parts:
        return True
    table, known = _tables.setdefault(token, (open_table(token), set()))
    if any(packet is None and part not in known for part, packet in parts.items()):
        return False
    for part, packet in sorted(parts.items()):
        if packet is not None and part not in known:
            known.add(part)
            table.add(packet.late, functools.partial(_load_part, packet.data, packet.table))
    return True


def _load_part(payload: bytes, table: BufferTable) -> None:
    load_part(private_copy(payload), table)


def _load(payload: bytes, table: BufferTable) -> Session:
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


def _compute_handshake(token: str, session: Session, first: TaskArguments) -> Outcome:
    """Compute the call's first task; if that fails, forget the session, which will then be sent again."""
    try:
        return _run(session, first)
    except BaseException:
        with _lock:
            _sessions.pop(token, None)
        raise


def _to_bytes(packed: Packed) -> Packed:
    return packed[0], [bytes(buffer) for buffer in packed[1]]


def _run(session: Session, arguments: TaskArguments) -> Outcome:
    """Compute a task in a context of its own."""
    return contextvars.copy_context().run(_run_in_context, session, arguments)


def _run_in_context(session: Session, arguments: TaskArguments) -> Outcome:
    numeric = follower.follow_in_context(session.surroundings)
    lo, hi, offsets, layouts, data = arguments
    memory = private_copy(data)
    table: Any = session.definitions
    with floats(numeric.floats), _limit(session.threads), table.installed():
        return session.run(memory, lo, hi, offsets, layouts, _thread.watch)
