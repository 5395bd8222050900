"""Settings: the options of one call after checks, with every default filled in.

Users pass `Options`; all other code reads `Settings`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from .executors import is_pool

#: Options that ask for worker processes.
_NEED_PROCESSES = ("timeout", "retries", "isolate", "setup", "blas_threads")


class Settings(NamedTuple):
    """The options of one call after checks, with every default filled in.

    Attributes
    ----------
    workers : int or None
        None for the number of CPUs, which takes 0.3 ms to read from cgroup
        files: a small call does without it.
    undecided : bool
        True if nobody has chosen an executor, in a Python without the GIL: `decided` chooses by the function.
    why_executor : str or None
        Reason for that choice.
    """

    workers: int | None = None
    executor: Any = "processes"
    isolate: bool = False
    verify: bool | Literal["full"] | None = None
    blas_threads: int | Literal["inherit"] | None = None
    progress: Any = None
    errors: Literal["raise", "ignore"] = "raise"
    timeout: float | None = None
    retries: int = 0
    setup: Callable[[], object] | None = None
    resume: str | None = None
    undecided: bool = False
    why_executor: str | None = None

    def decided(self, find_change: Callable[[], str | None]) -> Settings:
        """Settings with threads, unless an option needs processes, or calls at the same time would change something.

        `find_change` returns that in words; see `shared_change`.
        """
        needs = [name for name in _NEED_PROCESSES if getattr(self, name) not in (None, False, 0, "inherit")]
        why = f"{needs[0]} is for worker processes" if needs else find_change()
        if why is None:
            why = "this Python has no GIL, so threads compute at the same time"
            return self._replace(executor="threads", undecided=False, why_executor=why)
        return self._replace(undecided=False, why_executor=f"threads were not taken: {why}")

    @property
    def ignore(self) -> bool:
        """True if errors are gaps in the result."""
        return self.errors == "ignore"

    @property
    def shares_globals(self) -> bool:
        """True if functions find globals that an initializer or `setup` has set."""
        return self.setup is not None or (is_pool(self.executor) and bool(self.executor.initialized))

    @property
    def needs_killable_workers(self) -> bool:
        """True if timeout or retries need workers that parwise can kill."""
        return self.timeout is not None or self.retries > 0

    @property
    def needs_runner(self) -> bool:
        """True if an option asks for more than a plain loop does: isolation, gaps, a check, progress, a setup."""
        asked = self.isolate or self.ignore or self.verify or self.progress is not None
        return bool(asked or self.setup is not None or self.resume is not None)

    @property
    def needs_own_workers(self) -> bool:
        """True if a call changes workers, or may end some, and so cannot share them with calls of a pool."""
        return self.needs_killable_workers or self.setup is not None

    def serial_reason(self, tasks: int, nested: bool, what: str = "element") -> str | None:
        """The reason why a call of `tasks` tasks can only be a plain loop, if settings and size tell."""
        if self.executor == "serial":
            return "executor='serial'"
        if nested:
            return "it was called within a mapped function"
        if not tasks:
            return "there was nothing to compute"
        if self.isolate or not (isinstance(self.executor, str) or is_pool(self.executor)):
            return None
        if self.workers == 1:
            return "workers=1"
        return f"there is one {what} only" if tasks < 2 else None
