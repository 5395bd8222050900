"""Processes that owe an answer and do nothing."""

from __future__ import annotations

from ..other_processes import is_stopped, used

# A process that owes an answer and uses no CPU counts as silent after so long, if a signal or a debugger has stopped it
# and otherwise. The second is long since the import of a module may wait for a network.
STOPPED_SECONDS = 5.0
SILENT_SECONDS = 60.0


class Silence:
    """How long a process has owed an answer and used no CPU, as far as it was looked at.

    Attributes
    ----------
    stopped : bool
        True if a signal or a debugger had stopped it at the last look.
    told : bool
        True once the user has been told.
    """

    def __init__(self) -> None:
        # What was heard of it, and the CPU time that it had used, at the last look.
        self._heard: object = None
        self._used: object = None
        self.seconds = 0.0
        self.stopped = self.told = False

    def look(self, pid: int, heard: object, elapsed: float) -> None:
        """Look at a process that owes an answer; `heard` changes with whatever is heard of it in other ways."""
        if heard != self._heard:  # it is not silent: to read that it uses CPU takes 0.1 ms, for each of 64 workers
            self.end()
            self._heard = heard
            return
        now = used(pid)
        self.seconds = self.seconds + elapsed if now == self._used else 0.0
        self._used, self.stopped = now, is_stopped(pid)

    def end(self) -> None:
        """Note that the process owes nothing."""
        self._heard, self._used, self.seconds = None, None, 0.0

    @property
    def too_long(self) -> bool:
        """True if the process is silent."""
        return self.seconds >= (STOPPED_SECONDS if self.stopped else SILENT_SECONDS)

    @property
    def words(self) -> str:
        """What was seen, for an error or a warning."""
        return f"{'been stopped' if self.stopped else 'done nothing'} for {self.seconds:.0f} s"
