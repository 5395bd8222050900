"""A system that lacks what Linux has: `take_away` before parwise is imported, and in its workers before they are."""

from __future__ import annotations

import builtins
import io
import os
import select
import signal
import socket
import sys

#: Functions that Windows lacks, by module.
FUNCTIONS = {
    os: ("fork", "posix_spawn", "memfd_create", "pidfd_open", "eventfd", "sched_getaffinity", "sched_getscheduler",
         "register_at_fork", "getpriority", "getsid", "killpg", "setpgid", "getpgid", "waitid", "fdatasync", "sysconf",
         "pread", "pwrite", "uname", "getresuid", "getresgid", "getuid", "getgid", "getgroups", "O_DIRECTORY"),
    select: ("epoll", "poll"),
    signal: ("pthread_sigmask", "pidfd_send_signal", "SIGQUIT", "SIGCHLD"),
    socket: ("AF_UNIX", "SCM_RIGHTS", "socketpair"),
}  # fmt: skip
MODULES = ("fcntl", "resource", "pwd", "grp", "termios")

#: Functions that macOS lacks.
OF_LINUX = {
    os: ("memfd_create", "pidfd_open", "eventfd", "sched_getaffinity", "sched_getscheduler", "waitid", "fdatasync",
         "posix_fallocate", "posix_fadvise", "pipe2", "getresuid", "getresgid"),
    select: ("epoll",),
    signal: ("pidfd_send_signal",),
    socket: ("MSG_CMSG_CLOEXEC", "MSG_NOSIGNAL"),
}  # fmt: skip


def take_away(functions=FUNCTIONS, modules=MODULES, proc=True):
    """Remove functions and modules from this interpreter, and hide /proc."""
    import multiprocessing.connection
    import multiprocessing.resource_tracker
    import multiprocessing.shared_memory
    import subprocess  # noqa: F401 - all have what they need of this system

    import numpy  # noqa: F401

    for module, names in functions.items():
        for name in names:
            for one in (module, sys.modules.get(f"_{module.__name__}"), sys.modules.get("posix")):
                if one is not None and hasattr(one, name) and (one is not sys.modules["posix"] or module is os):
                    delattr(one, name)
    for name in modules:
        sys.modules[name] = None
    if "pthread_sigmask" in functions.get(signal, ()):
        multiprocessing.resource_tracker._HAVE_SIGMASK = False
    if "socketpair" in functions.get(socket, ()):
        # Sockets in the place of named pipes, but used like those.
        multiprocessing.connection.PipeConnection = multiprocessing.connection.Connection
        socket.socketpair = multiprocessing.connection.socket.socketpair = _pair_over_loopback
    if proc:
        _hide_proc()


def _pair_over_loopback(*_):
    """Python's own `socketpair` of Windows."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other


def _hide_proc():
    def hiding(function):
        def call(path, *args, **kwargs):
            if isinstance(path, (str, bytes)) and os.fsdecode(path).startswith(("/proc", "/sys/fs/cgroup")):
                raise FileNotFoundError(2, "No such file or directory", path)
            return function(path, *args, **kwargs)

        return call

    builtins.open = io.open = hiding(open)
    os.open, os.listdir, os.stat = hiding(os.open), hiding(os.listdir), hiding(os.stat)
