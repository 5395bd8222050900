"""An observer that does nothing: for calls that nobody observes, and the base of those that do something."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from typing import Self

    from .._core.indexing import Task
    from .._core.kernel import Outcome


class FileUse(NamedTuple):
    """What the caller has read, written and held of arrays in files, in bytes.

    Attributes
    ----------
    read, written : int
        Bytes that this process has read and written.
    written_elsewhere : int
        Bytes that workers have written themselves.
    held : int
        The most that were held at a time.
    why : str
        Why this process has read them; empty if workers have.
    """

    read: int
    written: int
    written_elsewhere: int
    held: int
    why: str


class NullObserver:
    """Receives what happens in one call, and does nothing; a context manager.

    Its methods cost 30 ns each, so only code that has to compose a text, or to
    read a clock, tests `active` first: it is True if somebody observes the call.
    """

    active = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close(error)

    def close(self, error: BaseException | None) -> None:
        """Receive the end of the call, and the exception that ended it."""

    def took(self, task: Task, outcome: Outcome, worker: object = None) -> None:
        """Receive the outcome of a task, which `worker` computed, or the calling thread if it is None."""

    def skipped(self, task: Task) -> None:
        """Receive a task whose elements stay without a result."""

    def show(self) -> None:
        """Show the progress of the call, if the last time is long enough ago."""

    def finish(self) -> None:
        """Show that the result is complete."""

    def workers_called(self, portable: str | None) -> None:
        """Receive that workers are being started or woken, and why they are portable ones, if they are."""

    def served(self) -> None:
        """Receive that a worker has got a task."""

    def waited(self, since: float) -> None:
        """Receive that the calling thread has waited, since that moment of `time.perf_counter` (seconds)."""

    def staged(self, nbytes: int) -> None:
        """Receive that `nbytes` of arguments were copied for a worker."""

    def read_directly(self, nbytes: int) -> None:
        """Receive that a worker reads `nbytes` of arguments itself."""

    def used_files(self, use: FileUse) -> None:
        """Receive what was done with arrays in files."""

    def explain(self, why: str) -> None:
        """Receive the reason why workers compute nothing of the call."""


#: For calls that nobody observes.
UNOBSERVED = NullObserver()
