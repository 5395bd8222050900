"""What all asv cases have in common: how they are set up, timed and made small."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.work import WORKERS, Element, loop
from parwise import parallel_apply


class Case(abc.ABC):
    """Some work, done by the plain loop and by parwise.

    A subclass says what the work is. asv passes over classes that are abstract.

    Attributes
    ----------
    params, param_names : sequence
        As asv has them: for each parameter all its values, and its name.
    small_params : sequence
        What stands in for `params` where only working matters.
    calls : int
        Calls in a row that count as one.
    """

    # One call is long enough to be timed by itself, and may be too long to be
    # repeated often. Warm-up, of one call at least, starts the workers.
    number = 1
    repeat = (3, 20, 5.0)
    rounds = 2
    warmup_time = 0.001
    timeout = 120.0

    params: ClassVar[Sequence[Sequence[Any]]]
    param_names: ClassVar[Sequence[str]]
    small_params: ClassVar[Sequence[Sequence[Any]]]
    calls = 1

    @classmethod
    def small(cls) -> type[Case]:
        """Return the same case at a size that takes no time."""
        return type(cls.__name__, (cls,), {"params": cls.small_params, "calls": min(cls.calls, 2)})

    @abc.abstractmethod
    def work(self, *params: Any) -> tuple[Element, np.ndarray]:
        """Make an element function and an array."""

    def setup(self, *params: Any) -> None:
        self.func, self.array = self.work(*params)

    def teardown(self, *params: Any) -> None:
        # asv sets up anew before each repeat: two large arrays need not be there at once.
        del self.func, self.array

    def loop(self) -> np.ndarray:
        return loop(self.func, self.array)

    def parwise(self) -> np.ndarray:
        return parallel_apply(self.func, self.array, workers=WORKERS)


class TimedCase(Case):
    """A case that is measured by its time."""

    def time_loop(self, *params: Any) -> None:
        for _ in range(self.calls):
            self.loop()

    def time_parwise(self, *params: Any) -> None:
        for _ in range(self.calls):
            self.parwise()
