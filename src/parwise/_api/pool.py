"""`Pool`: a `concurrent.futures.Executor` with worker processes of its own."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, Never, TypeVar, Unpack

from .._core.arguments import check_callback
from .._core.inputs.items import ENDLESS
from .._core.nesting import is_importing, is_nested
from .._core.options.checks import too_late
from .._core.options.defaults import defaults
from .._core.options.keywords import show_keywords
from .._core.options.number_checks import check_int, is_int
from .._core.options.options import Options, unknown_argument
from .._executors.choice import run_in_executor
from .._executors.job.job import Job
from .._executors.processes import runner as processes
from .._executors.submit.manager import ManagerThread, PoolFuture
from .._executors.submit.work_queue import WorkItem
from .._system.limits import cpu_count
from .._workers.pickling.call_pickler import CallPickler, pack_chunk
from .._workers.pickling.payload import sendable
from .._workers.pickling.sent_definitions import Definitions
from .._workers.pool.default_pool import new_pool
from .._workers.pool.worker_pool import WorkerPool
from .._workers.session import pack_initializer
from .._workers.worker.finalizer import begin
from ..errors import ParwiseError
from .chunks import Chunk, flat, read_rows, restored_row
from .map import parallel_imap
from .other_pools import OtherPools

T = TypeVar("T")

# Chunks of `map` for each worker: more than one, in case they take unevenly long.
CHUNKS = 8


class Pool(OtherPools, Executor):
    """Your own worker processes, for any number of calls.

    Calls without a pool share the worker processes that parwise keeps. Use a pool
    if calls need their own: to prepare them with an initializer, to have a
    different number of them, or to end them at a certain point. Its workers start
    when they are first needed, in 0.1 s. It is a `concurrent.futures.Executor`;
    pass it as ``executor=pool`` to other calls, which keep all their promises.

    Parameters
    ----------
    workers : int, optional
        Processes. None, the default, is the number of CPUs that this process
        may use.
    initializer : callable, optional
        Called once in each worker before anything else, for example to open
        files or load models. Functions that are mapped in such a pool never run
        in this process; within a mapped function it takes no calls. Every call
        raises an exception of the initializer.
    initargs : tuple, optional
        Arguments of the initializer.
    finalizer : callable, optional
        Called once in each worker before it ends in order: when the pool is shut
        down or is no longer referred to, at the end of the program, and when a
        worker is replaced between two calls. Not in a worker that is killed or
        has died, by a timeout, Ctrl-C or the death of this process, nor where
        the initializer failed. What it raises is a `RuntimeWarning`. Functions
        never run in this process then, as with an initializer, and it finds the
        globals that they have set.
    finalargs : tuple, optional
        Arguments of the finalizer.

    Attributes
    ----------
    workers : int

    Raises
    ------
    TypeError, ValueError
        For a wrong argument, or one that cannot be sent to a worker.

    See Also
    --------
    parallel_apply, parallel_map, parallel_imap : Take ``executor=pool``.

    Notes
    -----
    If a worker dies, the call that it was computing raises `WorkerDiedError`,
    and a new worker takes its place. If an exception leaves the ``with`` block,
    calls that have not begun are cancelled; Ctrl-C also ends running ones.

    Examples
    --------
    >>> import numpy as np
    >>> import parwise
    >>> with parwise.Pool(workers=2) as pool:
    ...     total = pool.submit(sum, [1, 2, 3])
    ...     squares = list(pool.map(lambda x: x * x, range(5)))
    ...     sums = parwise.parallel_apply(np.sum, np.ones((3, 4)), executor=pool)
    >>> total.result(), squares, sums
    (6, [0, 1, 4, 9, 16], array([4., 4., 4.]))
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[..., Any] | None = None,
        finalargs: tuple[Any, ...] = (),
        **unknown: Never,  # by the names that other pools have for `workers`, for example
    ) -> None:
        value: Any
        for name, value in unknown.items():
            instead = f"pass it to the call: parallel_apply(f, array, {name}=..., executor=pool)"
            raise unknown_argument(
                "Pool", name, value, ("workers", "initializer", "initargs", "finalizer", "finalargs"), instead
            )
        if workers is not None:
            workers = check_int("workers", workers, 1, "an int or None", "; workers=None takes every CPU")
        check_callback("initializer", initializer, "initargs", initargs)
        check_callback("finalizer", finalizer, "finalargs", finalargs)
        self.workers = workers or defaults().workers or cpu_count()
        self.initialized = initializer is not None or finalizer is not None
        self._initializer = None
        if finalizer is not None:
            self._initializer = pack_initializer(begin, initializer, initargs, finalizer, finalargs)
        elif initializer is not None:
            self._initializer = pack_initializer(initializer, *initargs)
        self._finalizes = finalizer is not None
        self._pool = self._new_workers()
        self._manager = ManagerThread(self._pool, self.workers)
        self._calls = CallPickler(self.initialized)
        self._closed = False
        # Isolated calls run one at a time: they have no other process to run in.
        self._turn = threading.Lock()
        # A pool without references ends its workers once submitted calls have their results.
        self._end = weakref.finalize(self, self._manager.close, wait=False, cancel=False, kill=False)
        self._end.atexit = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` in a worker.

        Parameters
        ----------
        fn : callable
            It may be a lambda or come from a notebook.
        *args, **kwargs
            Arguments of the function.

        Returns
        -------
        concurrent.futures.Future

        Raises
        ------
        RuntimeError
            If the pool is shut down, or belongs to another process.
        TypeError
            If the function or an argument cannot be sent to a worker.

        Notes
        -----
        With one worker, calls are made in the order in which they were submitted.

        Many short calls are sent to workers several at a time, as many as take 2 ms. They count as running from then
        on, and can no longer be cancelled.
        """
        self._check_open()
        future = PoolFuture(self._manager)
        if is_nested():
            # In a mapped function, which may occupy the workers: it cannot wait for them.
            self._check_nested()
            future.complete(fn, args, kwargs)
            return future
        with sendable("the call", "inside the function"):
            if isinstance(fn, Chunk) and fn.definitions is not None:  # which all chunks of a call have in common
                definitions: Definitions | None = fn.definitions
                packed = pack_chunk((fn, args, kwargs), fn.func, fn.definitions)
            else:
                packed, definitions = self._calls.pack((fn, args, kwargs))
        state = self._manager.state()  # with the variables that the pickle holds
        name, parts = getattr(fn, "__qualname__", None) or repr(fn), definitions.take_needed() if definitions else ()
        self._manager.submit(WorkItem(future, packed, name, definitions, parts, state))
        return future

    def apply(self, func: Callable[..., T], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> T:
        """Call ``func(*args, **kwargs)`` in a worker and wait for its result.

        Parameters
        ----------
        func : callable
        args : tuple, optional
        kwargs : dict, optional

        Returns
        -------
        object
            Result of `func`; an exception of it is raised.
        """
        return self.submit(func, *args, **(kwargs or {})).result()

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Iterator[T]:
        """Begin ``fn(*items)`` for all items at once, and return an iterator over the results, in order.

        Parameters
        ----------
        fn : callable
        *iterables : iterable
            Read to the end of the shortest, as `map` does.
        timeout : float, optional
            Seconds from now after which waiting for a result raises TimeoutError.
        chunksize : int, optional
            Items that are sent to a worker together. None, the default, makes
            eight chunks for each worker.

        Returns
        -------
        iterator
            An exception of `fn` is raised in the place of its result.

        See Also
        --------
        imap : Reads items only as results are taken.
        parwise.parallel_map : With ``executor=pool``, chooses the size of chunks.
        """
        if chunksize is not None and (not is_int(chunksize) or chunksize < 1):
            raise ValueError(f"chunksize must be an int of at least 1, or None, got {chunksize!r}")
        items = read_rows(iterables)
        size = chunksize or max(1, -(-len(items) // (CHUNKS * self.workers)))
        chunks = (list(map(restored_row, items[at : at + size])) for at in range(0, len(items), size))
        return flat(super().map(Chunk(fn, Definitions(self.initialized)), chunks, timeout=timeout))

    @show_keywords(Options, without=("executor", "resume"))
    def imap(
        self,
        func: Callable[..., T],
        *iterables: Iterable[Any],
        ordered: bool = True,
        drop_none: bool = False,
        starmap: bool = False,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        rng: Any = None,
        **options: Unpack[Options],
    ) -> Iterator[T]:
        """Yield ``func(*items)`` in order, reading items only as they are needed.

        Parameters
        ----------
        func : callable
        *iterables : iterable
            Of equal lengths.
        ordered, drop_none, starmap, args, kwargs, rng : optional
            As for `parwise.parallel_imap`.
        **options
            How the call runs; see `parwise.Options`.

        Returns
        -------
        iterator
            With ``timeout`` or ``retries`` the call has workers of its own,
            which may be killed.
        """
        self._check_open()
        given: Any = {"ordered": ordered, "drop_none": drop_none, "starmap": starmap, "args": args, "kwargs": kwargs}
        return parallel_imap(func, *iterables, executor=self, rng=rng, **given, **options)  # type: ignore[misc]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers once all calls have their results; new calls are refused.

        Parameters
        ----------
        wait : bool, optional
            True to wait until they have ended.
        cancel_futures : bool, optional
            True to cancel calls that have not begun.
        """
        self._shut(wait, cancel_futures, kill=False)

    def _shut(self, wait: bool, cancel: bool, kill: bool) -> None:
        self._closed = True
        self._end.detach()
        self._manager.close(wait, cancel, kill)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        try:
            self._shut(wait=True, cancel=error is not None, kill=_ends(error))
        except BaseException as late:
            if _ends(late):  # Ctrl-C while it waits
                self._shut(wait=True, cancel=True, kill=True)
            raise
        return None

    def _run(self, job: Job) -> None:
        """Compute a call over an array or a list."""
        self._check_open()
        self._check_wait()
        settings = job.call.settings
        # The iterator may wait for this pool itself, as in a chain of maps.
        lazy = job.call.feed is not None and job.call.count == ENDLESS
        if settings.needs_own_workers and lazy:
            with self._spare() as spare:
                processes.run(job, spare)
        elif (self._manager.busy or lazy) and not settings.needs_own_workers:
            # The workers compute submitted calls, or may have to.
            run_in_executor(job)
        elif settings.isolate:
            with self._turn, self._manager.turn():
                processes.run(job, self._pool)
        else:
            with self._manager.turn():
                processes.run(job, self._pool)

    @contextlib.contextmanager
    def _spare(self) -> Iterator[WorkerPool]:
        """Workers like the pool's own, for a call that may kill some while other calls use this pool."""
        self._check_open()
        spare = self._new_workers()
        try:
            yield spare
            spare.end()
        finally:
            spare.stop()

    def _new_workers(self) -> WorkerPool:
        return new_pool(initializer=self._initializer, finalizes=self._finalizes)

    def _check_open(self) -> None:
        if sys.is_finalizing():
            raise too_late("a Pool")
        if self._closed:
            raise RuntimeError("the pool has been shut down, and takes no more calls; make a new one")
        if self._pool.owned_by_parent:
            raise RuntimeError("the pool belongs to the process that this one was forked from; make a new one")

    def _check_nested(self) -> None:
        if self.initialized and not is_importing():  # a module that is imported for the function, without a guard
            raise ParwiseError(
                "a Pool with an initializer or a finalizer takes no calls within a mapped function: they would run in "
                "its process, which has not called the initializer; make these calls outside, or call it yourself there"
            )

    def _check_wait(self) -> None:
        self._manager.check_wait()

    @property
    def _max_workers(self) -> int:
        """Workers, by the name that executors of the standard library have for them."""
        return self.workers

    def _state(self) -> tuple[str, int, int, int]:
        """The state in a word, and numbers of workers that are up, and of calls that have begun and that wait."""
        begun, waiting = self._manager.count
        return "closed" if self._closed else "open", len(self._pool.workers), begun, waiting

    def __repr__(self) -> str:
        state, up, begun, waiting = self._state()
        calls = f", {begun} calls at work and {waiting} waiting" if begun or waiting else ""
        initializer = ", with an initializer" if self.initialized else ""
        return f"<parwise.Pool, {state}: {up} of {self.workers} workers started{initializer}{calls}>"

    def _repr_html_(self) -> str:
        state, up, begun, waiting = self._state()
        rows = {
            "Workers": f"{up} of {self.workers} started",
            "Initializer": "yes" if self.initialized else "none",
            "Calls": f"{begun} at work, {waiting} waiting",
        }
        cells = "".join(f"<tr><th style='text-align: left'>{k}</th><td>{v}</td></tr>" for k, v in rows.items())
        return f"<table><caption>parwise.Pool, {state}</caption>{cells}</table>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Pool cannot be pickled, since its workers belong to this process; in a mapped function "
            "leave executor= out, calls there run in the worker itself"
        )


def _ends(error: BaseException | None) -> bool:
    """Tell whether an exception ends the program, as Ctrl-C does."""
    return error is not None and not isinstance(error, Exception)
