"""Tasks whose workers read their arguments from files, and write their results to files, themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._core.call import Call
from ..._core.indexing import Runs, Task, chunk_runs
from ..._core.inputs.foreign import chunk_ends
from ..._core.inputs.recipes import FileInput, recipe_of
from ..._core.inputs.source import READ_BYTES, ReadAhead
from ..._core.outputs.output import Output
from ..._core.outputs.sink import runs_of
from ..._core.outputs.stored import FileOutput
from ..._report.null_observer import FileUse

if TYPE_CHECKING:
    from .task_queue import TaskQueue

# Bytes of the arguments and results of one task, unless one run of whole chunks has more, and the most of one run. Each
# task takes Dask's scheduler and the caller 5 ms of a CPU: of 512 MB in tasks of 16 MB, as long as a fifth of the work.
TASK_BYTES = 2**26
RUN_BYTES = 2**26
# With fewer runs of whole chunks than this for each worker some would have nothing to do: then the caller reads.
LEAST_RUNS = 4
# What parwise's own workers read of files has at least so many bytes: to import zarr takes each 0.3 s, once. Tasks
# of theirs have fewer than others, as they cost 0.2 ms.
OWN_BYTES = 2**27
OWN_TASK_BYTES = 2**24
# Seconds that a run may take there. Where elements take longer, reading is a small part of the work, and tasks that
# need not end with chunks are shared more evenly.
OWN_SECONDS = 0.5
# Blocks may have so many chunks read again, at their ends, as a part of all.
AGAIN = 0.1
# Of more runs their ends are not compared.
MOST_RUNS = 2**20


class FileTasks:
    """Decides which arrays of a call workers open themselves, and in which tasks.

    The caller reads what the first element or block needs, and so all of the first chunks.

    Attributes
    ----------
    inputs : list of FileInput or None
        One for each input; None for those that are sent.
    outputs : list of FileOutput
        Those of all arrays in `out`, or none.
    why : str or None
        Why workers do not read any more.
    """

    def __init__(self, call: Call, workers: int) -> None:
        self._call = call
        self.why: str | None = None
        self.inputs: list[FileInput | None] = [_input_of(one) for one in call.inputs]
        self.outputs = FileOutput.of(call)
        self._runs = None if call.vectorized else self._element_runs(workers)
        # The caller reads what is before this element: it needs the first one, and has read ahead.
        self._begin = self._read_so_far()
        self._task_bytes, self._run_seconds = TASK_BYTES, math.inf
        if call.vectorized:
            self._check_blocks()
        elif self._runs is None and any(_ends(one) for one in self._read):
            self.inputs = [None] * len(call.inputs)
        self._readers = [one.source.reader for one in self._read if hasattr(one.source, "reader")]
        for reader in self._readers:  # the caller reads no chunk that workers read
            reader.nbytes = 0

    @classmethod
    def of_own_workers(cls, call: Call, workers: int, queue: TaskQueue) -> FileTasks | None:
        """What workers of this machine read and write themselves; None if the caller had better do that.

        Memmaps are not among it: the caller's pages are theirs.
        """
        if not _is_much(call):
            return None
        files = cls(call, workers)
        if None in files.inputs:
            files._read_ahead_again()
            return None
        files._task_bytes, files._run_seconds = OWN_TASK_BYTES, OWN_SECONDS
        files.align(queue)
        return files

    @property
    def _read(self) -> list[Any]:
        """The inputs that workers read."""
        return [one for one, read in zip(self._call.inputs, self.inputs, strict=True) if read is not None]

    def align(self, queue: TaskQueue) -> None:
        """Have the tasks of a queue take whole chunks."""
        queue.align(self._runs, self._task_bytes // max(1, self._row_bytes), self._run_seconds)

    def reads(self, task: Task) -> Sequence[int]:
        """Numbers of the inputs that the worker of a task reads itself."""
        if task.lo < self._begin or (self._runs is not None and not self._runs.are_whole(task.lo, task.hi)):
            return ()
        return [k for k, one in enumerate(self.inputs) if one is not None]

    def give_up(self, queue: TaskQueue, why: str) -> None:
        """Have the caller read all from now on, since a worker could not."""
        self.why, self.inputs, self._runs = why, [None] * len(self.inputs), None
        self._read_ahead_again()
        queue.align(None, 0)

    def _read_ahead_again(self) -> None:
        """Let the caller read ahead again, as workers read nothing."""
        for reader in self._readers:
            reader.nbytes = READ_BYTES

    def _read_so_far(self) -> int:
        """Elements that the caller has read, at least the first one; up to the end of a run."""
        call = self._call
        readers = [] if call.block_grid is not None else [_reader_of(one) for one in call.inputs]
        read = max([1, *(one.elements_read for one in readers if one is not None)])
        return read if self._runs is None else self._runs.around(min(read, call.count) - 1)[1]

    @property
    def _row_bytes(self) -> int:
        """Bytes of the arguments and results of one element."""
        call = self._call
        results = sum(math.prod(out.shape) * int(out.dtype.itemsize) for out in call.out or () if self.outputs)
        return int(sum(one.row_bytes for one in self._read) + results // max(1, call.count))

    def _element_runs(self, workers: int) -> Runs | None:
        """Runs of elements that take whole chunks of all arrays, or at least of those that are read."""
        grid = self._call.grid
        read = [chunk_runs(grid, ends) for one in self._read if (ends := _ends(one)) is not None]
        written = [runs_of(out, self._call.result_axes(len(out.shape)), grid) for out in self._call.out or ()]
        for every in ([*read, *written] if self.outputs else [], read):
            runs = _common(self._call.count, every)
            if runs is not None and self._suit(runs, workers):
                return runs
        return None

    def _suit(self, runs: Runs, workers: int) -> bool:
        count = self._call.count
        enough = len(runs.ends) * (count // max(1, runs.period)) >= LEAST_RUNS * workers
        return enough and runs.longest * self._row_bytes <= RUN_BYTES

    def _check_blocks(self) -> None:
        """Leave arrays to the caller of which blocks would read too many chunks twice."""
        for k, one in enumerate(self._call.inputs):
            ends = None if self.inputs[k] is None else _ends(one)
            if ends is None:
                continue
            if self._chunks_read(ends) > (1 + AGAIN) * math.prod(map(len, ends)):
                self.inputs[k] = None

    def _chunks_read(self, ends: list[list[int]]) -> int:
        """How many chunks all blocks read together, which end at `ends` along each mapped axis."""
        call = self._call
        count = 0
        for lo, hi in call.bounds or ():
            box = call.halo.box(lo, hi) if call.halo is not None else ((lo, hi),)
            spans = [np.searchsorted(one, (a, b - 1), "right") for one, (a, b) in zip(ends, box, strict=True)]
            count += math.prod(int(last - first) + 1 for first, last in spans)
        return count


def file_use(call: Call, output: Output, files: FileTasks | None) -> FileUse:
    """What a call has read, written and held of arrays in files."""
    readers = [reader for one in call.inputs if (reader := _reader_of(one)) is not None]
    why = "" if files is None else files.why or ""
    if files is None and readers and call.settings.executor not in ("threads", "serial"):
        why = "workers of this machine are sent what they need, except of large arrays that they can open themselves"
    elif not why and readers and files is not None and None in files.inputs:
        why = "no other process can open one of the arrays, or its chunks are too few or too large for tasks"
    return FileUse(
        sum(one.bytes_read for one in readers),
        sum(one.nbytes for one in output.sinks),
        sum(one.nbytes_elsewhere for one in output.sinks),
        sum(one.most_held for one in (*readers, *output.sinks)),
        why,
    )


def _is_much(call: Call) -> bool:
    """True if all inputs are in files, and are so large that workers of this machine had better read them."""
    in_files = all(isinstance(one.source, ReadAhead) for one in call.inputs)
    return in_files and sum(one.row_bytes for one in call.inputs) * call.count >= OWN_BYTES


def _reader_of(one: Any) -> Any:
    return getattr(getattr(one, "source", None), "reader", None)


def _input_of(one: Any) -> FileInput | None:
    source = getattr(one, "source", None)
    recipe = recipe_of(getattr(source, "source", source))
    return None if recipe is None or one.as_object else FileInput(one, recipe)


def _ends(one: Any) -> list[list[int]] | None:
    """Where chunks of an input end along its mapped axes; None if it has none."""
    source = getattr(one.source, "source", None)
    every = [None if source is None else chunk_ends(source, axis) for axis in one.axes]
    ends = [end for end in every if end is not None]
    return ends if len(ends) == len(every) else None


def _common(count: int, every: Sequence[Runs | None]) -> Runs | None:
    """Runs that take whole ones of all."""
    runs = [one for one in every if one is not None]
    if len(runs) < len(every) or not runs:
        return None
    if all(one == runs[0] for one in runs):
        return runs[0]
    if any(len(one.ends) * (count // one.period) > MOST_RUNS for one in runs):
        return None
    ends = set.intersection(*({at + end for at in range(0, count, one.period) for end in one.ends} for one in runs))
    return Runs(count, tuple(sorted(ends)))
