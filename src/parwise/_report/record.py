"""Where the time of one call went."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from .._core.call import Call
from .._core.indexing import Task
from .._core.input_items import ENDLESS
from .._core.kernel import Outcome, is_nested
from .._core.settings import Settings, executor_name
from .._system.limits import cpu_count

# Tasks that follow each other this closely, as a part of the time since the
# call began, are one bar of the timeline: an hour has no more than some thousands.
GAP_SHARE = 1e-3


class Timeline:
    """What one process or thread had to do with a call.

    Attributes
    ----------
    name : str
    tasks, elements : int
        What it has computed.
    busy : float
        Seconds that it spent in the function.
    spans : list of [float, float]
        When that was, by `time.perf_counter`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks = self.elements = 0
        self.busy = 0.0
        self.spans: list[list[float]] = []

    def add(self, elements: int, begun: float, seconds: float, gap: float) -> None:
        """Note a task; one within `gap` seconds of the last one joins its span."""
        self.tasks += 1
        self.elements += elements
        self.busy += seconds
        if self.spans and begun - self.spans[-1][1] <= gap:
            self.spans[-1][1] = max(self.spans[-1][1], begun + seconds)
        else:
            self.spans.append([begun, begun + seconds])


class CallRecord:
    """One call of a report.

    Parameters
    ----------
    call : Call

    Attributes
    ----------
    function, executor : str
        What was asked for.
    begun, seconds : float
        When the call began, by `time.perf_counter`, and how long it took.
    caller : Timeline
        The process that made the call, or its thread.
    lanes : list of Timeline
        The workers.
    startup : float or None
        Seconds from when workers were called for until the first had something to do.
    waiting : float
        Seconds that the caller waited for workers and did nothing else.
    staged : int
        Bytes of arguments that were copied for workers.
    why : str or None
        Why the caller computed all, or what it took back from workers.
    error : str or None
        Type of the exception that ended the call.
    """

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call  # until the end: it holds the arrays
        self._nested = is_nested()
        self._owner = threading.get_ident()
        self._lock = threading.Lock()
        self._workers: dict[object, Timeline] = {}
        self._called: float | None = None
        self._wanted_workers = call.settings.workers
        self.function = name_of(call.func)
        self.executor = executor_name(call.settings.executor)
        self.elements = 0
        self.seconds = 0.0
        self.caller = Timeline("caller")
        self.startup: float | None = None
        self.waiting = 0.0
        self.staged = 0
        self.why: str | None = None
        self.error: str | None = None
        self.begun = time.perf_counter()

    def took(self, task: Task, outcome: Outcome, who: object) -> None:
        """Note a task; `who` computed it, or None for this thread."""
        now = time.perf_counter()
        seconds, begun = outcome.seconds, outcome.begun
        if not self.begun <= begun <= now - seconds:  # by another machine's clock
            begun = now - seconds
        ident = threading.get_ident()
        with self._lock:
            lane = self.caller if who is None and ident == self._owner else self._lane_of(who, ident)
            lane.add(len(task), begun, seconds, GAP_SHARE * (now - self.begun))

    def _lane_of(self, who: object, ident: int) -> Timeline:
        """The lane of a worker process, of one elsewhere, or of a thread."""
        found = self._workers.get(who or ident)
        if found is None:
            name = f"thread {len(self._workers) + 1}" if who is None else f"worker {who}"
            found = self._workers[who or ident] = Timeline(name)
        return found

    def workers_called(self) -> None:
        """Note that workers are called for."""
        self._called = self._called or time.perf_counter()

    def served(self) -> None:
        """Note that a worker has something to do."""
        if self.startup is None and self._called is not None:
            self.startup = time.perf_counter() - self._called

    def waited(self, since: float) -> None:
        """Note that this thread has waited; another one's waiting costs nobody time."""
        if threading.get_ident() == self._owner:
            self.waiting += time.perf_counter() - since

    def close(self, error: BaseException | None) -> None:
        """Note the end of the call."""
        self.seconds = time.perf_counter() - self.begun
        call, self._call = self._call, None
        if call is None:
            return
        self.error = None if error is None else type(error).__name__
        self.elements = call.count if call.count < ENDLESS else sum(one.elements for one in [self.caller, *self.lanes])
        if not self._workers and error is None:
            # What was clear from the beginning comes before what was found out later.
            self.why = call.serial_reason(self._nested) or self.why or _why_after_all(call.settings)

    @property
    def lanes(self) -> list[Timeline]:
        """The workers that had a part in it."""
        return list(self._workers.values())

    @property
    def workers(self) -> int:
        """Workers that the call might have had."""
        return self._wanted_workers or cpu_count()

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain numbers and text."""
        every = [self.caller, *self.lanes]
        return {
            "function": self.function,
            "elements": self.elements,
            "executor": self.executor,
            "workers": self.workers,
            "seconds": self.seconds,
            "f_seconds": sum(one.busy for one in every),
            "caller": self._lane_dict(self.caller),
            "startup_seconds": self.startup,
            "waiting_seconds": self.waiting,
            "bytes_staged": self.staged,
            "per_worker": [self._lane_dict(one) for one in self.lanes],
            "why_serial": self.why,
            "error": self.error,
        }

    def _lane_dict(self, lane: Timeline) -> dict[str, Any]:
        share = lane.busy / self.seconds if self.seconds else 0.0
        return {
            "name": lane.name,
            "tasks": lane.tasks,
            "elements": lane.elements,
            "busy_seconds": lane.busy,
            "busy_share": share,
        }


def name_of(func: Callable[..., Any]) -> str:
    """What a user calls a function, whatever is wrapped around it."""
    seen = 0
    while seen < 10:  # a chain of wrappers may be closed
        inner = func.func if isinstance(func, functools.partial) else getattr(func, "__wrapped__", None)
        if inner is None:
            break
        func, seen = inner, seen + 1
    return str(getattr(func, "__name__", type(func).__name__))


def _why_after_all(settings: Settings) -> str:
    """Why the call was the plain loop, where nothing else tells; to count CPUs takes longer than a small call."""
    if isinstance(settings.executor, str) and (settings.workers or cpu_count()) == 1:
        return "this process may use one CPU"
    return "all was done before a worker had a part in it"
