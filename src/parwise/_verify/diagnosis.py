"""Diagnosis: the cause for which one task has different bits in two processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .._core.arguments import make_call
from .._core.effects.generators import COPIED, drawn_from, global_generators, held_generators, objects_of
from .._core.indexing import Task
from .._core.kernel import Outcome
from .._core.results import Results, owned, same_values, stacked
from .._executors.choice import run
from .._executors.job.job import Job
from .._executors.processes import runner as processes
from .._system.blas import SharedThreadLimit, unknown_blas
from .._workers.pool.default_pool import new_pool
from .._workers.pool.worker_pool import WorkerPool
from .difference import Difference, difference
from .fingerprint import REMEDIES, environment_differences, read_fingerprint

# Two interpreters with the same order of sets, and two with different ones: all four hardly agree by chance.
HASH_SEEDS = ("1", "1", "2", "3")

SETUP = (
    "If it depends on settings of a library, on imports or on names that this program has set, pass setup=, a function "
    "that sets them in each worker"
)

_GLOBAL = (
    "draws from {}, a global generator: each worker process has its own, seeded anew (processes of other libraries "
    "may all draw the same numbers). Pass rng=seed, and take rng= in the function: a Generator for each element"
)
_IN_TURN = (
    "draws from {}, one generator for all elements, so the numbers of each depend on those computed before it. Pass "
    "rng=seed in its place, and take rng= in the function: a Generator for each element"
)
_UNSTABLE = (
    "Does it use random numbers, the clock, or state that earlier calls changed? For random numbers pass rng=seed, and "
    "take rng= in the function: each process has a global generator of its own"
)


def compute_here(job: Job, task: Task) -> Results | None:
    """Results of a task, computed in this process; None if it raises."""
    results = job.kernel.run(job.again(task), task.lo, task.hi).results_or_interrupt()
    return None if results is None else owned(stacked(results))


def in_worker(job: Job, task: Task, pool: WorkerPool | None = None) -> Results | None:
    """Results of a task, computed in a worker; None if it raises, or if the executor has no worker processes.

    The worker is one of `pool`, or else of the job's executor.
    """
    call = job.call
    if call.settings.executor in ("threads", "serial"):
        return None
    found: list[Results] = []

    def receive(task: Task, outcome: Outcome) -> None:
        if outcome.results is not None and (outcome.error is None or outcome.gaps is not None):
            found.append(owned(outcome.results))

    settings = call.settings._replace(isolate=True, verify=False, errors="raise", retries=0)
    repeated = Job(replace(call, out=None, settings=settings), only=task, observe=receive)
    repeated.comparison.objects = job.comparison.objects
    try:
        if pool is not None:
            processes.run(repeated, pool)
        else:
            run(repeated)
    except TypeError:  # it cannot be pickled
        raise
    except Exception:  # the death of a worker shows nothing about bits
        return None
    return found[0] if found else None


class Diagnosis:
    """Finds the cause for which a task has different bits in this process and in another one.

    Parameters
    ----------
    theirs : Results or None
        Results of the other process, if they are known.
    known : tuple of str, optional
        Kind and text of the difference, if `theirs` does not show it.
    thorough : bool
        True if the task may be computed as often as needed, here and in workers.
    """

    def __init__(
        self, job: Job, task: Task, theirs: Results | None, known: tuple[str, str] | None = None, thorough: bool = True
    ) -> None:
        self._thorough = thorough
        self._job = job
        self._task = task
        self._theirs = theirs
        self._ours = compute_here(job, task)
        if known is None and theirs is not None and self._ours is not None and not same_values(self._ours, theirs):
            known = difference(self._ours, theirs)
        self._kind, self._difference = known or ("value", "an earlier call returned something different")
        self._where = job.call.name(task.lo, task.hi)

    def find(self) -> Difference:
        """Return the first cause that can be shown: an unstable function, threads, environment; or none of them."""
        call = self._job.call
        function = call.func, call.args, call.kwargs
        before, held = global_generators(), held_generators(objects_of(*function))
        if self._is_unstable():
            drawn = " and ".join(drawn_from(before, global_generators()))
            own = " and ".join(drawn_from(held, held_generators(objects_of(*function))))
            text = COPIED if call.settings.executor not in ("threads", "serial") else _IN_TURN
            return self._cause(
                "unstable",
                f"the function returns different bits each time it is called {self._where} ({self._difference}). "
                + (f"It {(_GLOBAL if drawn else text).format(drawn or own)}" if drawn or own else _UNSTABLE),
            )
        if not self._thorough:
            return self._unexplained(f"verify=True looks for the reason. {SETUP}")
        cause = self._thread_difference() or self._environment_difference()
        return cause or self._unexplained(unknown_blas() or f"Does it look at its process, or at caches? {SETUP}")

    def _cause(self, kind: str, text: str) -> Difference:
        return Difference(kind, text, self._task.lo)

    def _is_unstable(self) -> bool:
        """True if two runs of the task differ, within this process or within workers."""
        repeated = compute_here(self._job, self._task)
        if repeated is None or self._ours is None or not same_values(repeated, self._ours):
            return True
        executor = self._job.call.settings.executor
        if self._theirs is None or not isinstance(executor, str) or not self._thorough:
            return False  # the next process of another library's executor may differ for its own reasons
        elsewhere = in_worker(self._job, self._task)
        if elsewhere is None:  # without workers, both results are of this process
            return not same_values(self._ours, self._theirs)
        return not (same_values(elsewhere, self._theirs) or same_values(elsewhere, self._ours))

    def _thread_difference(self) -> Difference | None:
        """Difference that this process shows too, if its BLAS has the workers' number of threads."""
        number = self._job.call.settings.blas_threads
        if not isinstance(number, int) or self._theirs is None:
            return None
        with SharedThreadLimit()(number):
            repeated = compute_here(self._job, self._task)
        if repeated is None or not same_values(repeated, self._theirs):
            return None
        return self._cause(
            "threads",
            f"the function's bits depend on the number of BLAS or OpenMP threads, {self._where} "
            f"({self._difference}): workers have blas_threads={number}. Leave blas_threads out, or give this process "
            f"as many, by threadpoolctl.threadpool_limits({number})",
        )

    def _environment_difference(self) -> Difference | None:
        """Difference with the names of all that is not alike in the worker, if that can explain it."""
        elsewhere = self._worker_fingerprint()
        if elsewhere is None:
            return None
        names = [n for n in environment_differences(read_fingerprint(), elsewhere) if n not in ("hash seed", "threads")]
        if not names and self._depends_on_hashes():
            names = ["hash seed"]
        if not names:
            return None
        remedies = "; ".join(f"{name}: {REMEDIES[name]}" for name in names)
        return self._cause(
            "environment",
            f"the function returns different bits in a worker and in this process, {self._where} "
            f"({self._difference}). The processes differ in: {', '.join(names)}. What to do: {remedies}",
        )

    def _worker_fingerprint(self) -> dict[str, str] | None:
        """Fingerprint of a worker; None if it has none, or cannot be asked."""
        settings = self._job.call.settings
        if settings.executor in ("threads", "serial"):
            return None
        settings = settings._replace(isolate=True, verify=False, errors="raise", timeout=None, retries=0)
        job = Job(make_call(read_fingerprint, (np.zeros(1),), settings=settings))
        try:
            run(job)
            found: dict[str, str] = job.finish()[0]
        except Exception:  # then the environments cannot be compared
            return None
        return found

    def _depends_on_hashes(self) -> bool:
        """True if bits change with the seed that an interpreter hashes text with."""
        if self._job.call.settings.executor in ("threads", "serial"):
            return False
        found: list[Results] = []
        for seed in HASH_SEEDS:
            pool = new_pool(variables={"PYTHONHASHSEED": seed})
            try:
                results = in_worker(self._job, self._task, pool)
            finally:
                pool.stop()
            if results is not None:
                found.append(results)
        if len(found) < len(HASH_SEEDS) or not same_values(found[0], found[1]):
            return False  # two interpreters differ in something else
        return any(not same_values(found[0], one) for one in found[2:])

    def _unexplained(self, hint: str) -> Difference:
        """Difference without a known cause."""
        words = {
            "type": "a different type, dtype or shape",
            "nan": "different bits of NaN, or a different sign of zero",
        }
        return self._cause(
            self._kind,
            f"the function returns {words.get(self._kind, 'a different value')} in a worker than in this process, "
            f"{self._where} ({self._difference}), while two calls in this process agree. {hint}",
        )
