"""Private objects that several tests look at: a module that moves changes this file and no test."""

from __future__ import annotations

from parwise._core.arguments import make_call
from parwise._core.call import result_axes
from parwise._core.indexing import Task
from parwise._core.options.options import resolve
from parwise._executors.job.job import Job
from parwise._executors.job.task_queue import TaskQueue
from parwise._workers.pickling.snapshot import Snapshot
from parwise._workers.pool.default_pool import default_pool
from parwise._workers.pool.forked_pool import ForkedPool
from parwise._workers.pool.primitives import why_portable
from parwise._workers.portable.pool import PortablePool

#: The workers that this system has.
WorkerPool = ForkedPool if why_portable() is None else PortablePool

__all__ = ["Job", "Snapshot", "Task", "TaskQueue", "WorkerPool", "default_pool", "make_call", "resolve", "result_axes"]
