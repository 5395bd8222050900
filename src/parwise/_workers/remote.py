"""Computing a task in a process of somebody else's executor."""

from __future__ import annotations

import contextvars
import os
import pickle
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from .._core.kernel import Kernel, Outcome
from .._core.layout import Layout
from .._system.blas import SharedThreadLimit, ThreadCounts, ThreadWatch
from .._system.environment import NumericState
from .._system.floating_point import floats
from .encoding import pack
from .serialization import load, private_copy

#: Answer of a process that has not been sent the function yet.
MISSING = "missing"
#: A head and its buffers.
Packed = tuple[bytes, list[Any]]

_KEPT = 4
_sessions: OrderedDict[str, Session] = OrderedDict()
_lock = threading.Lock()
_limit = SharedThreadLimit()


@dataclass(frozen=True)
class TaskArguments:
    """A task and its arguments."""

    lo: int
    hi: int
    offsets: list[tuple[int, int]]
    layouts: list[Layout] | None
    memory: bytes


def compute(
    token: str, payload: bytes | None, index: list[tuple[int, int, bool]], arguments: TaskArguments
) -> str | tuple[Packed, Packed | None, str]:
    """Compute a task of the call `token`.

    Returns
    -------
    str or tuple
        `MISSING`; or what became of the task, and, the first time in this
        process, of the call's first task, which proves this process; and which
        process this is.
    """
    with _lock:
        session = _sessions.get(token)
        new = session is None
        if session is None:
            if payload is None:
                return MISSING
            session = _sessions[token] = Session(payload, index)
            while len(_sessions) > _KEPT:
                _sessions.popitem(last=False)
        _sessions.move_to_end(token)
    # Without the lock: a function that has Dask compute something makes way for another task, which must not wait.
    handshake = _compute_handshake(token, session) if new else None
    packed = _bytes(pack(session.run(arguments), [], arguments.lo))
    where = f"{os.uname().nodename} {os.getpid()}"
    return packed, None if handshake is None else _bytes(pack(handshake, [], arguments.lo)), where


def _compute_handshake(token: str, session: Session) -> Outcome | None:
    """Compute the call's first task; a process that fails to is as one that has not been sent the call."""
    try:
        return None if session.first is None else session.run(session.first)
    except BaseException:
        with _lock:
            _sessions.pop(token, None)
        raise


def _bytes(packed: Packed) -> Packed:
    return packed[0], [bytes(buffer) for buffer in packed[1]]


class Session:
    """One call, as a process knows it that computes some of its tasks."""

    def __init__(self, payload: bytes, index: list[tuple[int, int, bool]]) -> None:
        self._kernel: Kernel
        self._numeric_state: NumericState
        memory = private_copy(payload)
        self._local = threading.local()
        self.first: TaskArguments | None
        self._threads: ThreadCounts
        self._kernel, self._layouts, self._numeric_state, self._threads, self.first = load(memory, index, _extend_path)

    def run(self, arguments: TaskArguments) -> Outcome:
        """Compute a task in a context of its own."""
        return contextvars.copy_context().run(self._run, arguments)

    def _watch(self) -> ThreadWatch:
        """Each thread of this process watches its own tasks."""
        if not hasattr(self._local, "watch"):
            self._local.watch = ThreadWatch()
        watch: ThreadWatch = self._local.watch
        return watch

    def _run(self, arguments: TaskArguments) -> Outcome:
        self._numeric_state.apply_in_context()
        memory = private_copy(arguments.memory)
        count = None if arguments.layouts else arguments.hi - arguments.lo
        runs = [
            layout.as_given(
                pickle.loads(memory[offset : offset + nbytes]) if nbytes else layout.view(memory, offset, count)
            )
            for (offset, nbytes), layout in zip(arguments.offsets, arguments.layouts or self._layouts, strict=True)
        ]
        with floats(self._numeric_state.floats), _limit(self._threads), self._watch() as watch:
            outcome = self._kernel.run(runs, arguments.lo, arguments.hi)
        outcome.threaded = watch.busy is True
        return outcome


def _extend_path(path: list[str]) -> None:
    """Where the caller's modules are, behind what this process has already."""
    sys.path.extend(folder for folder in path if folder not in sys.path)
