"""Dask: a cluster whose workers come and go, reached through its client."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple

from ..._clock import monotonic
from ..._core.indexing import Task
from ..._core.options.executors import is_dask_client
from ..._workers.remote import BOOTSTRAP, Packet, names_for
from ...errors import ExecutorError, ParwiseError, user_level
from ..job.job import Job
from .faults import is_lack_of_parwise
from .runner import LIGHT_BYTES, TASK_BYTES, RemoteRunner

# Workers are counted again after so long.
LOOK_SECONDS = 1.0
# Tasks at hand in the scheduler beside two for each thread, unless they are large: a small cluster runs dry in the
# 10 ms of a round trip. Not before an element is measured, since each task takes 4 ms until then, whatever it computes.
SPARE_TASKS = 4
# In a cluster that adapts to its work no more tasks wait in the scheduler than these, nor more bytes of arguments.
MANY_TASKS = 1000
WAITING_BYTES = 2**28
# Dask warns of calls with more bytes (10 MB): larger elements go to a worker before their task does.
LARGE_BYTES = 9 * 10**6
# After so long without a look at the workers nothing is known of how long they have been away.
PAUSE_SECONDS = 5.0
# A scheduler that does not answer, or has no workers, for so long is told of.
WAIT_SECONDS = 60.0
# How often data is sent anew that was lost with all workers that had it.
RESENDS = 3
# A module of workers is looked for in no more time than this, to name those that lack it.
SEARCH_SECONDS = 5


class _Sent(NamedTuple):
    """A task that is under way: Dask's future, that of its data if this is large, and how often data was sent anew."""

    future: Any
    data: Any
    resends: int


class DaskRunner(RemoteRunner):
    """Computes tasks in the workers of Dask, however many there are at the time.

    Parameters
    ----------
    executor : Client or ClientExecutor
        The latter, by ``client.get_executor(...)``, holds options of `Client.submit`.
    """

    look_seconds = LOOK_SECONDS

    def __init__(self, job: Job, executor: Any) -> None:
        whole = is_dask_client(executor)
        self._client = executor if whole else executor._client
        self._options = {} if whole else {k: v for k, v in executor._kwargs.items() if k != "pure"}
        _check_usable(self._client, not whole and executor._shutdown)
        self._loop = self._client.loop.asyncio_loop
        self._address = self._client.scheduler.address
        self._futures: dict[Future[Any], _Sent] = {}
        self._count: Future[Any] | None = None
        self._counted = monotonic()
        # Tasks sent, and how often data was sent anew.
        self._sent = self._resends = 0
        # Data that all workers have: Dask's futures of it, and itself.
        self._whole: dict[int, tuple[Any, Packet]] = {}
        self._label = f"{_plain_name(job.call.func)}-parwise-{os.urandom(4).hex()}0"
        self._adaptive = getattr(getattr(self._client, "cluster", None), "_adaptive", None)
        self._threads_there = _threads_of(self._client)
        self._wanted = job.call.settings.workers or math.inf
        self._looked = self._waited = monotonic()
        self._warned = False
        super().__init__(job, self._client, self._threads_there)

    @property
    def name(self) -> str:
        """Name of the executor, for messages."""
        return "Dask"

    @property
    def max_submitted(self) -> int:
        """Tasks that may be in the scheduler: enough for the next second, or for a cluster to grow by."""
        size, pace = self._task_bytes(), self._job.queue.pace
        tasks = 2 * self.workers + (SPARE_TASKS if pace is not None and size < TASK_BYTES // 8 else 0)
        adaptive = self._adaptive
        if adaptive is not None and self._threads_there < adaptive.maximum:
            # It starts a worker for each `target_duration` seconds of work that wait.
            waiting = 2 * (self._threads_there + 1) * adaptive.target_duration / max(pace or 0.0, self.task_seconds)
            tasks = max(tasks, min(math.ceil(waiting), MANY_TASKS, WAITING_BYTES // max(1, size)))
        # With fewer workers than there are none may wait, as another one would compute it.
        return int(min(tasks, self._wanted if self._wanted < self._threads_there else math.inf))

    def _task_bytes(self) -> int:
        """Bytes of the arguments of a task, about."""
        row, pace = sum(one.row_bytes for one in self._job.call.inputs), self._job.queue.pace
        elements = 1.0 if pace is None else self.task_seconds / max(pace, 1e-9)
        return int(max(row, min(row * elements, TASK_BYTES)))

    def assign_tasks(self) -> None:
        """Submit tasks until there are enough of them in the scheduler, for the workers that it has by now."""
        self._look()
        super().assign_tasks()

    def _look(self) -> None:
        """Count the workers' threads, once a second and without waiting for the answer."""
        if self._client.status in ("closing", "closed"):
            raise self._lost(None)
        now = monotonic()
        if now - self._looked > PAUSE_SECONDS:  # the caller was at other work, and nobody has asked
            self._waited = now
        self._looked = now
        if self._count is not None and self._count.done():
            if self._count.exception() is None:
                self._threads_there = sum(self._count.result().values())
                self.workers = int(max(1, min(self._threads_there, self._wanted)))
                if self._threads_there:
                    self._waited = now
            self._count = None
        if self._count is None and now - self._counted > LOOK_SECONDS:
            self._counted = now
            self._count = asyncio.run_coroutine_threadsafe(_count_threads(self._client), self._loop)
        if now - self._waited > WAIT_SECONDS and not self._warned:
            self._warned = True
            silent = (
                "has no workers" if self._count is None or self._counted + LOOK_SECONDS > now else "does not answer"
            )
            warnings.warn(
                f"the call waits for Dask: the scheduler at {self._address} {silent} for {WAIT_SECONDS} "
                "seconds now; Ctrl-C ends the call",
                RuntimeWarning,
                stacklevel=user_level(),
            )

    def _reduce_tasks(self) -> None:
        """Nothing: the threads of BLAS in workers are the cluster's own affair."""

    def _start(self, task: Task, call: tuple[Any, ...]) -> Future[Any]:
        versions, header, memory, *others = call
        data = None
        try:
            if len(memory) > LARGE_BYTES:
                memory = data = self._scatter(memory, broadcast=False)
            self._sent += 1
            future = self._client.submit(
                eval,
                BOOTSTRAP,
                names_for((versions, header, memory, *others)),
                key=(self._label, self._describe(task), self._sent),
                **self._options,
            )
        except ParwiseError:
            raise
        except Exception as error:
            raise self._refused(error) from error
        found = asyncio.run_coroutine_threadsafe(_fetch(future), self._loop)
        self._futures[found] = _Sent(future, data, self._resends)
        return found

    def _describe(self, task: Task) -> str:
        """The indices of a task, for the dashboard."""
        first, last = (self._job.call.public_index(k) for k in (task.lo, task.hi - 1))
        return str(first) if len(task) == 1 else f"{first} to {last}"

    def _collect(self, future: Future[Any], task: Task) -> None:
        self._latest = self._futures.pop(future)
        super()._collect(future, task)

    def cancel(self) -> None:
        """Cancel tasks, and wait for none."""
        if os.getpid() != self._owner:
            return
        futures = [sent.future for sent in self._futures.values()]
        if futures and self._client.status == "running":
            with contextlib.suppress(RuntimeError):  # the loop has ended
                asyncio.run_coroutine_threadsafe(_cancel(self._client, futures), self._loop)
        super().cancel()
        # Workers hold large data as long as anything refers to it here, and an exception may refer to this runner.
        self._session, self._first = self._session._replace(data=None), None
        self._parts.clear()
        self._whole.clear()
        self._futures.clear()

    # Data that is sent once

    def _travels(self, packet: Packet, limit: float) -> bool:
        return True  # what is large is a future of Dask

    def _spread(self, packet: Packet) -> Packet:
        """Send data to all workers, which pass it on to each other and to those that join, unless it is small."""
        if len(packet.data) <= LIGHT_BYTES:
            return packet
        sent = packet._replace(data=self._scatter(packet.data, broadcast=True))
        # Kept, in case all workers that have it end: the user's arrays may be others by then.
        self._whole[id(sent.data)] = sent.data, packet
        return sent

    def _scatter(self, data: Any, broadcast: bool) -> Any:
        """Send data to workers: to one, or to all."""
        workers = {} if self._options.get("allow_other_workers") else {"workers": self._options.get("workers")}
        try:
            if not self._client.nthreads():
                # A cluster that adapts starts workers for tasks alone.
                self._sent += 1
                key = (self._label, "first worker", self._sent)
                self._client.submit(int, key=key, **self._options).result()
            return self._client.scatter([data], broadcast=broadcast, hash=False, **workers)[0]
        except Exception as error:
            raise self._refused(error) from error

    def _has_lost_data(self) -> bool:
        """True if a task was cancelled since all workers ended that had data, which is then sent anew, a few times."""
        spread = any(sent.status != "finished" for sent, _ in self._whole.values())
        own = self._latest.data is not None and self._latest.data.status != "finished"
        if (spread or own) and self._resends < RESENDS:
            self._resends += 1
            if spread:
                self._session = self._respread(self._session)
                self._first = self._first and self._first._replace(memory=self._respread(self._first.memory))
                self._parts = {number: self._respread(packet) for number, packet in self._parts.items()}
            return True
        return self._latest.resends < self._resends

    def _respread(self, packet: Packet) -> Packet:
        _, whole = self._whole.pop(id(packet.data), (None, None))
        return packet if whole is None else self._spread(whole)

    # Faults

    def _on_fault(self, task: Task, error: BaseException) -> None:
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            self._lose(task, self._faults.died(_how_often(error), task, error))
        elif self._is_lost(error):
            raise self._lost(error, task)
        elif isinstance(error, CancelledError) and self._has_lost_data():
            self._send(task, math.inf)
        elif isinstance(error, CancelledError):
            raise self._faults.executor_error(
                f"tasks of the call were cancelled ({error}), as Client.restart and Client.cancel do",
                self._lowest(task),
                error,
            )
        elif is_lack_of_parwise(error):
            raise self._faults.lacking(error, self._without_parwise())
        else:
            super()._on_fault(task, error)

    def _is_lost(self, error: BaseException) -> bool:
        """True if the connection to the scheduler is gone: a task is cancelled, or its result cannot be fetched."""
        lost = getattr(error, "reason", "") == "scheduler-connection-lost" or isinstance(error, OSError)
        return lost or self._client.status != "running"

    def _refused(self, error: Exception) -> ExecutorError:
        """The error of a task, or of data, that Dask does not take."""
        if self._client.status != "running" or isinstance(error, OSError):
            return self._lost(error)
        lowest = min(self._submitted.values(), key=lambda one: one.lo, default=None)
        return self._faults.executor_error(
            f"Dask refused work ({type(error).__name__}: {error}); its scheduler's log may say why", lowest, error
        )

    def _lost(self, error: BaseException | None, task: Task | None = None) -> ExecutorError:
        """The error of a scheduler, or a client, that is gone."""
        waiting = [*self._submitted.values(), *([] if task is None else [task])]
        lowest = min(waiting, key=lambda one: one.lo, default=None)
        if self._client.status in ("closing", "closed") and getattr(error, "reason", "") != "scheduler-connection-lost":
            message = "the Dask client was closed during the call; keep it open until the call has returned"
        else:
            message = (
                f"lost the scheduler at {self._address}; its log may say why; connect a new Client and make the call "
                "again"
            )
        return self._faults.executor_error(message, lowest, error)

    def _without_parwise(self) -> str:
        """Names the workers that cannot import parwise."""
        search = "__import__('importlib.util').util.find_spec('parwise') is not None"
        with contextlib.suppress(Exception):
            found = asyncio.run_coroutine_threadsafe(_run_everywhere(self._client, search), self._loop)
            lacking = _lacking(found.result(SEARCH_SECONDS))
            if lacking:
                more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
                return f"worker{'s' * (len(lacking) > 1)} {', '.join(lacking[:3])}{more} of Dask"
        return "a worker of Dask"


def _how_often(killed: Any) -> str:
    count, last = killed.allowed_failures + 1, getattr(killed.last_worker, "address", killed.last_worker)
    many = "a worker process of Dask died" if count == 1 else f"{count} worker processes of Dask died one after another"
    return f"{many} with this work; the log of the {'worker' if count == 1 else 'last one'}, {last}, may say why"


async def _fetch(future: Any) -> Any:
    """The result of a future of Dask; to cancel this leaves Dask's own work for it alone.

    Dask gathers the results of several futures in one task. If that is cancelled with one of them, so are the others,
    and all later ones of the client (2026.8: `Client._gather_keys` is not cleared).
    """
    result, error = await asyncio.shield(_outcome(future))
    if error is not None:
        raise error
    return result


async def _outcome(future: Any) -> tuple[Any, Exception | None]:
    try:
        # Not `gather`: it leaves tasks of its own behind if the future is cancelled, and asyncio tells of each.
        return await future, None
    except Exception as error:
        return None, error


async def _cancel(client: Any, futures: list[Any]) -> None:
    with contextlib.suppress(Exception):
        await client.cancel(futures, asynchronous=True)


def _threads_of(client: Any) -> int:
    try:
        return sum(client.nthreads().values())
    except OSError as error:
        raise ExecutorError(
            f"the scheduler at {client.scheduler.address} does not answer ({error}); connect a new Client "
            "and make the call again"
        ) from error


async def _count_threads(client: Any) -> Any:
    return await client.scheduler.ncores(workers=None)


async def _run_everywhere(client: Any, expression: str) -> Any:
    return await client.run(eval, expression, {}, on_error="return")


def _plain_name(function: Any) -> str:
    """A name by which Dask's dashboard shows and groups tasks."""
    return str(getattr(function, "__name__", type(function).__name__)).strip("<>")


def _check_usable(client: Any, shut_down: bool) -> None:
    """Raise an error for a client, or its executor, that is closed, or that would wait for its own thread."""
    if shut_down:
        raise ExecutorError(
            "this executor of a Dask client has been shut down; take another one: client.get_executor()"
        )
    if client.status != "running":
        raise ExecutorError(f"the Dask client is {client.status}; connect a new Client and make the call again")
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if running is client.loop.asyncio_loop:
        raise ExecutorError(
            "this call would wait for Dask in the thread of the client's own event loop, and never end; "
            "make it in another thread: await asyncio.to_thread(parwise.parallel_apply, f, array, "
            "executor=client)"
        )


@contextlib.contextmanager
def outside_pool() -> Iterator[None]:
    """Leave the thread pool of Dask's worker for a call made within a task, whose thread the call's tasks may need."""
    worker: Any = sys.modules.get("distributed.worker")
    pool: Any = sys.modules.get("distributed.threadpoolexecutor")
    in_task = hasattr(getattr(worker, "thread_state", None), "start_time")
    if not (in_task and getattr(pool.thread_state, "proceed", False)):  # or it has left the pool already
        yield
        return
    from distributed import worker_client

    with worker_client():
        yield


def _lacking(answers: dict[str, Any]) -> list[str]:
    return [name for name, has in answers.items() if has is not True]
