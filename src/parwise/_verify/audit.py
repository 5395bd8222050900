"""Audit of a result: ``verify=True`` and ``"full"`` compare its bits with those of the plain loop."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .._core.call import Call
from .._core.indexing import Task
from .._core.inputs.arrays import InputArray
from .._core.kernel import Outcome
from .._core.outputs.column import check_out
from .._core.outputs.output import RawResults
from .._core.results import Results, Stack, owned, same, same_array, same_values
from .._executors.choice import run
from .._executors.job.job import Job
from .._report.null_observer import UNOBSERVED, NullObserver
from ..errors import ReproducibilityWarning, user_level
from .block_bands import calls_along_axes
from .block_invariance import BlockInvariance, TimeBudget, insert_special
from .diagnosis import Diagnosis, compute_here, in_worker
from .difference import array_difference, differing

# An audit may take this share of the time that the call spent in the function, and at least so many seconds.
TIME_SHARE = 0.05
LEAST_SECONDS = 0.1
# Bytes of results that a sample keeps.
KEPT_BYTES = 2**26
# Elements computed with special values (NaN, infinities ...), and seconds that a worker has for them, at least.
SPECIAL_ELEMENTS = 4
SPECIAL_SECONDS = 0.5
# Elements that take longer are computed repeatedly only with `verify`.
LONG_SECONDS = 0.1


class Sample:
    """Results of the first and last element of tasks, or of whole blocks, of which an audit computes some again.

    `seconds` is the time that the call has spent in the function.
    """

    def __init__(self, blocks: bool) -> None:
        self._blocks = blocks
        self._kept: dict[Task, Results] = {}
        self._bytes = 0
        self.seconds = 0.0
        self._lock = threading.Lock()

    def receive(self, task: Task, outcome: Outcome) -> None:
        """Keep a part of the results of a task, up to `KEPT_BYTES` for all."""
        results = outcome.results
        with self._lock:
            self.seconds += outcome.seconds
            if results is not None and outcome.error is None:
                self._keep(task, results)

    def _keep(self, task: Task, results: Results) -> None:
        ends = [task] if self._blocks else [Task(k, k + 1) for k in sorted({task.lo, task.hi - 1})]
        for end in ends:
            if self._bytes < KEPT_BYTES:
                kept = owned(results if self._blocks else _element(results, end.lo - task.lo))
                self._kept[end] = kept
                self._bytes += sum(c.array.nbytes for c in kept.columns if isinstance(c, Stack))

    def in_order(self) -> Iterator[tuple[Task, Results]]:
        """Yield the last task with its results, the first three, some 50 spread over the call, then all others.

        So both sides of the borders between tasks come early.
        """
        tasks = sorted(self._kept, key=lambda task: task.lo)
        for task in dict.fromkeys([*tasks[-1:], *tasks[:3], *tasks[1 : -1 : max(1, len(tasks) // 50)], *tasks]):
            yield task, self._kept[task]


def _element(results: Results, k: int) -> Results:
    """Results of element `k` of a run."""
    columns = [Stack(c.kind, c.array[k : k + 1]) if isinstance(c, Stack) else c[k : k + 1] for c in results.columns]
    return Results(columns, results.wrap)


def run_with_audit(call: Call, observer: NullObserver = UNOBSERVED) -> Any:
    """Compute a call that has the option ``verify=True`` or ``"full"``, and audit its result.

    The result is copied to `out` only at the end, since the function may read the same memory.
    """
    sample = Sample(call.vectorized)
    job = Job(replace(call, out=None), observe=sample.receive, observer=observer)
    run(job)
    result = audit(job, sample)
    return result if call.out is None else _copy_to_out(call, result)


def _copy_to_out(call: Call, result: Any) -> Any:
    """Copy a result to the arrays that the user passed as `out`."""
    arrays = result if isinstance(result, tuple) else (result,)
    targets = call.out or ()
    if len(arrays) != len(targets):
        raise ValueError(
            f"func returned {len(arrays)} result(s), but out has {len(targets)} array(s); pass a tuple "
            "with one array for each result"
        )
    for array, target in zip(arrays, targets, strict=True):
        check_out(target, array.dtype, array.shape)
        target[...] = array
    return targets if isinstance(result, tuple) else targets[0]


def audit(job: Job, sample: Sample | None = None) -> Any:
    """Return the result of a computed job, after its first task, and a sample if there is one, were compared.

    Different bits raise `NotReproducibleError` with `verify`; without it they warn.
    """
    verify = job.call.settings.verify
    difference = None
    if job.comparison.disputed is not None:
        # Without `verify`, causes that take long to find are not tried.
        thorough = bool(verify) or job.comparison.seconds < LONG_SECONDS
        difference = Diagnosis(job, job.first_task, job.comparison.disputed, thorough=thorough).find()
        if verify:
            raise difference.error(job.call.public_index)
    result = job.finish()
    if difference is not None:
        warnings.warn(difference.text, ReproducibilityWarning, stacklevel=user_level())
    if sample is not None and job.call.count:
        _check(job, sample, result)
    return result


def _check(job: Job, sample: Sample, result: Any) -> None:
    """Make all comparisons that the budget allows, the most likely to find a difference first."""
    call = job.call
    budget = TimeBudget(max(LEAST_SECONDS, TIME_SHARE * sample.seconds))
    if call.settings.verify == "full":
        _check_all(job, result)
    else:
        _check_sample(job, sample, budget)
    _check_worker(job)
    if budget.allows(SPECIAL_ELEMENTS * job.comparison.seconds):
        _check_special_values(job)
    for one in _jobs_along_axes(job) if call.vectorized and call.streams is None else ():
        difference = BlockInvariance(one.call, budget, partial(_terminates, one)).find()
        if difference is not None:
            raise difference.error(one.call.public_index)


def _jobs_along_axes(job: Job) -> list[Job]:
    """The job of a block function; along several axes one for each, over a band of blocks along it."""
    if job.call.block_grid is None:
        return [job]
    jobs = [Job(call) for call in calls_along_axes(job.call, job.call.block_grid)]
    for one in jobs:
        one.comparison.seconds = job.comparison.seconds
    return jobs


def _check_sample(job: Job, sample: Sample, budget: TimeBudget) -> None:
    """Compute tasks of the sample again in this process, and compare."""
    for task, theirs in sample.in_order():
        ours = compute_here(job, task)
        if ours is None or not same_values(ours, theirs):
            raise Diagnosis(job, task, theirs).find().error(job.call.public_index)
        if not budget.allows(0.5 * job.comparison.seconds):
            return


def _check_worker(job: Job) -> None:
    """Compute the first task in a worker and here, and compare, unless that was done: small calls use no worker."""
    task = job.first_task
    if job.comparison.done:
        return
    ours, theirs = compute_here(job, task), in_worker(job, task)
    if ours is not None and theirs is not None and not same_values(ours, theirs):
        raise Diagnosis(job, task, theirs).find().error(job.call.public_index)


def _check_special_values(job: Job) -> None:
    """Compute special values in a worker and here, and compare.

    A process that flushes subnormal numbers to zero, or makes a different NaN, may differ only there.
    """
    call = job.call
    count = len(job.first_task) if call.vectorized else min(SPECIAL_ELEMENTS, call.count)
    if call.settings.executor != "processes" or call.halo is not None or call.feed is not None:
        return
    arrays = [one.private(0, count).copy(order="K") for one in call.inputs]
    if not all(map(insert_special, arrays)):
        return
    special, task = _special_job(job, arrays, count), Task(0, count)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The worker comes first: on NaN a function may run for ever, and a worker can be killed.
        theirs = in_worker(special, task)
        ours = None if theirs is None else compute_here(special, task)
        if ours is not None and theirs is not None and not same_values(ours, theirs):
            raise Diagnosis(special, task, theirs).find().error(call.public_index)


def _special_job(job: Job, arrays: list[np.ndarray], count: int) -> Job:
    """Open a job with the same function over different values, with a timeout in workers."""
    call = job.call
    seconds = SPECIAL_SECONDS + 20 * job.comparison.seconds
    settings = call.settings._replace(executor="processes", errors="raise", timeout=seconds)
    axes = [one.axes[0] if call.vectorized else 0 for one in call.inputs]
    inputs = tuple(InputArray(a, (axis,), call.vectorized) for a, axis in zip(arrays, axes, strict=True))
    bounds = [(0, count)] if call.vectorized else None
    axis = call.axis if call.vectorized else (0,)
    changed = replace(call, inputs=inputs, axis=axis, grid=(count,), bounds=bounds, halo=None, settings=settings)
    special = Job(changed)
    special.open()
    return special


def _terminates(job: Job, runs: list[np.ndarray], count: int) -> bool:
    """True if a block function returns within the timeout, in a worker, on these values."""
    return in_worker(_special_job(job, runs, count), Task(0, count)) is not None


def _check_all(job: Job, result: Any) -> None:
    """Compute the plain loop in this process, and compare all results."""
    settings = job.call.settings._replace(executor="serial", isolate=False, verify=False, timeout=None)
    again = Job(replace(job.call, settings=settings))
    run(again)
    loop = again.finish()
    if job.call.feed is not None:
        wrong = next((k for k, (x, y) in enumerate(zip(result, loop, strict=True)) if not same(x, y)), None)
        if wrong is not None:
            task = Task(wrong, wrong + 1)
            raise Diagnosis(job, task, in_worker(job, task)).find().error(job.call.public_index)
        return
    if job.call.form == "raw":
        result, loop = _filled(result), _filled(loop)
    if isinstance(result, list) or isinstance(loop, list):
        result, loop = _objects(result), _objects(loop)
    pairs = zip(result, loop, strict=True) if isinstance(loop, tuple) else [(result, loop)]
    for array, expected in pairs:
        if not same_array(array, expected):
            task = _task_at(job, array, expected)
            theirs = in_worker(job, task) or compute_here(job, task)
            raise Diagnosis(job, task, theirs, array_difference(array, expected)).find().error(job.call.public_index)


def _objects(result: Any) -> np.ndarray:
    """The results of single elements, some of which may be None, as objects."""
    every = list(zip(*result, strict=True)) if isinstance(result, tuple) else list(result)
    return np.fromiter(every, object, len(every))


def _filled(results: RawResults) -> np.ndarray:
    """The array of raw results, with zeros in the gaps, which have no value."""
    if not len(results.gaps):
        return results.array
    array = results.array.copy()
    array.reshape(-1, *array.shape[results.mapped :])[results.gaps] = np.zeros((), array.dtype)
    return array


def _task_at(job: Job, array: np.ndarray, expected: np.ndarray) -> Task:
    """The first element, or its block, in which two results differ."""
    call = job.call
    index = 0
    if array.shape == expected.shape and array.dtype == expected.dtype and array.dtype.names is None:
        mapped = np.moveaxis(differing(array, expected), call.result_axes(array.ndim), range(len(call.grid)))
        wrong = mapped.reshape(*mapped.shape[: len(call.grid)], -1).any(axis=-1)
        index = int(wrong.argmax())
    if call.bounds is None:
        return Task(index, index + 1)
    if call.block_grid is not None:
        return next(
            (Task(lo, hi) for lo, hi in call.bounds if index in call.block_grid.in_order(lo, hi)), job.first_task
        )
    return next((Task(lo, hi) for lo, hi in call.bounds if lo <= index < hi), job.first_task)
