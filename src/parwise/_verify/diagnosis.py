"""Why the same work gave other bits somewhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .._core.arguments import make_call
from .._core.indexing import Task
from .._core.kernel import Outcome
from .._core.results import Results, owned, same_values
from .._executors import processes
from .._executors.choice import run
from .._executors.job import Job
from .._system.blas import SharedThreadLimit
from .._workers.worker_pool import WorkerPool
from .difference import Difference, difference
from .fingerprint import REMEDIES, environment_differences, read_fingerprint

# Interpreters with one order of sets, and with others; the chance that these agree by luck is small.
HASH_SEEDS = ("1", "1", "2", "3")


def compute_here(job: Job, task: Task) -> Results | None:
    """What a task gives in this process; None if it raises."""
    results = job.kernel.run(job.runs(task), task.lo, task.hi).results_or_interrupt()
    return None if results is None else owned(results)


def in_worker(job: Job, task: Task, pool: WorkerPool | None = None) -> Results | None:
    """What a task gives in a worker; None if it raises, or if there are no workers."""
    call = job.call
    if call.settings.executor in ("threads", "serial"):
        return None
    found: list[Results] = []

    def receive(task: Task, outcome: Outcome) -> None:
        if outcome.results is not None and (outcome.error is None or outcome.gaps is not None):
            found.append(owned(outcome.results))

    settings = call.settings._replace(isolate=True, verify=False, ignore=False, retries=0)
    again = Job(replace(call, out=None, settings=settings), only=task, observe=receive)
    try:
        if pool is not None:
            processes.run(again, pool)
        else:
            run(again)
    except TypeError:  # it cannot be sent there at all
        raise
    except Exception:  # a worker that dies says nothing about bits
        return None
    return found[0] if found else None


class Diagnosis:
    """Finds out why a task gave other bits somewhere else.

    Parameters
    ----------
    job : Job
    task : Task
    theirs : Results or None
        What it gave there.
    told : tuple of str, optional
        Kind and text of the difference, if `theirs` does not show it.
    thorough : bool
        Whether to compute it as often as it takes.
    """

    def __init__(
        self,
        job: Job,
        task: Task,
        theirs: Results | None,
        told: tuple[str, str] | None = None,
        thorough: bool = True,
    ) -> None:
        self._thorough = thorough
        self._job = job
        self._task = task
        self._theirs = theirs
        self._ours = compute_here(job, task)
        if told is None and theirs is not None and self._ours is not None and not same_values(self._ours, theirs):
            told = difference(self._ours, theirs)
        self._kind, self._difference = told or ("value", "it gave something else before")
        self._where = job.call.name(task.lo, task.hi)

    def find(self) -> Difference:
        """The first cause that can be shown."""
        if self._unstable():
            return self._finding(
                "unstable",
                f"the function gives other bits each time it is called {self._where} ({self._difference}): does it use "
                "random numbers, the clock, or state that earlier calls changed? For random numbers pass rng=seed, "
                "and take rng= in the function",
            )
        if not self._thorough:
            return self._unknown("verify=True looks for the reason")
        return self._threads() or self._environment() or self._unknown()

    def _finding(self, kind: str, text: str) -> Difference:
        return Difference(kind, text, self._task.lo)

    def _unstable(self) -> bool:
        """Whether it differs from itself within one process."""
        again = compute_here(self._job, self._task)
        if again is None or self._ours is None or not same_values(again, self._ours):
            return True
        executor = self._job.call.settings.executor
        if self._theirs is None or not isinstance(executor, str) or not self._thorough:
            return False  # the next of somebody else's processes may differ for reasons of its own
        there = in_worker(self._job, self._task)
        if there is None:  # no worker had a part in it
            return not same_values(self._ours, self._theirs)
        return not (same_values(there, self._theirs) or same_values(there, self._ours))

    def _threads(self) -> Difference | None:
        number = self._job.call.settings.blas_threads
        if not isinstance(number, int) or self._theirs is None:
            return None
        with SharedThreadLimit()(number):
            again = compute_here(self._job, self._task)
        if again is None or not same_values(again, self._theirs):
            return None
        return self._finding(
            "threads",
            f"the function's bits depend on the number of BLAS or OpenMP threads, {self._where} "
            f"({self._difference}): workers have blas_threads={number}. Leave blas_threads open, or give this process "
            f"as many: with threadpoolctl.threadpool_limits({number})",
        )

    def _environment(self) -> Difference | None:
        """What is not alike there, if that can explain it."""
        there = self._fingerprint_there()
        if there is None:
            return None
        names = [n for n in environment_differences(read_fingerprint(), there) if n not in ("hash seed", "threads")]
        if not names and self._depends_on_hashes():
            names = ["hash seed"]
        if not names:
            return None
        remedies = "; ".join(f"{name}: {REMEDIES[name]}" for name in names)
        return self._finding(
            "environment",
            f"the function gives other bits in a worker than in this process, {self._where} ({self._difference}). "
            f"These are not alike: {', '.join(names)}. What to do: {remedies}",
        )

    def _fingerprint_there(self) -> dict[str, str] | None:
        settings = self._job.call.settings
        if settings.executor in ("threads", "serial"):
            return None
        settings = settings._replace(isolate=True, verify=False, ignore=False, timeout=None, retries=0)
        job = Job(make_call(read_fingerprint, (np.zeros(1),), settings=settings))
        try:
            run(job)
            found: dict[str, str] = job.finish()[0]
        except Exception:  # then nothing can be said about it
            return None
        return found

    def _depends_on_hashes(self) -> bool:
        """Whether interpreters that hash text differently give different bits."""
        if self._job.call.settings.executor in ("threads", "serial"):
            return False
        seen: list[Results] = []
        for seed in HASH_SEEDS:
            pool = WorkerPool(variables={"PYTHONHASHSEED": seed})
            try:
                results = in_worker(self._job, self._task, pool)
            finally:
                pool.stop()
            if results is not None:
                seen.append(results)
        if len(seen) < len(HASH_SEEDS) or not same_values(seen[0], seen[1]):
            return False  # it is something else that is not alike in two interpreters
        return any(not same_values(seen[0], one) for one in seen[2:])

    def _unknown(
        self,
        hint: str = "Does it look at its process, at caches, or at modules that only one of them has imported?",
    ) -> Difference:
        what = {"type": "another type, dtype or shape", "nan": "other bits of NaN or another sign of zero"}
        return self._finding(
            self._kind,
            f"the function gives {what.get(self._kind, 'another value')} in a worker than in this process, "
            f"{self._where} ({self._difference}), and the same again in this one. {hint}",
        )
