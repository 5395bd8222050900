"""The backend "parwise" of joblib: batches of calls go to the workers of a `Pool`."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from .._core.nesting import is_nested, nesting
from .._core.options.options import unknown_argument
from .._system.blas import SharedThreadLimit, local_threads, with_local_threads
from .._system.library_settings import local_settings, read_local_settings
from .._system.limits import cpu_count
from .._workers.session import mark_of
from .pool import Pool

# The pool of the last call, and the mark of its initializer: the next call that wants the same takes it, and saves the
# 0.1 s in which workers start.
_idle: deque[tuple[Pool, bytes]] = deque()
_limit = SharedThreadLimit()
#: What joblib's users can say about it.
_ARGUMENTS = ("n_jobs", "initializer", "initargs", "inner_max_num_threads")
#: What joblib tells every backend, about memory maps and the start of processes; not needed here.
_UNUSED = {"max_nbytes", "mmap_mode", "temp_folder", "verbose", "context", "prefer", "require"}


class ParwiseBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the batches of one ``joblib.Parallel`` in a pool that no other call uses meanwhile.

    All calls within a ``joblib.parallel_config`` are handed one backend; `configure` sends each to one of its own.
    """

    supports_inner_max_num_threads = True
    supports_retrieve_callback = True
    _pool: Pool | None = None
    _mark = b""
    _shared = True

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        **unknown: Any,
    ) -> None:
        for name, value in unknown.items():
            instead = "joblib.Parallel has n_jobs=, verbose= and timeout="
            raise unknown_argument("joblib's backend 'parwise'", name, value, _ARGUMENTS, instead)
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._initializer, self._initargs = initializer, initargs

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Number of workers; 1 within a function that a worker runs."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning; n_jobs=-1 takes every CPU")
        if n_jobs is None or is_nested():
            return 1
        return n_jobs if n_jobs > 0 else max(1, cpu_count() + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Take a pool; return its number of workers."""
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if self._shared:
            raise FallbackToBackend(self._for_one_call(**options))
        self.parallel = parallel
        self._pool = self._take_pool(workers)
        return workers

    def _for_one_call(self, **options: Any) -> ParwiseBackend:
        own: dict[str, Any] = {"initializer": self._initializer, "initargs": self._initargs}
        own |= {name: value for name, value in options.items() if name not in _UNUSED}
        backend = ParwiseBackend(self.nesting_level, self.inner_max_num_threads, **own)
        backend._shared = False
        return backend

    def _take_pool(self, workers: int) -> Pool:
        """The idle pool if it has that many workers, prepared alike; else a new one."""
        # Of the content: the arguments may be the same objects, changed since.
        self._mark = mark_of(functools.partial(self._initializer, *self._initargs)) if self._initializer else b""
        with contextlib.suppress(IndexError):
            pool, mark = _idle.pop()
            alike = (pool.workers, mark) == (workers, self._mark)
            if alike and not pool._pool.owned_by_parent:
                with pool._manager.turn():  # its workers take over the state of this process anew
                    return pool
            pool.shutdown(wait=False)
        return Pool(workers, initializer=self._initializer, initargs=self._initargs)

    def submit(self, func: Any, callback: Callable[[Future[Any]], None] | None = None) -> Future[Any]:
        """Send a batch to a worker.

        What cannot be sent is an error in the future: joblib also submits in callbacks, where one that is raised
        would be lost, and the call would wait for ever.
        """
        future: Future[Any]
        try:
            if self._pool is None:
                raise RuntimeError("the call is over, and takes no more tasks")
            future = self._pool.submit(_Batch(func, self.inner_max_num_threads, self._pool.workers))
        except Exception as error:
            future = Future()
            future.set_exception(error)
        if callback is not None:
            future.add_done_callback(_in_this_state(callback))
        return future

    #: The name of `submit` before joblib 1.5.
    apply_async = submit

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Results of a batch, or its exception."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the workers, whatever they compute."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        with contextlib.suppress(RuntimeError):  # in a callback, which cannot wait for them
            pool._shut(wait=True, cancel=True, kill=True)
        if ensure_ready:
            # joblib 1.6 leaves tasks of the failed call there, whose results the next call would return as its own.
            with contextlib.suppress(queue.Empty):
                while True:
                    self.parallel._ready_batches.get(block=False)
            self._pool = self._take_pool(pool.workers)

    def terminate(self) -> None:
        """Keep the workers for the next call."""
        pool, self._pool = self._pool, None
        if pool is not None:
            _idle.append((pool, self._mark))
            while len(_idle) > 1:
                _idle.popleft()[0].shutdown(wait=False)
        self.reset_batch_stats()


def _in_this_state(callback: Callable[[Future[Any]], None]) -> Callable[[Future[Any]], None]:
    """A callback that is called with the context variables and settings of this thread.

    In callbacks joblib takes further calls from the caller's iterator, and submits them: they would else get the state
    of the pool's own thread, such as another precision of `decimal`.
    """
    context, local = contextvars.copy_context(), read_local_settings()

    def call_back(future: Future[Any]) -> None:
        with nesting(), local_settings(local):  # what that thread runs is no mapped function
            callback(future)

    return lambda future: context.run(call_back, future)


class _Batch:
    """A batch of calls, each with so many `threads`; None leaves BLAS its number, and shares the CPUs out to OpenMP.

    BLAS returns other bits with another number of threads. OpenMP's threads spin: on 2 CPUs a gradient boosting of
    scikit-learn took 20 times as long in two workers with two threads each.
    """

    def __init__(self, calls: Any, threads: int | None, workers: int) -> None:
        self._calls = calls
        self._threads = threads
        self._share = max(1, cpu_count() // workers)
        func = calls.items[0][0]
        self.__qualname__ = getattr(func, "__qualname__", repr(func))

    def __call__(self) -> list[Any]:
        with self._limited():
            return self._calls()  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        if self._threads is None:
            counts = local_threads() or {}
            with with_local_threads({name: min(count, self._share) for name, count in counts.items()}):
                yield
            return
        before = dict(os.environ)
        # For libraries that the function imports itself.
        os.environ.update(dict.fromkeys(ParallelBackendBase.MAX_NUM_THREADS_VARS, str(self._threads)))
        try:
            with _limit(self._threads):
                yield
        finally:
            for name in ParallelBackendBase.MAX_NUM_THREADS_VARS:
                if name in before:
                    os.environ[name] = before[name]
                else:
                    os.environ.pop(name, None)


# Here, so that a worker, which imports this file for a batch, knows the name as well.
register_parallel_backend("parwise", ParwiseBackend)
