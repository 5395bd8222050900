"""Where tasks are computed.

Each runner has one function, ``run(job)``: it takes every task from
``job.plan`` and gives what became of it to ``job.accept``.
"""

from __future__ import annotations

from collections.abc import Callable

from .._call import Call
from .._job import Job
from .._kernel import is_nested
from .._options import is_pool
from . import processes, serial


def is_serial(call: Call) -> bool:
    """Whether a call is the plain loop, by its options or its size."""
    return call.why_plain(is_nested()) is not None


def runner_of(call: Call) -> Callable[[Job], None]:
    """The runner for a call, by its executor and size."""
    executor = call.settings.executor
    if is_serial(call):
        return serial.run
    if is_pool(executor):
        run: Callable[[Job], None] = executor._run
        return run
    if not isinstance(executor, str):
        from . import futures

        return futures.run
    if executor == "threads":
        from . import threads

        return threads.run
    return processes.run
