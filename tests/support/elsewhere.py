"""A system that lacks what Linux has: `take_away` before parwise is imported, and in its workers before they are.

`refuse` has the kernel refuse a system call, to a process and all that it starts.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import io
import os
import platform
import select
import signal
import socket
import struct
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
#: Numbers of system calls, by processor.
NUMBERS = {
    "x86_64": {"pidfd_open": 434, "memfd_create": 319, "eventfd": 290},
    "aarch64": {"pidfd_open": 434, "memfd_create": 279, "eventfd": 19},
}

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


def refuse(name, code=errno.ENOSYS):
    """Have a seccomp filter refuse a system call, as a kernel without it, or a sandbox (EPERM), does."""
    number = NUMBERS[platform.machine()][name]
    lines = [
        (0x20, 0, 0, 0),  # load the number of the system call
        (0x15, 0, 1, number),  # if it is this one
        (0x06, 0, 0, 0x00050000 | code),  # fail with the code
        (0x06, 0, 0, 0x7FFF0000),  # allow it
    ]
    data = b"".join(struct.pack("HBBI", *line) for line in lines)
    content = ctypes.create_string_buffer(data)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(lines), ctypes.addressof(content)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    # PR_SET_NO_NEW_PRIVS, and PR_SET_SECCOMP with SECCOMP_MODE_FILTER
    if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.addressof(program), 0, 0):
        raise OSError(ctypes.get_errno(), "this machine forbids seccomp filters")
