"""Whether a call's result has the bits of the plain loop, and if not, why."""

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
from .._core.input_array import InputArray
from .._core.kernel import Outcome
from .._core.output_column import check_out
from .._core.results import Results, Stack, owned, same, same_array, same_values
from .._executors.choice import run
from .._executors.job import Job
from .._report.null_observer import UNOBSERVED, NullObserver
from ..errors import ReproducibilityWarning, user_level
from .block_invariance import BlockInvariance, TimeBudget, sprinkle
from .diagnosis import Diagnosis, compute_here, in_worker
from .difference import array_difference, differing

# Looking takes this part of the call's time, or so many seconds.
SHARE = 0.05
LEAST_SECONDS = 0.1
# Results that are kept for it.
KEPT_BYTES = 2**26
# Elements that are computed with hostile values, and seconds that a worker has for them at least.
HOSTILE = 4
HOSTILE_SECONDS = 0.5
# Elements that take longer are not computed again and again unless the user wants to know.
LONG_SECONDS = 0.1


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

    def receive(self, task: Task, outcome: Outcome) -> None:
        """See what became of a task."""
        results = outcome.results
        with self._lock:
            self.seconds += outcome.seconds
            if results is None or outcome.error is not None:
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


def run_with_audit(call: Call, observer: NullObserver = UNOBSERVED) -> Any:
    """Compute a call whose user wants to know whether it can be trusted.

    What is to go to `out` goes there at the end: it may be what the function
    reads.
    """
    sample = Sample(call.vectorized)
    job = Job(replace(call, out=None), observe=sample.receive, observer=observer)
    run(job)
    result = audit(job, sample)
    return result if call.out is None else _deliver(call, result)


def _deliver(call: Call, result: Any) -> Any:
    """Store a result in the arrays that the user gave."""
    arrays = result if isinstance(result, tuple) else (result,)
    targets = call.out or ()
    if len(arrays) != len(targets):
        raise ValueError(f"func returned {len(arrays)} result(s), but out has {len(targets)} array(s)")
    for array, target in zip(arrays, targets, strict=True):
        check_out(target, array.dtype, array.shape)
        target[...] = array
    return targets if isinstance(result, tuple) else targets[0]


def audit(job: Job, sample: Sample | None = None) -> Any:
    """The result of a call that has been computed, after a look at whether it can be trusted.

    Parameters
    ----------
    job : Job
    sample : Sample, optional
        What is known of it, if the user asked for a look.

    Raises
    ------
    NotReproducibleError
        If it cannot, and the user wants to know; else that is a warning.
    """
    verify = job.call.settings.verify
    finding = None
    if job.disputed is not None:
        # Where the user has not asked, what takes long is not tried.
        thorough = bool(verify) or job.first_seconds < LONG_SECONDS
        finding = Diagnosis(job, job.first_task, job.disputed, thorough=thorough).find()
        if verify:
            raise finding.error(job.call.public_index)
    result = job.finish()
    if finding is not None:
        warnings.warn(finding.text, ReproducibilityWarning, stacklevel=user_level())
    if sample is not None and job.call.count:
        _look(job, sample, result)
    return result


def _look(job: Job, sample: Sample, result: Any) -> None:
    """Look for what could be wrong with a result, the most telling first, as long as there is time."""
    call = job.call
    budget = TimeBudget(max(LEAST_SECONDS, SHARE * sample.seconds))
    if call.settings.verify == "full":
        _check_all(job, result)
    else:
        _check_sample(job, sample, budget)
    _check_worker(job)
    if budget.allows(HOSTILE * job.first_seconds):
        _check_hostile(job)
    if call.vectorized and call.streams is None:
        finding = BlockInvariance(call, budget, partial(_ends_in_worker, job)).find()
        if finding is not None:
            raise finding.error(call.public_index)


def _check_sample(job: Job, sample: Sample, budget: TimeBudget) -> None:
    for task, theirs in sample.in_order():
        ours = compute_here(job, task)
        if ours is None or not same_values(ours, theirs):
            raise Diagnosis(job, task, theirs).find().error(job.call.public_index)
        if not budget.allows(0.5 * job.first_seconds):
            return


def _check_worker(job: Job) -> None:
    """Compare a worker with this process: of a small call, none had a part in it."""
    task = job.first_task
    if job.proved:
        return
    ours, theirs = compute_here(job, task), in_worker(job, task)
    if ours is not None and theirs is not None and not same_values(ours, theirs):
        raise Diagnosis(job, task, theirs).find().error(job.call.public_index)


def _check_hostile(job: Job) -> None:
    """Compare a worker with this process on made-up values, which may be flushed or spread otherwise."""
    call = job.call
    count = len(job.first_task) if call.vectorized else min(HOSTILE, call.count)
    if call.settings.executor != "processes" or call.halo is not None or call.feed is not None:
        return
    arrays = [one.private(0, count).copy(order="K") for one in call.inputs]
    if not all(map(sprinkle, arrays)):
        return
    trial, task = _made_up(job, arrays, count), Task(0, count)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The worker first: a function may never end on NaN, and a worker can be killed.
        theirs = in_worker(trial, task)
        ours = None if theirs is None else compute_here(trial, task)
        if ours is not None and theirs is not None and not same_values(ours, theirs):
            raise Diagnosis(trial, task, theirs).find().error(call.public_index)


def _made_up(job: Job, arrays: list[np.ndarray], count: int) -> Job:
    """The same function over other values, which a worker may not be at for long."""
    call = job.call
    seconds = HOSTILE_SECONDS + 20 * job.first_seconds
    settings = call.settings._replace(executor="processes", ignore=False, timeout=seconds)
    axes = [one.axes[0] if call.vectorized else 0 for one in call.inputs]
    inputs = tuple(InputArray(a, (axis,), call.vectorized) for a, axis in zip(arrays, axes, strict=True))
    bounds = [(0, count)] if call.vectorized else None
    axis = call.axis if call.vectorized else (0,)
    made = replace(call, inputs=inputs, axis=axis, grid=(count,), bounds=bounds, halo=None, settings=settings)
    trial = Job(made)
    trial.open()
    return trial


def _ends_in_worker(job: Job, runs: list[np.ndarray], count: int) -> bool:
    """Whether a block function comes to an end on made-up values."""
    return in_worker(_made_up(job, runs, count), Task(0, count)) is not None


def _check_all(job: Job, result: Any) -> None:
    """Compute everything again in this process, and compare."""
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
        result, loop = result.array, loop.array
    pairs = zip(result, loop, strict=True) if isinstance(loop, tuple) else [(result, loop)]
    for found, right in pairs:
        if not same_array(found, right):
            task = _task_at(job, found, right)
            theirs = in_worker(job, task) or compute_here(job, task)
            raise Diagnosis(job, task, theirs, array_difference(found, right)).find().error(job.call.public_index)


def _task_at(job: Job, array: np.ndarray, right: np.ndarray) -> Task:
    """The element or block where the result is not as it should be."""
    call = job.call
    index = 0
    if array.shape == right.shape and array.dtype == right.dtype and array.dtype.names is None:
        lead = np.moveaxis(differing(array, right), call.result_axes(array.ndim), range(len(call.grid)))
        wrong = lead.reshape(*lead.shape[: len(call.grid)], -1).any(axis=-1)
        index = int(wrong.argmax())
    if call.bounds is None:
        return Task(index, index + 1)
    return next((Task(lo, hi) for lo, hi in call.bounds if lo <= index < hi), job.first_task)
