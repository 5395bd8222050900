"""The default check of a block function: one border between two blocks is tried, where that costs next to nothing.

Values on one side of the border change, and results on the other side must stay. Rounding is left to ``verify=True``:
BLAS and SIMD loops take other ways for other lengths.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .._clock import perf_counter
from .._core.indexing import BLOCK_BYTES, Task
from .._core.inputs.arrays import InputArray
from .._core.results import Results, Stack
from .._executors.job import Job
from .._executors.processes.dispatcher import Dispatcher
from ..errors import ReproducibilityWarning, user_level
from .difference import differing

# The check may take this share of the time of the call, to stay below a tenth with what surrounds it; if it has found
# something, so many seconds more.
SHARE = 0.07
MORE_SECONDS = 0.25
# Elements on each side of the border, the halo aside. Where all of a window changes, a wider one is tried.
# So large a part of unchanged elements ends what is seen across the border.
HALVES = (8, 4)
WIDER = 4
GAP = 4
# So many elements at most.
MOST = 2048
# What the check takes beside the function: to stage four windows, and to wake workers.
OVERHEAD_SECONDS = 0.002
# A border of an array in a file is read again, with whole chunks: not where there are fewer blocks than this.
FILE_BLOCKS = 40


class SeamCheck:
    """Tries the border in the middle of a call.

    All is computed by workers that have the function, so that nothing changes in this process.

    Parameters
    ----------
    seconds : float
        Time that the call took.
    """

    def __init__(self, job: Job, dispatcher: Dispatcher, seconds: float) -> None:
        self._job, self._call, self._dispatcher = job, job.call, dispatcher
        self._seconds = SHARE * seconds
        self._end = perf_counter() + self._seconds
        bounds = self._call.bounds or [(0, 0)]
        self._border = bounds[len(bounds) // 2][0]
        self._depth = self._call.halo.sides[0].depth if self._call.halo else 0
        # Windows take no more memory than a large block does.
        row_bytes = sum(one.row_bytes for one in self._call.inputs)
        self._most = min(MOST, max(BLOCK_BYTES // max(1, row_bytes), bounds[0][1]) // 2)
        self._text = self._find() if self._is_possible(len(bounds)) else None

    def warn(self) -> None:
        """Warn of what was found, if anything was."""
        if self._text is not None:
            warnings.warn(self._text, ReproducibilityWarning, stacklevel=user_level())

    def _is_possible(self, blocks: int) -> bool:
        inputs = self._call.inputs
        plain = all(isinstance(one, InputArray) and not one.as_object for one in inputs)
        loaded = all(one.loaded for one in inputs) or (self._job.files is None and blocks >= FILE_BLOCKS)
        along_one = self._call.block_grid is None  # of several axes `verify=True` tries one after another
        return plain and loaded and along_one and self._call.streams is None

    def _find(self) -> str | None:
        """Return what differs, in words, and the depth that would do; None if nothing was found, or time was short."""
        halves = [self._depth + half for half in HALVES]
        half = next((one for one in halves if self._pays(one, self._seconds)), None)
        reach = None if half is None else self._reach(half)
        if half is None or reach is None or reach <= self._depth:
            return None
        self._end = perf_counter() + MORE_SECONDS
        if not self._is_stable(half):
            return None
        while reach == half and self._pays(WIDER * half, self._end - perf_counter()):
            half, wider = WIDER * half, self._reach(WIDER * half)
            reach = half if wider is None else wider
        return self._words(half, reach)

    def _pays(self, half: int, seconds: float) -> bool:
        """True if windows of twice `half` elements have room, and take no more than `seconds`."""
        pace, room = self._job.queue.mean_pace, min(self._border, self._call.count - self._border)
        return (
            pace is not None
            and half + self._depth <= min(room, self._most)
            and OVERHEAD_SECONDS + 7 * (half + self._depth) * pace < seconds
        )

    def _words(self, half: int, reach: int) -> str:
        where = self._call.name(self._border - half, self._border + half)
        if reach < half:
            return (
                f"the function looks further than depth={self._depth}: {where}, results change with values {reach} "
                "elements away, which it does not see across the border of two blocks. There the result is not that "
                f"of one call for the whole array. depth={reach} would do, but for rounding; verify=True tries more"
            )
        return (
            f"the function's results depend on where its blocks begin and end: {where}, all of them change with the "
            "block. Means over the block, running sums, recursive filters and FFTs do that. The result is that of the "
            "blocks that parwise.plan shows: call the function for the whole array, or pass a depth as large as it "
            "looks; if each block is meant to stand alone, pass verify=False"
        )

    def _reach(self, half: int) -> int | None:
        """How far the function looks, at most `half`; more if blocks that begin elsewhere differ; None if unknown."""
        window, stage = Task(self._border - half, self._border + half), self._job.stage
        stages: list[tuple[Task, Callable[..., Any]]] = [(window, stage), (Task(self._border, window.hi), stage)]
        stages[1:1] = [(window, partial(self._stage_changed, behind)) for behind in (True, False)]
        results = self._compute(stages)
        if results is None:
            return None
        found = 0
        for whole, after, before, tail in results:
            if len(whole) != 2 * half or not whole.shape == after.shape == before.shape:
                return None  # another length than that of the block
            ahead = _run(_differ(whole, after)[:half][::-1])
            behind = _run(_differ(whole, before)[half:])
            # The halo sees beyond the border in any case.
            found = max(found, ahead, behind)
            if found <= self._depth and (tail.shape != whole[half:].shape or _differ(whole[half:], tail).any()):
                return half + 1
        return int(found)

    def _stage_changed(self, behind: bool, task: Task, get_memory: Callable[[int], Any]) -> Any:
        """Stage a window with other elements behind the border, or before it: some of those there, in another order."""
        memories: list[Any] = []

        def memory(nbytes: int) -> Any:
            memories.append(get_memory(nbytes))
            return memories[0]

        staged = offsets, layouts, _ = self._job.stage(task, memory)
        side = self._border - task.lo + self._depth
        same, chosen = np.arange(side), np.arange(side)[::-1] // 2  # not all of them: sums would stay the same
        order = np.concatenate([same, side + chosen] if behind else [chosen, side + same])
        for one, (start, *_), layout in zip(self._call.inputs, offsets, layouts or (), strict=True):
            view = layout.view(memoryview(memories[0]), start, None)
            view[...] = np.take(view, order, one.axes[0])
        return staged

    def _is_stable(self, half: int) -> bool:
        """True if the function gives the same twice."""
        results = self._compute([(Task(self._border, self._border + half), self._job.stage)] * 2)
        return results is not None and not any(_differ(one, again).any() for one, again in results)

    def _compute(self, stages: list[tuple[Task, Callable[..., Any]]]) -> list[list[np.ndarray]] | None:
        """Results of blocks: for each output one array of each, with the mapped axis first; None if one has none."""
        results = self._dispatcher.compute_again(stages, self._end - perf_counter())
        rows = [self._rows(one) for one in results or ()]
        kinds = {tuple(one.dtype for one in row) for row in rows}
        return [list(one) for one in zip(*rows, strict=True)] if len(kinds) == 1 and kinds != {()} else None

    def _rows(self, results: Results | None) -> list[np.ndarray]:
        """Results of one block with the mapped axis first; none if they cannot be compared."""
        columns = [] if results is None else results.columns
        axis, arrays = self._call.axis[0], [one.array for one in columns if isinstance(one, Stack)]
        if any(one.dtype.hasobject or not -one.ndim <= axis < one.ndim for one in arrays):
            return []
        return [np.moveaxis(one, axis, 0) for one in arrays]


def _run(differs: np.ndarray) -> int:
    """The number of elements up to the last that differs, as seen from the border.

    Behind a gap are those that see the window's other end, as by `numpy.roll`.
    """
    reach = 0
    for at in np.flatnonzero(differs).tolist():
        if at - reach > len(differs) // GAP:
            break
        reach = at + 1
    return reach


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """True for each element along the first axis in which two arrays of one dtype and shape differ beyond rounding.

    A running mean over a window, as SciPy's, carries rounding from its first element to its last.
    """
    wrong: Any = differing(a, b)
    if a.dtype.kind in "fc" and a.size:
        with np.errstate(all="ignore"):
            scale = np.max(np.abs(a[np.isfinite(a)]), initial=0.0)
            close: Any = np.abs(a - b) <= np.sqrt(np.finfo(a.dtype).eps) * scale
            close = close | (a == b) | (np.isnan(a) & np.isnan(b))
            wrong = wrong & ~close
    found: np.ndarray = wrong.reshape(len(a), -1).any(axis=1)
    return found
