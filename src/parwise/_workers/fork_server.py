"""The fork server, a process that workers are forked from.

It has one thread, imports NumPy but never the user's ``__main__``, and forks a
ready worker in about 4 ms. It ends when its caller does, however that ends, and
kills its workers then.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import signal
import sys

from .._system.blas import libraries
from .._system.interpreter import (
    close,
    select,
)
from .descriptors import open_process
from .direct.access import CallerMemory
from .other_processes import end_group, has_children
from .pool.fork_server_start import CONTROL_FD
from .protocol import COOKIE_BYTES, Channel, ForeignBytesError, blocking_socket
from .shared_memory import Slots
from .worker.main import serve

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
# Time after which children of dead workers, which have been killed, are looked for again.
ADOPTED_MS = 50
# A killed worker that has not ended after this time is reported without an exit code.
DYING_MS = 500
# A worker gets its socket and its shared memory.
_WORKER_FDS = 2


def main(parent: int) -> None:
    """Run a fork server until the process `parent` ends."""
    _close_inherited()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prctl(_PR_SET_NAME, b"parwise-fork")
    # Children of a dead worker become its own, which waits for them. As process 1 of a container the caller would get
    # them, and leave zombies.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        watch = open_process(parent)
    except ProcessLookupError:  # it has ended, as forked children do soon
        os._exit(0)
    if os.getppid() != parent:  # its number belongs to another process already
        os._exit(0)
    sock = blocking_socket(CONTROL_FD)
    os.set_inheritable(CONTROL_FD, False)
    control = Channel(sock, sock.recv(COOKIE_BYTES))
    libraries()  # or each worker would search for them
    # These objects stay for ever: freeze them, or a garbage collection in a worker
    # would write to, and so copy, their pages. It was off during the imports, which
    # saves 10 ms.
    gc.freeze()
    gc.enable()
    ForkServer(control, watch, parent).run()


class ForkServer:
    """Forks workers, and keeps their exit codes.

    Parameters
    ----------
    control : Channel
        Connects it with the caller.
    watch : int
        A pidfd of the caller: the socket alone does not show the caller's death
        while a process that the caller forked holds a copy.
    parent : int
        The caller's process id.
    """

    def __init__(self, control: Channel, watch: int, parent: int) -> None:
        self._control = control
        self._parent = parent
        self._watch = watch
        self._poll = select.poll()
        self._poll.register(watch, select.POLLIN)
        self._poll.register(control, select.POLLIN)
        self._alive: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        # Ended workers whose own children, which this process has adopted, may not have ended yet.
        self._adopted: set[int] = set()

    def run(self) -> None:
        """Answer messages until the caller ends."""
        while True:
            for fd, _ in self._poll.poll(ADOPTED_MS if self._adopted else None):
                if fd in self._alive:
                    self._collect_exit(fd)
                elif fd == self._watch:
                    for pid in self._alive.values():
                        end_group(pid)
                    os._exit(0)
                elif fd == self._control.fileno():  # and no worker's whose exit an answer has just collected
                    self._answer()
            self._adopted = {one for one in self._adopted if has_children(one, os.WNOHANG)}

    def _answer(self) -> None:
        try:
            (kind, *content), fds = self._control.receive()
            if kind == "fork":
                self._fork(fds, *content)
            elif kind == "stop":
                self._stop()
            else:
                self._send_exit_code(*content)
        except ForeignBytesError:
            self._control.refuse()
            os._exit(0)
        except (EOFError, OSError):
            os._exit(0)

    def _collect_exit(self, pidfd: int) -> None:
        pid = self._alive.pop(pidfd)
        # End also the processes that it started. Before waitpid no other process
        # can have its number, which is that of its group too.
        end_group(pid)
        self._ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._adopted.add(pid)
        self._poll.unregister(pidfd)
        close(pidfd)

    def _stop(self) -> None:
        """End all workers, and wait for them and their children."""
        for pid in self._alive.values():
            end_group(pid)
        for pid in [*self._alive.values(), *self._adopted]:
            while has_children(pid):
                pass
        os._exit(0)

    def _send_exit_code(self, pid: int) -> None:
        """Report how a worker ended that the caller has found dead, or has killed."""
        for pidfd in [pidfd for pidfd, one in self._alive.items() if one == pid]:
            # Not waitpid alone: a process that waits for a device, or is frozen, dies only when it runs again.
            one = select.poll()
            one.register(pidfd, select.POLLIN)
            if one.poll(DYING_MS):
                self._collect_exit(pidfd)
        self._control.send("exited", pid, self._ended.pop(pid, None))

    def _fork(self, fds: list[int], key: int, slot_bytes: int, secret: int) -> None:
        try:
            if len(fds) != _WORKER_FDS:  # the system drops those that it has no room for
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            pid, pidfd = self._fork_worker(fds, slot_bytes, secret)
        except OSError as error:  # too many processes or open files, or no memory
            self._control.send("fork_failed", key, str(error))
        else:
            self._control.send("forked", key, pid, fds=[pidfd])
        finally:
            for fd in fds:
                close(fd)

    def _fork_worker(self, fds: list[int], slot_bytes: int, secret: int) -> tuple[int, int]:
        """Fork a worker; return its process id and a pidfd."""
        server_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._become_worker(server_pid, fds, slot_bytes, secret)
            finally:
                os._exit(1)
        with contextlib.suppress(OSError):  # the worker does so too, and may have ended
            os.setpgid(pid, pid)
        try:
            pidfd = open_process(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._alive[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        return pid, pidfd

    def _become_worker(self, server_pid: int, fds: list[int], slot_bytes: int, secret: int) -> None:
        # The system sends this signal when the *thread* that forked ends; the fork
        # server has only one.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server_pid:
            return
        _prctl(_PR_SET_NAME, b"parwise-worker")
        os.setpgid(0, 0)
        self._control.sock.close()
        for fd in (self._watch, *self._alive):
            close(fd)
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:  # or every worker would draw the same numbers
            numpy_random.seed()
        sock, segment = fds
        cookie = self._control.cookie
        channel = Channel(blocking_socket(sock), cookie)
        serve(channel, Slots(segment, slot_bytes), CallerMemory(self._parent, secret, cookie))


def _close_inherited() -> None:
    """Close descriptors that a C library of the caller left inheritable."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > CONTROL_FD:
            with contextlib.suppress(OSError):
                close(int(name))


def _prctl(option: int, value: int | bytes) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
