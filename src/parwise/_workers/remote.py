"""Computes a task in a process of an executor of another library, as `concurrent.futures` or Dask."""

from __future__ import annotations

import contextvars
import os
import threading
from collections import OrderedDict
from typing import Any

from .._core.kernel import Outcome, nested
from .._system.blas import SharedThreadLimit, ThreadWatch
from .._system.floating_point import floats
from .encoding import pack
from .serialization import private_copy
from .session import Session, TaskArguments

#: Reply of a process that has not been sent the session yet.
MISSING = "missing"
#: Header and buffers of an outcome.
Packed = tuple[bytes, list[Any]]

# Sessions that a process keeps: those of the latest calls.
_KEPT = 4
_sessions: OrderedDict[str, Session] = OrderedDict()
_lock = threading.Lock()
_limit = SharedThreadLimit()


class _Thread(threading.local):
    """The watch of each thread, for its own tasks."""

    def __init__(self) -> None:
        self.watch = ThreadWatch()


_thread = _Thread()


def compute(
    token: str, payload: bytes | None, table: list[tuple[int, int, bool]], arguments: TaskArguments
) -> str | tuple[Packed, Packed | None, str]:
    """Compute a task of the call `token`; `payload` is its session, if that comes with the task.

    Returns
    -------
    str or tuple
        `MISSING`; or the packed outcome, the packed outcome of the handshake
        (None unless the call is new to this process), and the name of this process.
    """
    with _lock:
        session = _sessions.get(token)
        new = session is None
        if session is None:
            if payload is None:
                return MISSING
            with nested():
                session = _sessions[token] = Session.load(private_copy(payload), table, own_process=False)
            while len(_sessions) > _KEPT:
                _sessions.popitem(last=False)
        _sessions.move_to_end(token)
    # Without the lock: while a function waits for a computation in Dask, its process may run another task.
    handshake = _compute_handshake(token, session) if new else None
    packed = _to_bytes(pack(_run(session, arguments), [], arguments.lo))
    process = f"{os.uname().nodename} {os.getpid()}"
    return packed, None if handshake is None else _to_bytes(pack(handshake, [], arguments.lo)), process


def _compute_handshake(token: str, session: Session) -> Outcome | None:
    """Compute the call's first task; if that fails, forget the session, which will then be sent again."""
    try:
        return None if session.first is None else _run(session, session.first)
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
    session.numeric_state.apply_in_context()
    lo, hi, offsets, layouts, data = arguments
    memory = private_copy(data)
    with floats(session.numeric_state.floats), _limit(session.threads):
        return session.run(memory, lo, hi, offsets, layouts, _thread.watch)
