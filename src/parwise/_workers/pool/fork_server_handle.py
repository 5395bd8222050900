"""The caller's handle of the fork server: its process and its socket."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

from ..._system.interpreter import DeferredInterrupt, close, select
from ..descriptors import open_process
from ..direct.permission import Secret, allow
from ..other_processes import collect_exit, is_stopped, kill
from ..protocol import Channel, socket_pair
from .fork_server_start import start
from .silence import Silence
from .worker_handle import DYING_SECONDS, WorkerHandle

# A fork server that takes longer than this to answer counts as dead.
ANSWER_SECONDS = 1.0


class ForkServerHandle:
    """A fork server, as the caller knows it; there is none if it cannot be started.

    Parameters
    ----------
    variables : dict
        Environment variables that it starts with, besides those of this process.
    cookie : bytes
        What its messages, and those of its workers, begin with.

    Attributes
    ----------
    secret : Secret
        Known to its workers, which find it in this process's memory.
    forked : bool
        True once it has forked a worker.
    silence : Silence
        How long it has owed a worker and done nothing.
    """

    def __init__(self, variables: dict[str, str], cookie: bytes) -> None:
        self.secret = Secret(cookie)  # before anything is open
        own_end, server_end = socket_pair()
        self.channel = Channel(own_end, cookie)
        self.pid, self.pidfd = 0, -1
        self.forked = False
        self.silence = Silence()
        try:
            own_end.setblocking(False)
            with contextlib.closing(server_end):
                own_end.send(cookie)  # before it has started: no other process can read or write here yet
                self.pid = start(server_end, variables)
            # From here on not by its number, which may belong to another process once a handler of the program has
            # waited for it.
            self.pidfd = open_process(self.pid)
            if self.secret.address:
                allow(self.pid)
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        if self.pidfd < 0 < self.pid:  # no descriptor was left for it
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        if self.pidfd >= 0:
            self._end()
        self.close()

    @property
    def ended(self) -> bool:
        """True if it has ended."""
        return self._await_end(0)

    @property
    def stopped(self) -> bool:
        """True if a signal or a debugger has stopped it."""
        return is_stopped(self.pid)

    def collect_exit(self) -> int | None:
        """Exit code, or minus the signal, once it has ended; it is killed if it has only closed its socket."""
        if not self._await_end(ANSWER_SECONDS):
            self._end()
        return collect_exit(self.pidfd)

    def exit_code(self, worker: WorkerHandle, receive: Callable[[tuple[Any, ...], list[int]], None]) -> int | None:
        """Exit code of a dead worker, or minus the signal; None if it cannot tell. `receive` gets other messages."""
        try:
            self.channel.sock.settimeout(ANSWER_SECONDS)
            with DeferredInterrupt():
                self.channel.send("exit_code", worker.pid)
                while True:
                    message, fds = self.channel.receive()
                    if message[:2] == ("exited", worker.pid):
                        code: int | None = message[2]
                        return code
                    receive(message, fds)
        except TimeoutError:
            return None
        except (OSError, EOFError):
            self._await_end(ANSWER_SECONDS)
            return None
        finally:
            self.channel.sock.setblocking(False)

    def kill(self) -> None:
        """Kill it; its workers die with it."""
        kill(self.pidfd)

    def stop(self) -> None:
        """Have it end its workers and itself, wait for that, and close the handle.

        Without that the killed workers become children of process 1. In a container that is this process, or another
        one that does not wait for them, and they stay as zombies. To close the socket is not enough: a process that
        the user forked may hold a copy.
        """
        if self.forked and not self.stopped:
            with contextlib.suppress(OSError):
                self.channel.send("stop")
                self._await_end(ANSWER_SECONDS)
        self._end()
        self.close()

    def _end(self) -> None:
        """Kill it, and wait until it has ended, once the system gives it a CPU: else it would stay as a zombie."""
        self.kill()
        self._await_end(DYING_SECONDS)

    def _await_end(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Close its socket, at which it ends, and wait for it if it has ended."""
        self.channel.close()
        if self.pidfd >= 0:
            collect_exit(self.pidfd)
            close(self.pidfd)
            self.pidfd = -1
