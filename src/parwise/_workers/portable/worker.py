"""The caller's handle of a portable worker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Any

from ..._clock import monotonic, sleep
from ..._system.interpreter import DeferredInterrupt
from ..other_processes import descendants
from ..pool.worker_handle import DYING_SECONDS, STACK_SECONDS, WorkerHandle
from ..shared_memory import segment_bytes
from .channel import PortableChannel
from .memory import PortableSlots, Segment, make_claims
from .start import start, tell
from .wire import open_ends

_POLL_SECONDS = 0.001


class PortableWorker(WorkerHandle):
    """One worker, a child of this process.

    Parameters
    ----------
    key, slot_bytes, cookie
        As in `WorkerHandle`.
    variables : dict
        Environment variables that it starts with, besides those of this process.
    """

    process: subprocess.Popen[bytes]

    def __init__(self, key: int, slot_bytes: int, cookie: bytes, variables: dict[str, str]) -> None:
        self._variables = variables
        # Its exit code, as soon as that is known; True once its number may be another's.
        self._code: int | None = None
        self._waited_for = False
        super().__init__(key, slot_bytes, cookie)
        self.pid = self.process.pid

    def _open(self, slot_bytes: int, cookie: bytes) -> tuple[PortableChannel, PortableSlots]:
        with contextlib.ExitStack() as undo:
            own_end, self._worker_end = open_ends()
            undo.callback(own_end.close)
            undo.callback(self._worker_end.close)
            # Before anything has a name: where no process starts, neither does the tracker that would remove it.
            self.process = start(self._worker_end, self._variables)
            undo.callback(self.process.wait)
            undo.callback(self.process.kill)
            self._segment = Segment(create=True, size=segment_bytes(slot_bytes))
            undo.callback(self._segment.unlink)
            self._segment.take_room()
            slots = PortableSlots(self._segment, slot_bytes, make_claims())
            undo.pop_all()
        self._named = True
        return PortableChannel(own_end, cookie), slots

    def introduce(self) -> None:
        """Tell the process all that it needs."""
        channel, slots = self.channel, self.slots
        assert isinstance(channel, PortableChannel)
        assert isinstance(slots, PortableSlots)
        self._worker_end.close()
        with contextlib.suppress(ConnectionError):  # it has ended; `wait` reports that
            tell(channel, self.process, self._segment.name, slots.slot_bytes, channel.cookie, slots.claims)

    def hear(self, kind: str, *content: Any) -> None:
        """As in `WorkerHandle`; from here on both sides have the memory, and nobody needs its name."""
        super().hear(kind, *content)
        if kind == "ready":
            self._remove_name()

    def _remove_name(self) -> None:
        # An interrupt between its end and that of its note would have the resource tracker complain.
        with DeferredInterrupt():
            if self._named:
                self._named = False
                with contextlib.suppress(OSError):
                    self._segment.unlink()

    @property
    def over(self) -> bool:
        """True if the worker has ended."""
        return self._ends_within(0)

    def _ends_within(self, seconds: float) -> bool:
        deadline = monotonic() + seconds
        while not self._has_ended():
            if monotonic() >= deadline:
                return False
            sleep(_POLL_SECONDS)
        return True

    def _has_ended(self) -> bool:
        """True if the process has ended; it keeps its number, where the system has the call for that."""
        if self.process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS, up to Python 3.12
            self._code = self.process.poll()
            if self._code is not None:
                self._waited_for = True
                self._kill_group()
            return self._code is not None
        try:
            info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # something in the program has waited for it, or SIGCHLD is ignored
            self._waited_for = True
            return True
        if info is not None:
            self._code = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
        return info is not None

    def kill(self) -> None:
        """Kill the worker and the processes that it started."""
        if self.process.returncode is None:
            self._has_ended()
            self._kill_group()
            self.process.kill()

    def _kill_group(self) -> None:
        if hasattr(os, "killpg") and not (self._waited_for and _is_taken(self.pid)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def kill_with_stack(self) -> None:
        """As in `WorkerHandle`, if the system has a signal for the stack, and tells what the worker has started."""
        started = descendants(self.pid)
        if not self.over and os.name == "posix":
            self.process.terminate()
            self._ends_within(STACK_SECONDS)
        self.kill()
        for pid in started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def collect_exit(self) -> int | None:
        """Exit code of the worker, or minus the signal; None if it does not end, or another has waited for it."""
        self._ends_within(DYING_SECONDS)
        self.kill()  # what it started, as long as its number is its own
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(DYING_SECONDS)
            if self._code is None:
                return code or None  # `subprocess` says 0 if it does not know
        return self._code

    def end_orphans(self) -> None:
        """Do nothing: what it started has been killed with it."""

    def close(self) -> None:
        """Close the connection and kill the process, which is waited for later."""
        self.sender = self.receiver = None
        self.kill()
        self.channel.close()
        self._worker_end.close()
        self._remove_name()


def _is_taken(pid: int) -> bool:
    """True if there is a process of that number; that of a group is not given to one as long as there are members."""
    try:
        os.getpgid(pid)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
