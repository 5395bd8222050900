"""The contract of all runners.

A runner drives a job on one executor, to its end or step by step::

    while not runner.finished:
        runner.step()
"""

from __future__ import annotations

from typing import Protocol


class Runner(Protocol):
    """Drives the tasks of a job on one executor.

    Attributes
    ----------
    workers : int
        Tasks that are computed at a time.
    task_seconds : float
        Length of a task of many elements or items.
    finished : bool
        True if nothing is left that could change the result.
    """

    @property
    def workers(self) -> int: ...

    @property
    def task_seconds(self) -> float: ...

    @property
    def finished(self) -> bool: ...

    def step(self) -> None:
        """Compute a task, or wait until another thread or process has computed one."""

    def poll(self) -> None:
        """Accept finished tasks and assign new ones, without waiting."""

    def end(self) -> None:
        """Do what waits for the end of the call, once all results are there."""


def drive(runner: Runner) -> None:
    """Compute all tasks of a runner's job."""
    while not runner.finished:
        runner.step()
