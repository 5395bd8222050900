"""Where tasks are computed.

Each runner has one function, ``run(job)``: it takes every task from
``job.plan`` and gives what became of it to ``job.accept``.
"""

from __future__ import annotations

from collections.abc import Callable

from .._call import Call
from .._job import Job
from .._kernel import is_nested
from . import processes, serial


def runner_of(call: Call) -> Callable[[Job], None]:
    """The runner for a call, by its executor and size."""
    executor = call.settings.executor
    tasks = len(call.bounds) if call.bounds is not None else call.count
    if executor == "serial" or is_nested() or not tasks:
        return serial.run
    if not isinstance(executor, str):
        from . import futures

        return futures.run
    if not call.settings.isolate and (call.settings.given_workers == 1 or tasks < 2):
        return serial.run
    if executor == "threads":
        from . import threads

        return threads.run
    return processes.run
