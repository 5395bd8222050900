"""Whether a call's result has the bits of the plain loop, and if not, why."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ._blas import SharedThreadLimit
from ._call import Call, make_call
from ._fingerprint import REMEDIES, environment_differences, read_fingerprint
from ._hostile import sprinkle
from ._input import Input
from ._invariance import Invariance
from ._job import Job
from ._kernel import Outcome
from ._pool import WorkerPool
from ._results import Results, Stack, owned, same_results
from ._runners import processes, runner_of
from ._split import Task
from ._verify import Finding, array_difference, difference, differing
from .errors import ReproducibilityWarning, user_level

# A sample is computed again within this part of the call's time.
SHARE = 0.05
# Results that are kept for it.
KEPT_BYTES = 2**26
# Interpreters with one order of sets, and with others; the chance that these agree by luck is small.
HASH_SEEDS = ("1", "1", "2", "3")
# Elements that are computed with hostile values, and seconds that a worker has for them.
HOSTILE = 4
HOSTILE_SECONDS = 5.0


class Sample:
    """Keeps the ends of tasks, as they came, for a part of them to be computed again.

    Parameters
    ----------
    whole : bool
        Whether tasks are blocks, and not runs of elements.
    """

    def __init__(self, whole: bool) -> None:
        self._whole = whole
        self._kept: dict[Task, Results] = {}
        self._bytes = 0
        self.seconds = 0.0
        self._lock = threading.Lock()

    def take(self, task: Task, outcome: Outcome) -> None:
        """See what became of a task."""
        results = outcome.results
        with self._lock:
            self.seconds += outcome.seconds
            if results is None or outcome.gaps is not None:
                return
            ends = [task] if self._whole else [Task(k, k + 1) for k in sorted({task.lo, task.hi - 1})]
            for end in ends:
                if self._bytes < KEPT_BYTES:
                    kept = owned(results if self._whole else pick(results, end.lo - task.lo))
                    self._kept[end] = kept
                    self._bytes += sum(c.array.nbytes for c in kept.columns if isinstance(c, Stack))

    def in_order(self) -> Iterator[tuple[Task, Results]]:
        """Last, first, and then from one to the other: both sides of cuts come early."""
        tasks = sorted(self._kept, key=lambda task: task.lo)
        for task in dict.fromkeys([*tasks[-1:], *tasks[:3], *tasks[1 : -1 : max(1, len(tasks) // 50)], *tasks]):
            yield task, self._kept[task]


def pick(results: Results, k: int) -> Results:
    """The results of one element."""
    columns = [Stack(c.kind, c.array[k : k + 1]) if isinstance(c, Stack) else c[k : k + 1] for c in results.columns]
    return Results(columns, results.wrap)


def run_with_audit(call: Call) -> Any:
    """Compute a call whose user wants to know whether it can be trusted."""
    if call.settings.verify == "full":
        job, sample = Job(call), None
    else:
        sample = Sample(call.vectorized)
        job = Job(call, observe=sample.take)
    runner_of(call)(job)
    return audit(job, sample)


def audit(job: Job, sample: Sample | None = None) -> Any:
    """The result of a call that has been computed, after a look at whether it can be trusted.

    Parameters
    ----------
    job : Job
    sample : Sample, optional
        If some of it is to be computed again.

    Raises
    ------
    NotReproducibleError
        If it cannot, and the user wants to know; else that is a warning.
    """
    verify = job.call.settings.verify
    finding = None
    if job.disputed is not None:
        finding = Diagnosis(job, job.first_task, job.disputed).find()
        if verify:
            raise finding.error(job.call.public_index)
    result = job.finish()
    if finding is not None:
        warnings.warn(finding.text, ReproducibilityWarning, stacklevel=user_level())
    if verify == "full":
        _check_all(job, result)
    elif verify and sample is not None:
        _check_sample(job, sample)
    if verify and job.call.count:
        _check_worker(job)
        _check_hostile(job)
    if verify and job.call.vectorized and job.call.streams is None:
        finding = Invariance(job.call).find()
        if finding is not None:
            raise finding.error(job.call.public_index)
    return result


def _check_sample(job: Job, sample: Sample) -> None:
    deadline = time.perf_counter() + SHARE * sample.seconds
    for task, theirs in sample.in_order():
        ours = compute_here(job, task)
        if ours is None or not same_results(ours, theirs):
            raise Diagnosis(job, task, theirs).find().error(job.call.public_index)
        if time.perf_counter() > deadline:
            return


def _check_worker(job: Job) -> None:
    """Compare a worker with this process: of a small call, none had a part in it."""
    task = job.first_task
    ours, theirs = compute_here(job, task), in_worker(job, task)
    if ours is not None and theirs is not None and not same_results(ours, theirs):
        raise Diagnosis(job, task, theirs).find().error(job.call.public_index)


def _check_hostile(job: Job) -> None:
    """Compare a worker with this process on made-up values, which may be flushed or spread otherwise."""
    call = job.call
    count = len(job.first_task) if call.vectorized else min(HOSTILE, call.count)
    if call.settings.executor != "processes" or call.halo is not None:
        return
    arrays = [one.private(0, count).copy(order="K") for one in call.inputs]
    if not all(map(sprinkle, arrays)):
        return
    axis = call.inputs[0].axes[0] if call.vectorized else 0
    settings = replace(call.settings, ignore=False, timeout=HOSTILE_SECONDS)
    made = replace(call, inputs=tuple(Input(a, (axis,), call.vectorized) for a in arrays), out=None)
    made = replace(made, axis=(axis,), grid=(count,), settings=settings)
    if call.vectorized:
        made = replace(made, bounds=[(0, count)])
    trial, task = Job(made), Task(0, count)
    trial.open()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The worker first: a function may never end on NaN, and a worker can be killed.
        theirs = in_worker(trial, task)
        ours = None if theirs is None else compute_here(trial, task)
        if ours is not None and theirs is not None and not same_results(ours, theirs):
            raise Diagnosis(trial, task, theirs).find().error(call.public_index)


def _check_all(job: Job, result: Any) -> None:
    """Compute everything again in this process, and compare the arrays."""
    settings = replace(job.call.settings, executor="serial", isolate=False, verify=False, timeout=None)
    again = Job(replace(job.call, out=None, settings=settings))
    runner_of(again.call)(again)
    loop = again.finish()
    if job.call.raw:
        result, loop = result.array, loop.array
    pairs = zip(result, loop, strict=True) if isinstance(loop, tuple) else [(result, loop)]
    for found, right in pairs:
        array = np.asarray(found[...] if job.call.out is not None else found)
        right = right.astype(array.dtype) if job.call.out is not None else right
        told = array_difference(array, right)
        if told is not None:
            task = _task_at(job, array, right)
            theirs = in_worker(job, task) or compute_here(job, task)
            raise Diagnosis(job, task, theirs, told).find().error(job.call.public_index)


def _task_at(job: Job, array: np.ndarray, right: np.ndarray) -> Task:
    """The element or block where the result is not as it should be."""
    call = job.call
    index = 0
    if array.shape == right.shape and array.dtype == right.dtype and array.dtype.names is None:
        lead = np.moveaxis(differing(array, right), call.places(array.ndim), range(len(call.grid)))
        wrong = lead.reshape(*lead.shape[: len(call.grid)], -1).any(axis=-1)
        index = int(wrong.argmax())
    if call.bounds is None:
        return Task(index, index + 1)
    return next((Task(lo, hi) for lo, hi in call.bounds if lo <= index < hi), job.first_task)


def compute_here(job: Job, task: Task) -> Results | None:
    """What a task gives in this process; None if it raises."""
    results = job.kernel.run(job.runs(task), task.lo, task.hi).results
    return None if results is None else owned(results)


def in_worker(job: Job, task: Task, pool: WorkerPool | None = None) -> Results | None:
    """What a task gives in a worker; None if it raises, or if there are no workers."""
    call = job.call
    if call.settings.executor in ("threads", "serial"):
        return None
    found: list[Results] = []

    def take(task: Task, outcome: Outcome) -> None:
        if outcome.results is not None:
            found.append(owned(outcome.results))

    settings = replace(call.settings, isolate=True, verify=False, ignore=False, retries=0)
    again = Job(replace(call, out=None, settings=settings), only=task, observe=take)
    try:
        if pool is not None:
            processes.run(again, pool)
        else:
            runner_of(again.call)(again)
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
    """

    def __init__(self, job: Job, task: Task, theirs: Results | None, told: tuple[str, str] | None = None) -> None:
        self._job = job
        self._task = task
        self._theirs = theirs
        self._ours = compute_here(job, task)
        if told is None and theirs is not None and self._ours is not None and not same_results(self._ours, theirs):
            told = difference(self._ours, theirs)
        self._kind, self._difference = told or ("value", "it gave something else before")
        self._where = job.call.name(task.lo, task.hi)

    def find(self) -> Finding:
        """The first cause that can be shown."""
        if self._unstable():
            return self._finding(
                "unstable",
                f"the function gives other bits each time it is called {self._where} ({self._difference}): does it use "
                "random numbers, the clock, or state that earlier calls changed? For random numbers pass rng=seed, "
                "and take rng= in the function",
            )
        return self._threads() or self._environment() or self._unknown()

    def _finding(self, kind: str, text: str) -> Finding:
        return Finding(kind, text, self._task.lo)

    def _unstable(self) -> bool:
        """Whether it differs from itself within one process."""
        again = compute_here(self._job, self._task)
        if again is None or self._ours is None or not same_results(again, self._ours):
            return True
        executor = self._job.call.settings.executor
        if self._theirs is None or not isinstance(executor, str):
            return False  # the next of somebody else's processes may differ for reasons of its own
        there = in_worker(self._job, self._task)
        if there is None:  # no worker had a part in it
            return not same_results(self._ours, self._theirs)
        return not (same_results(there, self._theirs) or same_results(there, self._ours))

    def _threads(self) -> Finding | None:
        number = self._job.call.settings.blas_threads
        if not isinstance(number, int) or self._theirs is None:
            return None
        with SharedThreadLimit()(number):
            again = compute_here(self._job, self._task)
        if again is None or not same_results(again, self._theirs):
            return None
        return self._finding(
            "threads",
            f"the function's bits depend on the number of BLAS or OpenMP threads, {self._where} "
            f"({self._difference}): workers have blas_threads={number}. Leave blas_threads open, or give this process "
            f"as many: with threadpoolctl.threadpool_limits({number})",
        )

    def _environment(self) -> Finding | None:
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
        settings = replace(settings, isolate=True, verify=False, ignore=False, timeout=None, retries=0)
        given = {"axis": 0, "args": (), "kwargs": None, "vectorized": False, "chunk": None, "depth": 0}
        given |= {"boundary": None, "out": None, "rng": None}
        job = Job(make_call(read_fingerprint, (np.zeros(1),), **given, settings=settings))
        try:
            runner_of(job.call)(job)
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
        if len(seen) < len(HASH_SEEDS) or not same_results(seen[0], seen[1]):
            return False  # it is something else that is not alike in two interpreters
        return any(not same_results(seen[0], one) for one in seen[2:])

    def _unknown(self) -> Finding:
        what = {"type": "another type, dtype or shape", "nan": "other bits of NaN or another sign of zero"}
        return self._finding(
            self._kind,
            f"the function gives {what.get(self._kind, 'another value')} in a worker than in this process, "
            f"{self._where} ({self._difference}), each time the same in either. Does it look at the process it runs "
            "in, at caches, or at modules that only one of them has imported?",
        )
