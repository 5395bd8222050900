"""One border between two blocks of a block function, and how far the function looks across it.

Values on one side of the border change, and results on the other side must stay.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .._clock import perf_counter
from .._core.indexing import BLOCK_BYTES, Task
from .._core.results import Results, Stack
from .._executors.job.job import Job
from .._executors.processes.dispatcher import Dispatcher
from .difference import differing

# Where all of a window changes, one so many times as wide is tried. So large a part of unchanged elements ends what is
# seen across the border.
WIDER = 4
GAP = 4
# So many elements at most.
MOST = 2048
# What the check takes beside the function: to stage four windows, and to wake workers.
OVERHEAD_SECONDS = 0.002


class TimeLimit:
    """Seconds that are left for what follows."""

    def __init__(self, seconds: float) -> None:
        self.restart(seconds)

    def restart(self, seconds: float) -> None:
        """Allow so many seconds from now on."""
        self._end = perf_counter() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - perf_counter()


class Border:
    """The border in the middle of a call along one axis.

    Parameters
    ----------
    job : Job
        Stages windows of the call.
    dispatcher : Dispatcher
        Its workers have the function.
    pace : float
        Seconds that an element along the axis takes.
    halves : tuple of int
        Lengths of the window on each side of the border, the halo aside, the one that tells most first.

    Attributes
    ----------
    depth : int
        That of the call.
    reach : int
        How far the function looks, as far as it is known.
    """

    def __init__(self, job: Job, dispatcher: Dispatcher, time: TimeLimit, pace: float, halves: tuple[int, ...]) -> None:
        self._job, self._call, self._dispatcher, self._time, self._pace = job, job.call, dispatcher, time, pace
        bounds = self._call.bounds or [(0, 0)]
        self._at = bounds[len(bounds) // 2][0]
        self.depth = self._call.halo.sides[0].depth if self._call.halo else 0
        self._halves = [self.depth + half for half in halves]
        # Windows take no more memory than a large block does.
        row_bytes = sum(one.row_bytes for one in self._call.inputs)
        self._most = min(MOST, max(BLOCK_BYTES // max(1, row_bytes), bounds[0][1]) // 2)
        self._half = self.reach = 0
        # What is computed of float32 has its rounding, also if the result is float64.
        dtypes = [one.like.dtype for one in self._call.inputs]
        self._eps = max((float(np.finfo(one).eps) for one in dtypes if one.kind in "fc"), default=0.0)

    @property
    def differs(self) -> bool:
        """True if the function looks further than the halo."""
        return self.reach > self.depth

    @property
    def depends_on_all(self) -> bool:
        """True if all of a window changes."""
        return self.reach >= self._half

    @property
    def where(self) -> str:
        """The window, in words."""
        return self._call.name(self._at - self._half, self._at + self._half)

    def has_room(self, seconds: float) -> bool:
        """True if there is a window that takes no more than `seconds`."""
        return any(self._pays(half, seconds) for half in self._halves)

    def try_window(self, seconds: float) -> bool:
        """Try the first window that takes no more than `seconds`; False if nothing is known then."""
        half = next((one for one in self._halves if self._pays(one, seconds)), None)
        reach = None if half is None else self._reach(half)
        if half is None or reach is None:
            return False
        self._half, self.reach = half, reach
        return True

    def measure(self) -> bool:
        """Find how far the function looks; False if it does not give the same twice."""
        if not self._is_stable(self._half):
            return False
        while self.depends_on_all and self._pays(WIDER * self._half, self._time.left):
            self._half *= WIDER
            wider = self._reach(self._half)
            self.reach = self._half if wider is None else wider
        return True

    def _pays(self, half: int, seconds: float) -> bool:
        """True if windows of twice `half` elements have room, can change on one side, and take at most `seconds`."""
        room = min(self._at, self._call.count - self._at)
        return (
            half + self.depth <= min(room, self._most)
            and OVERHEAD_SECONDS + 7 * (half + self.depth) * self._pace < seconds
            and not any(one.overlaps for one in self._job.layouts(Task(self._at - half, self._at + half)))
        )

    def _reach(self, half: int) -> int | None:
        """How far the function looks, at most `half`; more if blocks that begin elsewhere differ; None if unknown."""
        window, stage = Task(self._at - half, self._at + half), self._job.stage
        stages: list[tuple[Task, Callable[..., Any]]] = [(window, stage), (Task(self._at, window.hi), stage)]
        stages[1:1] = [(window, partial(self._stage_changed, behind)) for behind in (True, False)]
        results = self._compute(stages)
        if results is None:
            return None
        found = 0
        for whole, after, before, tail in results:
            if len(whole) != 2 * half or not whole.shape == after.shape == before.shape:
                return None  # another length than that of the block
            ahead = _run(self._differ(whole, after)[:half][::-1])
            behind = _run(self._differ(whole, before)[half:])
            # The halo sees beyond the border in any case.
            found = max(found, ahead, behind)
            if found <= self.depth and (tail.shape != whole[half:].shape or self._differ(whole[half:], tail).any()):
                return half + 1
        return int(found)

    def _stage_changed(self, behind: bool, task: Task, get_memory: Callable[[int], Any]) -> Any:
        """Stage a window with other elements behind the border, or before it: some of those there, in another order."""
        memories: list[Any] = []

        def memory(nbytes: int) -> Any:
            memories.append(get_memory(nbytes))
            return memories[0]

        staged = offsets, layouts, _ = self._job.stage(task, memory)
        side = self._at - task.lo + self.depth
        same, chosen = np.arange(side), np.arange(side)[::-1] // 2  # not all of them: sums would stay the same
        order = np.concatenate([same, side + chosen] if behind else [chosen, side + same])
        for one, (start, *_), layout in zip(self._call.inputs, offsets, layouts or (), strict=True):
            view = layout.view(memoryview(memories[0]), start, None)
            view[...] = np.take(view, order, one.axes[0])
        return staged

    def _is_stable(self, half: int) -> bool:
        """True if the function gives the same twice."""
        results = self._compute([(Task(self._at, self._at + half), self._job.stage)] * 2)
        return results is not None and not any(self._differ(one, again).any() for one, again in results)

    def _compute(self, stages: list[tuple[Task, Callable[..., Any]]]) -> list[list[np.ndarray]] | None:
        """Results of blocks: for each output one array of each, with the mapped axis first; None if one has none."""
        results = self._dispatcher.compute_again(stages, self._time.left)
        rows = [self._rows(task, one) for (task, _), one in zip(stages, results or (), strict=False)]
        kinds = {tuple(one.dtype for one in row) for row in rows}
        return [list(one) for one in zip(*rows, strict=True)] if len(kinds) == 1 and kinds != {()} else None

    def _rows(self, task: Task, results: Results | None) -> list[np.ndarray]:
        """Results of one block with the mapped axis first, without its halo; none if they cannot be compared."""
        columns = [] if results is None else results.columns
        axis, arrays = self._call.axis[0], [one.array for one in columns if isinstance(one, Stack)]
        if any(one.dtype.hasobject or not -one.ndim <= axis < one.ndim for one in arrays):
            return []
        if self._call.halo is not None:
            arrays = [self._call.halo.trim(one, task.lo, task.hi) for one in arrays]
        return [np.moveaxis(one, axis, 0) for one in arrays]

    def _differ(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """True for each element along the first axis in which two arrays differ beyond rounding."""
        return _differ(a, b, self._eps)


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


def _differ(a: np.ndarray, b: np.ndarray, eps: float) -> np.ndarray:
    """True for each element along the first axis in which two arrays of one dtype and shape differ beyond rounding.

    A running mean over a window, as SciPy's, carries rounding from its first element to its last.
    """
    wrong: Any = differing(a, b)
    if a.dtype.kind in "fc" and a.size:
        with np.errstate(all="ignore"):
            scale = np.max(np.abs(a[np.isfinite(a)]), initial=0.0)
            close: Any = np.abs(a - b) <= np.sqrt(max(eps, np.finfo(a.dtype).eps)) * scale
            close = close | (a == b) | (np.isnan(a) & np.isnan(b))
            wrong = wrong & ~close
    found: np.ndarray = wrong.reshape(len(a), -1).any(axis=1)
    return found
