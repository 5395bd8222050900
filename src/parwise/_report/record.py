"""Record of one call: the seconds that its parts took, and the work of each worker."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from .._clock import perf_counter
from .._core.call import Call
from .._core.indexing import Task
from .._core.inputs.items import ENDLESS
from .._core.kernel import Outcome
from .._core.nesting import is_nested
from .._core.options.executors import executor_name
from .._core.options.settings import Settings
from .._system.limits import cpu_count
from .null_observer import FileUse, NullObserver

# Tasks are joined to one bar of the timeline if the gap between them is at most this share
# of the time since the call began: a call of an hour has no more than some thousands of bars.
GAP_SHARE = 1e-3


class Timeline:
    """Tasks of one process or thread in a call, along its time.

    `busy` is its time in the function, in seconds, and `spans` has begin and end
    of each part of that time, in seconds of `time.perf_counter`.

    Examples
    --------
    >>> timeline = Timeline("worker 1")
    >>> timeline.add(2, begun=0.0, seconds=1.0, gap=0.1)
    >>> timeline.add(2, begun=1.05, seconds=1.0, gap=0.1)
    >>> timeline.add(2, begun=3.0, seconds=1.0, gap=0.1)
    >>> timeline.spans
    [[0.0, 2.05], [3.0, 4.0]]
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks = self.elements = 0
        self.busy = 0.0
        self.spans: list[list[float]] = []

    def add(self, elements: int, begun: float, seconds: float, gap: float) -> None:
        """Add a task; it extends the last span if it began within `gap` seconds of its end."""
        self.tasks += 1
        self.elements += elements
        self.busy += seconds
        if self.spans and begun - self.spans[-1][1] <= gap:
            self.spans[-1][1] = max(self.spans[-1][1], begun + seconds)
        else:
            self.spans.append([begun, begun + seconds])


class CallRecord(NullObserver):
    """Times, bytes and errors of one call; those in `to_dict` are explained by `Report.to_dict`.

    Attributes
    ----------
    elements : int
        Elements of the call; the computed ones, if an iterator was not read to its end.
    begun : float
        Begin of the call, in seconds of `time.perf_counter`.
    seconds : float
        Duration of the call; 0 until it has ended.
    why : str or None
        Reason why the caller computed everything, or took work back from workers.
    portable : str or None
        Reason why the workers were portable ones.
    why_executor : str or None
        Reason for the executor, where nobody has chosen one and Python has no GIL.
    """

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call  # released at the end, as it refers to the arrays
        self._nested = is_nested()
        self._thread = threading.get_ident()
        self._blocks = call.vectorized
        self._lock = threading.Lock()
        self._workers: dict[object, Timeline] = {}
        self._start_time: float | None = None
        self._wanted_workers = call.settings.workers
        self.function = name_of(call.func)
        self.executor = executor_name(call.settings.executor)
        self.why_executor = call.settings.why_executor
        self.elements = 0
        self.seconds = 0.0
        self.caller = Timeline("caller")
        self.startup: float | None = None
        self.waiting = 0.0
        self.bytes_staged = self.bytes_direct = 0
        self.files = FileUse(0, 0, 0, 0, "")
        self.why: str | None = None
        self.portable: str | None = None
        self.error: str | None = None
        self.begun = perf_counter()

    def took(self, task: Task, outcome: Outcome, worker: object = None) -> None:
        """Add a task to the timeline of `worker`; None stands for the calling thread."""
        now = perf_counter()
        seconds, begun = outcome.seconds, outcome.begun
        raised = outcome.error is not None and outcome.gaps is None
        # Those behind the one that raised were not computed.
        count = outcome.index - task.lo + 1 if raised and not self._blocks else len(task)
        if not self.begun <= begun <= now - seconds:  # the clock of another machine
            begun = now - seconds
        ident = threading.get_ident()
        with self._lock:
            timeline = self.caller if worker is None and ident == self._thread else self._worker_timeline(worker, ident)
            timeline.add(count, begun, seconds, GAP_SHARE * (now - self.begun))

    def _worker_timeline(self, worker: object, ident: int) -> Timeline:
        """Timeline of a worker process, on this machine or another one, or of a thread."""
        found = self._workers.get(worker or ident)
        if found is None:
            name = f"thread {len(self._workers) + 1}" if worker is None else f"worker {worker}"
            found = self._workers[worker or ident] = Timeline(name)
        return found

    def workers_called(self, portable: str | None) -> None:
        """Start the clock of `startup`, the first time that workers are started or woken."""
        self.portable = portable
        self._start_time = self._start_time or perf_counter()

    def served(self) -> None:
        """Stop the clock of `startup`: a worker has a task."""
        if self.startup is None and self._start_time is not None:
            self.startup = perf_counter() - self._start_time

    def waited(self, since: float) -> None:
        """Add the seconds since then, if it was the caller's thread that waited: another one delays nothing."""
        if threading.get_ident() == self._thread:
            self.waiting += perf_counter() - since

    def staged(self, nbytes: int) -> None:
        """Add bytes of arguments that were copied for a worker."""
        self.bytes_staged += nbytes

    def read_directly(self, nbytes: int) -> None:
        """Add bytes of arguments that a worker has read itself."""
        self.bytes_direct += nbytes

    def used_files(self, use: FileUse) -> None:
        """Store what was done with arrays in files."""
        self.files = use

    def explain(self, why: str) -> None:
        """Store the reason why workers compute nothing of the call."""
        self.why = why

    def close(self, error: BaseException | None) -> None:
        """Store duration, element count and error at the end of the call."""
        self.seconds = perf_counter() - self.begun
        call, self._call = self._call, None
        if call is None:
            return
        self.error = None if error is None else type(error).__name__
        count = known_count(call)
        self.elements = sum(one.elements for one in [self.caller, *self.worker_timelines]) if count is None else count
        if not self._workers and error is None:
            # A reason known from the beginning comes before one that was found during the call.
            self.why = call.serial_reason(self._nested) or self.why or _default_reason(call.settings)

    @property
    def worker_timelines(self) -> list[Timeline]:
        """Timelines of the workers that have computed a task."""
        return list(self._workers.values())

    @property
    def workers(self) -> int:
        """Number of workers that the call was allowed to use."""
        return self._wanted_workers or cpu_count()

    @property
    def f_seconds(self) -> float:
        """Time in the function, summed over all processes: what the plain loop would take, about."""
        return sum(one.busy for one in [self.caller, *self.worker_timelines])

    @property
    def speedup(self) -> float | None:
        """How many times as fast as the plain loop the call was, about; None if it took no time."""
        return self.f_seconds / self.seconds if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Numbers and text of the record, ready for JSON; see `Report.to_dict`."""
        return {
            "function": self.function,
            "elements": self.elements,
            "executor": self.executor,
            "why_executor": self.why_executor,
            "workers": self.workers,
            "seconds": self.seconds,
            "f_seconds": self.f_seconds,
            "speedup": self.speedup,
            "caller": self._timeline_dict(self.caller),
            "startup_seconds": self.startup,
            "waiting_seconds": self.waiting,
            "bytes_staged": self.bytes_staged,
            "bytes_direct": self.bytes_direct,
            "files": self.files._asdict(),
            "per_worker": [self._timeline_dict(one) for one in self.worker_timelines],
            "why_serial": self.why,
            "why_portable": self.portable,
            "error": self.error,
        }

    def _timeline_dict(self, timeline: Timeline) -> dict[str, Any]:
        share = timeline.busy / self.seconds if self.seconds else 0.0
        return {
            "name": timeline.name,
            "tasks": timeline.tasks,
            "elements": timeline.elements,
            "busy_seconds": timeline.busy,
            "busy_share": share,
        }


def name_of(func: Callable[..., Any]) -> str:
    """Name of a function beneath its wrappers (partials, and decorators that set ``__wrapped__``).

    Examples
    --------
    >>> name_of(functools.partial(max, 0))
    'max'
    """
    seen = 0
    while seen < 10:  # wrappers may form a circle
        inner = func.func if isinstance(func, functools.partial) else getattr(func, "__wrapped__", None)
        if inner is None:
            break
        func, seen = inner, seen + 1
    return str(getattr(func, "__name__", type(func).__name__))


def known_count(call: Call) -> int | None:
    """Number of elements of a call; of an iterator the length that it claims, or None."""
    return call.expected if call.expected < ENDLESS else None


def _default_reason(settings: Settings) -> str:
    """Reason why the call was the plain loop, if no part of it gave one.

    Called at the end only: counting CPUs takes longer than a small call.
    """
    if isinstance(settings.executor, str) and (settings.workers or cpu_count()) == 1:
        return "this process may use one CPU"
    return "all was done before a worker had a part in it"
