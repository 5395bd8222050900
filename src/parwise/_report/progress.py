"""Progress display of a call: tqdm's bar, or a function that the user passed."""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from typing import Any, Literal

from .._clock import monotonic
from .._core.indexing import Task
from .._core.kernel import Outcome
from .._core.options.progress import ProgressFunction
from .._system.interpreter import DeferredInterrupt
from .null_observer import NullObserver

# Seconds between two updates: the eye sees no more, and a notebook's bar takes 1 ms for each.
INTERVAL_SECONDS = 0.1


class Progress(NullObserver):
    """Counts the elements that are done, and shows their number (of `total`, if known) at intervals.

    Any thread may count. A function of the user is called only in the thread
    that made this object. A bar (`display` is True, or its label) is moved by any thread that
    has completed a task, since the first one may be at an element that takes minutes.
    """

    def __init__(self, display: Literal[True] | str | ProgressFunction, total: int | None, name: str) -> None:
        self._bar: Any = None
        if display is True or isinstance(display, str):
            label = display if isinstance(display, str) else None if name == "<lambda>" else name
            # An interrupt that left tqdm's lock held would block other threads for ever.
            with DeferredInterrupt():
                # A program without a console has no stream for it.
                shown = sys.stderr is not None
                self._bar = _bar_class()(total=total, desc=label, mininterval=0, miniters=1, disable=not shown)
            self._display: ProgressFunction = self._move
        else:
            self._display = display
        self._total = total
        self._thread = threading.get_ident()
        self._done = 0
        self._shown = 0
        self._next_time = monotonic() + INTERVAL_SECONDS
        self._count_lock = threading.Lock()
        self._display_lock = threading.Lock()

    def took(self, task: Task, outcome: Outcome, worker: object = None) -> None:
        """Count the elements of a task, unless it raised."""
        if outcome.error is None or outcome.gaps is not None:
            self.skipped(task)

    def skipped(self, task: Task) -> None:
        """Count the elements of a task, which have a result or never get one."""
        with self._count_lock:
            self._done += len(task)

    def show(self) -> None:
        """Show the number of elements done, unless it was shown less than `INTERVAL_SECONDS` ago."""
        now = monotonic()
        if now < self._next_time or (self._bar is None and threading.get_ident() != self._thread):
            return
        if not self._display_lock.acquire(blocking=False):
            return  # another thread is showing it
        try:
            # The end is shown by `finish`, when there is a result.
            if self._shown < self._done != self._total and now >= self._next_time:
                self._next_time = now + INTERVAL_SECONDS
                self._shown = self._done
                self._display(self._shown, self._total)
        finally:
            self._display_lock.release()

    def finish(self) -> None:
        """Show that the call is complete; no other thread computes for it any more."""
        if self._shown < self._done or not self._done:
            self._shown = self._done
            self._display(self._done, self._total)

    def close(self, error: BaseException | None) -> None:
        """Close the bar where it is, with and without an error."""
        if self._bar is not None:
            with DeferredInterrupt():
                self._bar.close()

    def _move(self, done: int, total: int | None) -> None:
        with DeferredInterrupt():
            self._bar.update(done - self._bar.n)


@functools.cache
def _bar_class() -> Any:
    """Class of tqdm's bar for a terminal or a notebook."""
    with warnings.catch_warnings():
        # In a notebook without ipywidgets tqdm draws with text, and warns of that.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    # tqdm's monitor thread outlives the bars. It is not needed: this bar is updated at intervals anyway.
    return type("Bar", (tqdm,), {"monitor_interval": 0})
