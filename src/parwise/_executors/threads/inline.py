"""The first milliseconds of a call in threads, which the calling thread computes alone: small calls end there."""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..._clock import perf_counter
from ..._system.interpreter import DeferredInterrupt, starts_threads
from ..inline_run import InlineRun
from ..job.job import Job
from ..processes.known_paces import PaceOfCall, known_paces
from ..runner import drive
from .executor import Threads
from .runner import SharedThreadRunner, ThreadState

# Work for which threads pay: to start one takes 0.1 ms.
THREAD_SECONDS = 0.001
# When a call that may be the caller's alone looks whether threads would pay.
LOOKS = (0.0002, 0.0004, 0.0008, 0.0016)
# An element that takes so long does not keep the others waiting.
HELP_SECONDS = 0.002


def run(job: Job) -> None:
    """Compute all tasks of a job in this thread and in others, those of a small call in this one."""
    call = job.call
    pace = known_paces.of(call)
    known = pace.known
    with LateThreads(job) as threads:
        if not InlineRun.suits(call) or (known is not None and pays(known.seconds * call.expected)):
            threads.start(lambda: 0)
        elif not _compute_inline(job, threads, pace):
            return
        if known is not None and job.queue.pace is None:
            job.queue.expect_pace(known.seconds)
        drive(threads.runner)
    if job.queue.mean_pace is not None:
        pace.keep(job.queue.mean_pace)


def _compute_inline(job: Job, threads: LateThreads, pace: PaceOfCall) -> bool:
    """Compute the first milliseconds of a call, and start threads behind them; return False if that was all."""
    call = job.call
    inline = InlineRun(call, job.kernel, job.reads_only)

    def expect() -> None:
        # Also where the last call was a small one: elements may wait for one another this time, or for a server. A
        # helper thread takes 50 us.
        threads.expect(inline.claim)

    inline.run(LOOKS, expect, pays)
    if inline.end(job):
        pace.keep(inline.seconds / max(1, call.count))
        if job.observer.active:
            least = f"threads pay from {THREAD_SECONDS * 1e3:g} ms of work on"
            job.explain(f"all of it took {inline.seconds * 1e3:.2g} ms; {least}")
        return False
    threads.start(inline.claim)
    inline.hand_over(job)
    return True


def pays(left: float) -> bool:
    """Tell whether threads pay for `left` seconds of work."""
    return left > THREAD_SECONDS


class LateThreads:
    """Starts the threads of a call: when the caller says so, or if one of its first elements takes long.

    For the latter a helper thread waits, a raw one: a small call must not wait for it.

    Attributes
    ----------
    runner : SharedThreadRunner
        Once threads have been started.
    """

    runner: SharedThreadRunner

    def __init__(self, job: Job) -> None:
        self._job = job
        # It looks for BLAS, which takes 0.4 to 6 ms after an import. Without that the helper thread could not start
        # threads where OpenMP has a number of them for this thread alone: elements that wait for one another hung.
        self._state = ThreadState()
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._started = self._left = self._helped = False
        self._deadline = 0.0
        self._first: Callable[[], int] | None = None
        self._context = contextvars.copy_context()  # a new thread has none of the caller's
        self._leaving = _thread.allocate_lock()
        self._leaving.acquire()
        # What the helper thread sees, until the caller leaves.
        self._shown = [self]

    def __enter__(self) -> LateThreads:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._leave()
        self._stack.__exit__(kind, error, tb)

    def expect(self, start: Callable[[], int]) -> None:
        """Have the helper thread start threads at element `start()` if the caller's next batch takes long."""
        self._deadline, self._first = perf_counter() + HELP_SECONDS, start
        if not self._helped and starts_threads():
            self._helped = True
            with contextlib.suppress(RuntimeError):  # the interpreter ends, or has as many threads as it may have
                _thread.start_new_thread(_help, (self._leaving, self._shown))

    def start(self, start: Callable[[], int]) -> None:
        """Open the job at element `start()` and start threads, unless the helper thread has done so."""
        with DeferredInterrupt(), self._lock:
            if not self._started:
                self._start(start())
        self._leave()

    def _start(self, first: int) -> None:
        job = self._job
        job.open(first)
        executor = self._stack.enter_context(Threads(job.workers - 1))
        self.runner = SharedThreadRunner(job, executor, job.workers - 1, self._state)
        self._stack.callback(self.runner.cancel)
        self._started = True

    def help(self) -> float:
        """Start threads if it is time, and return 0; otherwise the seconds until then."""
        left = self._deadline - perf_counter()
        if left <= 0:
            self._context.run(self._start_late)
        return max(0.0, left)

    def _start_late(self) -> None:
        with self._lock:
            if not self._left and not self._started and self._first is not None:
                self._start(self._first())

    def _leave(self) -> None:
        """Have the helper thread end."""
        with DeferredInterrupt(), self._lock:
            left, self._left = self._left, True
        if not left:
            self._shown.clear()
            self._leaving.release()


def _help(leaving: Any, shown: list[LateThreads]) -> None:
    """The helper thread.

    While it waits it holds nothing of the call: the interpreter may end within that, and would free nothing of it.
    """
    seconds = HELP_SECONDS
    while seconds > 0 and not leaving.acquire(True, seconds):
        seconds = max((late.help() for late in shown.copy()), default=0.0)
