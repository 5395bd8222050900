"""Threads of BLAS and OpenMP: how many, and whether they are at work.

OpenBLAS gives other bits with another number of threads (a dot product of
20,001 elements in two of three cases), so workers keep the caller's number. And
it waits by spinning: with more threads than CPUs, 200 x 200 solves took fifteen
times as long as in the plain loop. So where its threads are seen at work, fewer
workers are.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Set
from typing import Any, TypeAlias

import threadpoolctl

from .limits import cpu_count

# While no other thread runs the clocks differ by 3 to 10 us, which is what
# reading them takes. A BLAS thread spins for 20 ms after each use.
QUIET_SECONDS = 5e-5

#: Threads of each numerical library: one number for all, or by the library's file.
ThreadCounts: TypeAlias = int | dict[str, int]


def read_threads() -> dict[str, int]:
    """Threads that each loaded BLAS or OpenMP library of this process uses, and numba."""
    return {
        os.path.basename(library.filepath): int(library.num_threads) for library in libraries() if library.num_threads
    }


_found: tuple[int, list[Any]] = (0, [])


def libraries() -> list[Any]:
    """BLAS and OpenMP libraries of this process.

    Looking for them takes 0.3 to 0.6 ms, and 2 the first time, so it is done only when modules have been imported; a
    forked process knows those of its parent.
    """
    global _found
    modules = len(sys.modules)
    if _found[0] != modules:
        _found = modules, threadpoolctl.ThreadpoolController().lib_controllers
    return [*_found[1], *_numba()]


def is_local(library: Any) -> bool:
    """Whether each thread has a number of its own there."""
    return library.filepath == "numba" or getattr(library, "user_api", "") == "openmp"


def local_threads(look: bool = True) -> dict[str, int] | None:
    """Numbers that belong to the calling thread alone: those of OpenMP and numba.

    Without `look` None, unless libraries have been looked for since the last import.
    """
    if not look and _found[0] != len(sys.modules):
        return None
    return {os.path.basename(one.filepath): int(one.num_threads) for one in libraries() if is_local(one)}


@contextlib.contextmanager
def with_local_threads(counts: dict[str, int]) -> Iterator[None]:
    """Have another thread's numbers for a ``with`` block, as far as they belong to a thread."""
    before = [(one, one.num_threads) for one in libraries() if is_local(one)] if counts else []
    for library, number in before:
        wanted = counts.get(os.path.basename(library.filepath), number)
        if wanted != number:
            library.set_num_threads(wanted)
    try:
        yield
    finally:
        for library, number in before:
            if library.num_threads != number:
                library.set_num_threads(number)


class _Numba:
    """The threads of numba's parallel loops, as threadpoolctl has those of other libraries."""

    filepath = "numba"

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def num_threads(self) -> int:
        return int(self._module.get_num_threads())

    def set_num_threads(self, number: int) -> None:
        self._module.set_num_threads(min(number, int(self._module.config.NUMBA_NUM_THREADS)))


def _numba() -> Iterator[_Numba]:
    # Only where its threads are up: to ask for their number would start them.
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is not None and getattr(parallel, "_is_initialized", False):
        yield _Numba(sys.modules["numba"])


class ThreadWatch:
    """Tells whether other threads compute beside this one: BLAS's, above all.

    Keep one for many tasks. Comparing the clocks of thread and process costs
    1 us a task, but they differ now and then for no reason, and a thread that
    spins on another CPU is added only at its next tick. So what the clocks say
    is only a suspicion, and the next task is watched closely, by the state and
    the switches of each thread, at 15 us per thread.

    Parameters
    ----------
    ignored : set of int, optional
        Native ids of threads that do not matter, beside those that `threading`
        knows of.

    Attributes
    ----------
    suspicious : bool
        Whether the next task is to be watched closely. May be set.
    busy : bool or None
        What watching the last task closely has shown; None if it was not.
    """

    def __init__(self, ignored: Set[int] = frozenset()) -> None:
        self._ignored = ignored
        self._before: dict[str, str] = {}
        self._close = False
        self.suspicious = False
        self.busy: bool | None = None

    def __enter__(self) -> ThreadWatch:
        self._close = self.suspicious
        if self._close:
            self._before = self._activity()
        self._process, self._own = time.process_time(), time.thread_time()
        return self

    def __exit__(self, *error: object) -> None:
        own = time.thread_time() - self._own
        others = time.process_time() - self._process - own
        if self._close:
            after = self._activity()
            # A thread of our own may have made itself known only just now.
            self._before = {thread: self._before[thread] for thread in self._before.keys() & after.keys()}
            self.busy = after != self._before or self.running(after)
            self.suspicious = self.busy
        else:
            self.busy = None
            self.suspicious = others > QUIET_SECONDS

    def running(self, activity: dict[str, str] | None = None) -> bool:
        """Whether any of those threads runs at this moment."""
        now = self._activity() if activity is None else activity
        return any("R (running)" in state for state in now.values())

    def at_work(self) -> bool:
        """Whether any of those threads runs at this moment, and has ever slept.

        OpenBLAS starts its threads as it is imported, and they spin for 25 ms then.
        """
        return any(
            "R (running)" in state and " voluntary_ctxt_switches:\t0 " not in state
            for state in self._activity().values()
        )

    def _activity(self) -> dict[str, str]:
        """State and number of switches of each thread that is not Python's."""
        # After a fork `threading` still has the parent's id for the main thread.
        own = {threading.get_native_id(), *self._ignored}
        known = {str(one) for one in own.union(thread.native_id or 0 for thread in threading.enumerate())}
        found = {}
        for thread in os.listdir("/proc/self/task"):
            if thread not in known:
                with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/status") as file:
                    lines = file.read().splitlines()
                    found[thread] = " ".join(line for line in lines if line.startswith("State") or "_switches" in line)
        return found


class ThreadLimit:
    """Keeps the threads of this process's numerical libraries at a number.

    A library that the function imports late is caught at its next task.
    """

    def __init__(self) -> None:
        self._state: tuple[ThreadCounts, int] | None = None

    def set(self, counts: ThreadCounts) -> None:
        """Apply `counts`."""
        state = (counts, len(sys.modules))
        if state != self._state:
            _set_threads(libraries(), counts)
            self._state = state


class SharedThreadLimit:
    """Holds a thread number while any thread of this process needs it.

    For processes that are not parwise's own, where the number is to be as
    before afterwards. Limits that differ wait for each other.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._users = 0
        self._counts: ThreadCounts = 1
        self._before: list[tuple[Any, int]] = []

    @contextlib.contextmanager
    def __call__(self, counts: ThreadCounts) -> Iterator[None]:
        """Limit the threads for a ``with`` block."""
        with self._change:
            self._change.wait_for(lambda: not self._users or self._counts == counts)
            if not self._users:
                found = libraries()
                self._before = [(library, library.num_threads) for library in found]
                _set_threads(found, counts)
            self._counts = counts
            self._users += 1
        try:
            yield
        finally:
            with self._change:
                self._users -= 1
                if not self._users:
                    for library, number in self._before:
                        library.set_num_threads(number)
                    self._change.notify_all()


def _set_threads(found: Iterable[Any], counts: ThreadCounts) -> None:
    """Set each library's threads; one that the caller has not loaded gets its largest number."""
    for library in found:
        if isinstance(counts, int):
            wanted = counts
        else:
            wanted = counts.get(os.path.basename(library.filepath)) or max(counts.values(), default=1)
        if library.num_threads != wanted:
            library.set_num_threads(wanted)


def workers_beside(threads: dict[str, int], workers: int) -> int:
    """Workers that the CPUs have room for, each with so many threads at work."""
    return max(1, min(workers, cpu_count() // max(threads.values(), default=1)))
