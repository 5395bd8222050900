"""Threads of BLAS, OpenMP and numba: their numbers, and whether they are running.

OpenBLAS returns different bits with a different number of threads (a dot
product of 20,001 elements did in two of three cases), so workers keep the
caller's number. And its threads spin while they wait: with more threads than
CPUs, 200 x 200 solves took fifteen times as long as in the plain loop. So a call
uses fewer workers if its function is seen to use these threads. All this needs
threadpoolctl to find the library; where it does not find NumPy's, the user is told.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Set
from typing import Any, TypeAlias

import numpy as np
import threadpoolctl

from .._clock import process_time, thread_time
from ..errors import ReproducibilityWarning, user_level
from .limits import cpu_count

# While no other thread runs, the clocks of thread and process differ by 3 to 10 us, the time that
# it takes to read them. A BLAS thread spins for 20 ms after each use.
QUIET_SECONDS = 5e-5

#: Numbers of threads: one for all libraries, or one for each file name of a library.
ThreadCounts: TypeAlias = int | dict[str, int]


def read_threads() -> dict[str, int]:
    """Number of threads of each BLAS or OpenMP library that this process has loaded, and of numba, by file name."""
    return {
        os.path.basename(library.filepath): int(library.num_threads) for library in libraries() if library.num_threads
    }


_found: tuple[int, list[Any]] = (0, [])


def libraries() -> list[Any]:
    """BLAS and OpenMP libraries that this process has loaded, and numba, as threadpoolctl's controllers.

    A search takes 0.3 to 0.6 ms, and 2 ms the first time, so the result is
    kept until a module is imported. A forked process inherits it.
    """
    global _found
    modules = len(sys.modules)
    if _found[0] != modules:
        _found = modules, threadpoolctl.ThreadpoolController().lib_controllers
    return [*_found[1], *_numba()]


#: Kinds of BLAS that run threads, in threadpoolctl's words, and the variable that sets their number at the start.
THREAD_VARIABLES = {
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
    "flexiblas": "OMP_NUM_THREADS",
    "accelerate": "VECLIB_MAXIMUM_THREADS",
}


@functools.cache
def unknown_blas() -> str | None:
    """Why the threads of NumPy's BLAS cannot be counted, and the remedy; None if they can, or if it runs none.

    A worker's BLAS starts with one thread. threadpoolctl 3.4 does not know the
    OpenBLAS of NumPy 2, so it stayed at one, where the caller's had more.
    """
    found = {getattr(library, "internal_api", "") for library in libraries()}
    for name in _numpy_blas():
        kind = next((one for one in THREAD_VARIABLES if one in name), None)
        if kind is None or kind in found or "-seq" in name:  # MKL is sold without threads, too
            continue
        variable = THREAD_VARIABLES[kind]
        if os.environ.get(variable) != "1":
            return (
                f"NumPy was built with {name}, which threadpoolctl {threadpoolctl.__version__} does not find "
                "in this process: it may use a different number of threads here than in workers, which "
                "changes bits. Update threadpoolctl, register a controller for this library "
                f"(threadpoolctl.register), or set {variable}=1 before Python starts"
            )
    return None


def _numpy_blas() -> Iterator[str]:
    """Names of the BLAS and LAPACK that NumPy was built with."""
    built: Any = np.show_config(mode="dicts")
    for kind in ("blas", "lapack"):
        yield str(built.get("Build Dependencies", {}).get(kind, {}).get("name", "")).lower()


_told = False


def warn_of_unknown_blas() -> None:
    """Warn of `unknown_blas`, once in a process."""
    global _told
    text = None if _told else unknown_blas()
    if text is not None:
        _told = True
        warnings.warn(text, ReproducibilityWarning, stacklevel=user_level())


def is_local(library: Any) -> bool:
    """True if each thread of the process has its own number of threads in this library."""
    return library.filepath == "numba" or getattr(library, "user_api", "") == "openmp"


def local_threads(look: bool = True) -> dict[str, int] | None:
    """Numbers of threads that belong to the calling thread alone, those of OpenMP and numba, by file name.

    None if modules were imported since the last search for libraries, and `look` is False.
    """
    if not look and _found[0] != len(sys.modules):
        return None
    return {os.path.basename(one.filepath): int(one.num_threads) for one in libraries() if is_local(one)}


@contextlib.contextmanager
def with_local_threads(counts: dict[str, int]) -> Iterator[None]:
    """Set the calling thread's own numbers of threads, as `local_threads` returned them, for a ``with`` block."""
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
    """Threads of numba's parallel loops, with the interface of threadpoolctl's controllers."""

    filepath = "numba"

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def num_threads(self) -> int:
        return int(self._module.get_num_threads())

    def set_num_threads(self, number: int) -> None:
        self._module.set_num_threads(min(number, int(self._module.config.NUMBA_NUM_THREADS)))


def _numba() -> Iterator[_Numba]:
    # Only if its threads have been started: asking for their number would start them.
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is not None and getattr(parallel, "_is_initialized", False):
        yield _Numba(sys.modules["numba"])


#: Native ids of threads of parwise's own that wait for messages in this process.
OWN_THREADS: set[int] = set()


class ThreadWatch:
    """Detects threads that compute beside the calling one, BLAS's above all; a context manager for one task.

    Use one object for many tasks. Comparing the clocks of thread and process
    costs 1 us a task. But they sometimes differ without a cause, and the time
    of a thread that spins on another CPU is added only at its next tick. So
    different clocks only make the object suspicious: during the next task it
    reads state and context switches of each thread, for 15 us per thread.

    It ignores threads that `threading` knows, and native ids in `ignored`.

    Attributes
    ----------
    suspicious : bool
        True if each thread will be examined during the next task. May be set.
    busy : bool or None
        True if another thread ran during the last task; None if threads were
        not examined.
    """

    def __init__(self, ignored: Set[int] = frozenset()) -> None:
        self._ignored = ignored
        self._activity_before: dict[str, str] = {}
        self._watching_closely = False
        self.suspicious = False
        self.busy: bool | None = None

    def __enter__(self) -> ThreadWatch:
        self._watching_closely = self.suspicious
        if self._watching_closely:
            self._activity_before = self._activity()
        self._process, self._own = process_time(), thread_time()
        return self

    def __exit__(self, *error: object) -> None:
        own = thread_time() - self._own
        others = process_time() - self._process - own
        if self._watching_closely:
            after = self._activity()
            # A thread of this process may have been registered with `threading` only after the first reading.
            before = {thread: state for thread, state in self._activity_before.items() if thread in after}
            seen = after != before or self.running(after)
            self.busy = self.suspicious = seen if _tells_of_threads() else others > QUIET_SECONDS
        else:
            self.busy = None
            self.suspicious = others > QUIET_SECONDS

    def running(self, activity: dict[str, str] | None = None) -> bool:
        """True if a thread that is not ignored runs at this moment; `activity` is a reading made before."""
        now = self._activity() if activity is None else activity
        return any("R (running)" in state for state in now.values())

    def at_work(self) -> bool:
        """True if a thread that is not ignored runs at this moment, and has slept before.

        OpenBLAS starts its threads on import. They spin for 25 ms, before they sleep for the first time.
        """
        return any(
            "R (running)" in state and " voluntary_ctxt_switches:\t0 " not in state
            for state in self._activity().values()
        )

    def _activity(self) -> dict[str, str]:
        """State and numbers of context switches of each thread that is not ignored, by native id."""
        # After a fork `threading` still reports the parent's id for the main thread.
        own = {threading.get_native_id(), *OWN_THREADS, *self._ignored}
        # eventlet's threads have none.
        ids = (getattr(thread, "native_id", None) for thread in threading.enumerate())
        known = {str(one) for one in own.union(one for one in ids if one)}
        found = {}
        for thread in os.listdir("/proc/self/task") if _tells_of_threads() else ():
            if thread not in known:
                with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/status") as file:
                    lines = file.read().splitlines()
                    found[thread] = " ".join(line for line in lines if line.startswith("State") or "_switches" in line)
        return found


@functools.cache
def _tells_of_threads() -> bool:
    """True if this system tells what each thread does, as Linux does where /proc is mounted."""
    return os.path.isdir("/proc/self/task")


class ThreadLimit:
    """Limits the numbers of threads in a process that computes for parwise only.

    Call `set` before each task: a library that the function has imported
    meanwhile gets its number then.
    """

    def __init__(self) -> None:
        self._state: tuple[ThreadCounts, int] | None = None

    def set(self, counts: ThreadCounts) -> None:
        """Set the numbers of threads of all loaded libraries to `counts`."""
        state = (counts, len(sys.modules))
        if state != self._state:
            _set_threads(libraries(), counts)
            self._state = state


class SharedThreadLimit:
    """Limits the numbers of threads as long as any thread of this process needs that.

    For processes that do not belong to parwise: the numbers are restored
    afterwards. A thread with different numbers waits until then.
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
    """Set the number of threads of each library; one that is not in `counts` gets the largest number in it."""
    for library in found:
        if isinstance(counts, int):
            wanted = counts
        else:
            wanted = counts.get(os.path.basename(library.filepath)) or max(counts.values(), default=1)
        if library.num_threads != wanted:
            library.set_num_threads(wanted)


def workers_beside(threads: dict[str, int], workers: int) -> int:
    """Number of workers, at most `workers`, that the CPUs suffice for if each uses all its threads."""
    return max(1, min(workers, cpu_count() // max(threads.values(), default=1)))
