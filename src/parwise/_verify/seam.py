"""The default check of a block function: borders between two blocks are tried, where that costs next to nothing.

Of each axis that is cut one border is tried, as far as there is time. Rounding is left to ``verify=True``: BLAS and
SIMD loops take other ways for other lengths.
"""

from __future__ import annotations

import warnings

from .._core.inputs.arrays import InputArray
from .._core.inputs.block_grid import BlockGrid
from .._executors.job.job import Job
from .._executors.processes.dispatcher import Dispatcher
from ..errors import ReproducibilityWarning, user_level
from .block_bands import calls_along_axes
from .border import OVERHEAD_SECONDS, Border, TimeLimit

# The check may take this share of the time of the call, to stay below a tenth with what surrounds it; if it has found
# something, so many seconds more.
SHARE = 0.07
MORE_SECONDS = 0.25
# Elements on each side of a border, the halo aside.
HALVES = (8, 4)
# Along several axes, the width of a band, its halo aside, where one as wide as a block takes too long.
NARROW = 32
# A border of an array in a file is read again, with whole chunks: not where there are fewer blocks than this.
FILE_BLOCKS = 40


class SeamCheck:
    """Tries a border in the middle of each axis that is cut.

    All is computed by workers that have the function, so that nothing changes in this process.

    Parameters
    ----------
    seconds : float
        Time that the call took.
    """

    def __init__(self, job: Job, dispatcher: Dispatcher, seconds: float) -> None:
        self._job, self._call, self._dispatcher = job, job.call, dispatcher
        self._time = TimeLimit(SHARE * seconds)
        self._text = self._find() if self._is_possible() else None

    def warn(self) -> None:
        """Warn of what was found, if anything was."""
        if self._text is not None:
            warnings.warn(self._text, ReproducibilityWarning, stacklevel=user_level())

    def _is_possible(self) -> bool:
        call = self._call
        plain = all(isinstance(one, InputArray) and not one.as_object for one in call.inputs)
        again = self._job.files is None and call.block_grid is None and call.tasks >= FILE_BLOCKS
        repeatable = call.streams is None and not self._job.output_replay.has_effects
        return plain and (again or all(one.loaded for one in call.inputs)) and repeatable

    def _find(self) -> str | None:
        """Return what differs, in words, and the depth that would do; None if nothing was found, or time was short."""
        pace, blocks = self._job.queue.mean_pace, self._call.block_grid
        if pace is None or self._time.left < OVERHEAD_SECONDS:
            return None
        axes = self._along_axes(blocks, pace) if blocks is not None else {0: [self._border(self._job, pace, HALVES)]}
        tried = self._tried(axes)
        if not any(one.differs for one in tried.values()):
            return None
        self._time.restart(MORE_SECONDS)
        wrong = {number: one for number, one in tried.items() if one.differs and one.measure()}
        if not wrong:
            return None
        tried |= (more := self._tried({number: axes[number] for number in axes.keys() - tried.keys()}))
        wrong |= {number: one for number, one in more.items() if one.differs and one.measure()}
        return self._words(dict(sorted(wrong.items())), len(tried) == len(axes))

    def _border(self, job: Job, pace: float, halves: tuple[int, ...]) -> Border:
        return Border(job, self._dispatcher, self._time, pace, halves)

    def _along_axes(self, blocks: BlockGrid, pace: float) -> dict[int, list[Border]]:
        """For each axis that is cut its border, in a wide band and in a narrow one."""
        axes: dict[int, list[Border]] = {}
        for widest, halves in ((None, HALVES[:1]), (NARROW, HALVES)):
            for number, call in enumerate(calls_along_axes(self._call, blocks, widest)):
                if call.tasks > 1:
                    items = call.inputs[0].row_bytes / self._call.inputs[0].row_bytes
                    axes.setdefault(number, []).append(self._border(Job(call), items * pace, halves))
        return axes

    def _tried(self, axes: dict[int, list[Border]]) -> dict[int, Border]:
        """The borders that were tried: along each axis the first one that there is time for."""
        tried: dict[int, Border] = {}
        for done, (number, borders) in enumerate(axes.items()):
            seconds = self._time.left / (len(axes) - done)
            border = next((one for one in borders if one.has_room(seconds)), None)
            if border is not None and border.try_window(seconds):
                tried[number] = border
        return tried

    def _words(self, wrong: dict[int, Border], all_tried: bool) -> str:
        whole = next((one for one in wrong.values() if one.depends_on_all), None)
        if whole is not None:
            return (
                f"the function's results depend on where its blocks begin and end: {whole.where}, all of them change "
                "with the block. Means over the block, running sums, recursive filters and FFTs do that. The result is "
                "that of the blocks that parwise.plan shows: call the function for the whole array, or pass a depth as "
                "large as it looks; if each block is meant to stand alone, pass verify=False"
            )
        first = next(iter(wrong.values()))
        depth, enough, more = first.depth, first.reach, ""
        if self._call.block_grid is not None:
            depths = [side.depth for side in self._call.block_grid.sides]
            depth = self._call.naming.option(depths)
            for number, one in wrong.items():
                depths[number] = one.reach
            enough = self._call.naming.option(depths)
            more = "" if all_tried else "; not all axes were tried"
        return (
            f"the function looks further than depth={depth}: {first.where}, results change with values {first.reach} "
            "elements away, which it does not see across the border of two blocks. There the result is not that "
            f"of one call for the whole array. depth={enough} would do, but for rounding; verify=True tries more{more}"
        )
