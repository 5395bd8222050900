"""The first task, which a worker computes too: what it gave in this process, and whether a worker's bits differ."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np

from ..._core.call import Call
from ..._core.inputs.items import is_constant
from ..._core.results import Results, owned, same_results, stacked
from ..._workers.pickling.snapshot import Snapshot

# With fewer items than this the comparison does without one that takes more bytes: its copy would delay the call.
FEW_ITEMS = 32
LARGE_ITEM_BYTES = 2**26


class Comparison:
    """Compares a worker's results of the first task with those of this process.

    Attributes
    ----------
    wanted : bool
        True if results of workers are compared.
    objects : dict
        Objects of the task as they were before the function could change them, by number of the input.
    results : Results or None
        What the task gave here.
    seconds : float
        Time that it took here.
    done : bool
        True once a worker's results have been compared.
    disputed : Results or None
        A worker's results, if they differ.
    """

    def __init__(self, call: Call) -> None:
        settings = call.settings
        self._call = call
        self.wanted = settings.verify is not False and settings.executor not in ("threads", "serial")
        self.wanted &= settings.workers != 1
        self.objects: dict[int, Snapshot] = {}
        self.results: Results | None = None
        self.seconds = 0.0
        self.done = False
        self.disputed: Results | None = None

    def keep_objects(self, objects: Mapping[int, np.ndarray]) -> None:
        """Pickle the objects of the task, which a worker computes again, before the function can change them."""
        items = [item for array in objects.values() for item in array.flat]
        if self._call.count < FEW_ITEMS and any(getattr(one, "nbytes", 0) > LARGE_ITEM_BYTES for one in items):
            self.wanted = False
        elif not all(map(is_constant, items)):
            with contextlib.suppress(Exception):  # told by whoever sends it
                self.objects = {k: Snapshot(array) for k, array in objects.items()}

    def keep(self, results: Results, seconds: float) -> None:
        """Keep the results of this process as they are, and the time that they took."""
        self.seconds = seconds
        if not self.wanted:
            return
        self.results = owned(stacked(results))
        if self._call.form == "list" and not all(map(is_constant, results.columns[0])):  # type: ignore[arg-type]
            # The user gets these objects, and may change them; nor may they be kept alive.
            self.results = None
            with contextlib.suppress(Exception):  # results that cannot be pickled are not compared
                self.results = Results([Snapshot(results.columns[0]).restore()])

    def differ(self, theirs: Results) -> bool:
        """Compare a worker's results; True if they differ, which is noted."""
        self.done = True
        if self.results is None or same_results(self.results, theirs):
            return False
        self.disputed = theirs
        return True
