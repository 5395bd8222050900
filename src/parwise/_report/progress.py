"""How far a call has come, shown as it goes: tqdm's bar, or a function of the user's."""

from __future__ import annotations

import functools
import threading
import time
import warnings
from typing import Any, Literal

from .._core.settings import ProgressFunction
from .._system.interpreter import DeferredInterrupt

# Seconds between two looks: an eye sees no more, and a notebook's bar takes 1 ms for each.
INTERVAL_SECONDS = 0.1


class Progress:
    """Counts what is done and, now and then, shows it.

    Any thread may count. A function of the user's is only ever called in the
    thread that made this; a bar is moved by whoever has news, since that thread
    may be at an element that takes minutes.

    Parameters
    ----------
    wanted : True or callable
    total : int or None
    name : str
        What the bar is called.
    """

    def __init__(self, wanted: Literal[True] | ProgressFunction, total: int | None, name: str) -> None:
        self._bar: Any = None
        if wanted is True:
            with DeferredInterrupt():  # tqdm's lock must not be left held: other threads would wait for it
                self._bar = _bar_class()(total=total, desc=name or None, mininterval=0, miniters=1)
        self._tell: ProgressFunction = self._move if wanted is True else wanted
        self._total = total
        self._owner = threading.get_ident()
        self._done = 0
        self._told = 0
        self._next = time.monotonic() + INTERVAL_SECONDS
        self._count = threading.Lock()
        self._turn = threading.Lock()

    def add(self, count: int) -> None:
        """Note that so many more elements are done."""
        with self._count:
            self._done += count

    def show(self) -> None:
        """Show it, if that was not done just now."""
        now = time.monotonic()
        if now < self._next or (self._bar is None and threading.get_ident() != self._owner):
            return
        if not self._turn.acquire(blocking=False):
            return  # another thread is at it
        try:
            # The end is told by `finish`, when there is a result.
            if self._told < self._done != self._total and now >= self._next:
                self._next = now + INTERVAL_SECONDS
                self._told = self._done
                self._tell(self._told, self._total)
        finally:
            self._turn.release()

    def finish(self) -> None:
        """Show that all is done; no other thread is at work any more."""
        if self._told < self._done or not self._done:
            self._told = self._done
            self._tell(self._done, self._total)

    def close(self) -> None:
        """Leave the bar as it is, whatever became of the call."""
        if self._bar is not None:
            with DeferredInterrupt():
                self._bar.close()

    def _move(self, done: int, total: int | None) -> None:
        with DeferredInterrupt():
            self._bar.update(done - self._bar.n)


@functools.cache
def _bar_class() -> Any:
    """The bar for a terminal or a notebook."""
    with warnings.catch_warnings():
        # In a notebook without ipywidgets it draws with text, and says so as a warning.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    # No thread that watches bars, and outlives them: this one is moved in time.
    return type("Bar", (tqdm,), {"monitor_interval": 0})
