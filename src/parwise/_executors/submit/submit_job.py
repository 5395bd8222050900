"""The job of submitted calls, whose results go to futures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..._core.call import Call
from ..._core.indexing import Task
from ..._core.inputs.items import ENDLESS, ItemColumn
from ..._core.options.settings import Settings
from ..._system.surroundings import CallerState
from ..._workers.pickling.multiprocessing_objects import attached
from ..._workers.pickling.sent_definitions import Definitions
from ..._workers.protocol import checksum
from ..._workers.worker.calls import perform, unpack_result
from ...errors import WorkerDiedError
from ..job.job import Job
from .work_queue import WorkQueue


class SubmitJob(Job):
    """A job without an end, whose results go to futures."""

    task_message = "calls"

    def __init__(self, items: WorkQueue, workers: int) -> None:
        settings = Settings(workers=workers, isolate=True, verify=False, errors="ignore")
        feed: Any = items
        columns: Any = (ItemColumn(feed, 0),)
        grid = (ENDLESS,)
        call = Call(perform, columns, (), {}, False, (0,), grid, None, None, None, None, settings, feed, "list", items)
        super().__init__(call)
        self.items = items
        self.state = items.update()
        self.open()
        self.queue = feed
        # What replaying the output of calls has raised, which have no result yet.
        self._errors: dict[int, BaseException] = {}

    def stage(self, task: Task, get_memory: Callable[[int], Any]) -> Any:
        """Copy the pickles of calls to memory that a worker sees; return their sizes, their checksum, attachments."""
        packed = self.items.items(0, task.lo, task.hi)
        data = packed[0] if len(packed) == 1 else b"".join(packed)
        memoryview(get_memory(len(data)))[: len(data)] = data
        return list(map(len, packed)), checksum(data), attached(packed)

    def needed_parts(self, task: Task) -> tuple[Definitions, list[int]]:
        """The parts of definitions that calls need; if some need any, all have the same definitions."""
        items = map(self.items.item, range(task.lo, task.hi))
        needed = [(item.definitions, item.parts) for item in items if item.definitions and item.parts]
        if not needed:
            return self.definitions, []
        return needed[0][0], sorted({part for _, parts in needed for part in parts})

    def answer(self, index: int, packed: Any) -> None:
        """Hand the result of a call to its future."""
        item = self.items.close(index)
        assert item is not None
        done, value = unpack_result(packed)
        if error := self._errors.pop(index, None):
            done, value = False, error
        (item.future.set_result if done else item.future.set_exception)(value)

    def state_for(self, task: Task) -> CallerState | None:
        """What surrounded a call when it was submitted."""
        return self.items.state_at(task.lo)

    def repeat(self) -> None:
        """Replay the output of calls, which have no order.

        What that raises is the exception of its call, as where the function itself prints: a warning that a filter
        turns into an error, or a closed `sys.stdout`. It ends no other call, nor one where it is an initializer's.
        """
        for one in self.output_replay.take_due(everything=True):
            try:
                one.repeat(self.call.func)
            except Exception as error:
                self._fail(one.element, error)

    def _fail(self, index: int, error: Exception) -> None:
        if not self.items.is_open(index):
            threading.excepthook(
                threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
            )
        elif self._errors.setdefault(index, error) is error:
            error.add_note(f"while the output of a call of {self.items.item(index).name} was replayed")

    def skip(self, task: Task, error: BaseException) -> None:
        """Hand the death of its worker to the future of a call."""
        item = self.items.close(task.lo)
        self._errors.pop(task.lo, None)
        if item is not None:
            if isinstance(error, WorkerDiedError):
                error.index = None
            item.future.set_exception(error)
        self.output_replay.close(task.lo, task.hi)
