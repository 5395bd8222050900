"""Starts a worker: its command line, its environment, what it inherits, and the first things that it is told."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from multiprocessing import reduction
from typing import Any

from ..._core.nesting import FORK_SERVER
from ..._core.options.defaults import PORTABLE
from ..._system.interpreter import absolute_path, find_python, packages_elsewhere, start_variables
from ..descriptors import is_inherited
from ..pickling.multiprocessing_objects import Attachments, spawning
from ..pool.fork_server_start import IMPORT, ONE_THREAD, SLEEP_AT_ONCE, flags, refused
from .channel import PortableChannel

# The path comes by the connection: a command line has room for 128 kB. `-P` keeps the working directory off it.
_COMMAND = """
import gc, sys; gc.disable()
from multiprocessing import connection
import pickle
own = (getattr(connection, "PipeConnection", None) or connection.Connection)({handle})
try:
    sys.path[:], lines = pickle.loads(own.recv_bytes())
except (EOFError, ConnectionError):  # the caller has ended
    sys.exit()
exec(lines)
from parwise._workers.portable.process import main; main(own)
"""


def start(connection: Any, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that gets a connection; it knows nothing yet."""
    python = find_python()
    handle = connection.fileno()
    more: dict[str, Any] = {}
    launcher: dict[str, str] = {}
    if python is None:  # a frozen program, which reads this in `parwise.freeze_support`
        command = [sys.executable, FORK_SERVER, PORTABLE, str(handle)]
    else:
        if os.name == "nt":
            python, launcher = behind_launcher(python)
        command = [python, *flags(), "-P", "-c", _COMMAND.format(handle=handle), FORK_SERVER]
    if os.name == "nt":
        os.set_handle_inheritable(handle, True)  # type: ignore[attr-defined]
        info = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})  # type: ignore[attr-defined]
        more = {"startupinfo": info, "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
    else:
        more = {"pass_fds": [handle], "process_group": 0}
        more |= {name: subprocess.DEVNULL for name, fd in (("stdout", 1), ("stderr", 2)) if not is_inherited(fd)}
    env = {**start_variables(), **dict.fromkeys(ONE_THREAD, "1"), **SLEEP_AT_ONCE, **launcher, **variables}
    try:
        return _Process(command, stdin=subprocess.DEVNULL, env=env, **more)
    except OSError as error:
        raise refused("a worker process", error) from error


def behind_launcher(python: str) -> tuple[str, dict[str, str]]:
    """The interpreter that `python` starts, and the variable by which that knows its virtual environment.

    On Windows ``python.exe`` of such an environment starts another process, which would not have the handles that are
    given to the first (bpo-35797).
    """
    base = getattr(sys, "_base_executable", None) or python
    if os.path.normcase(python) != os.path.normcase(sys.executable) or os.path.normcase(base) == os.path.normcase(
        python
    ):
        return python, {}
    return base, {"__PYVENV_LAUNCHER__": python}


def tell(channel: PortableChannel, process: subprocess.Popen[bytes], *told: Any) -> None:
    """Tell a process where its modules are, and what `main` in `process.py` expects."""
    path = absolute_path()
    lines = "".join(IMPORT.format(name=one, folder=folder) for one, folder in packages_elsewhere(path))
    channel.tell(pickle.dumps((path, lines)))
    with spawning(_Starting(process)):
        channel.tell(bytes(reduction.ForkingPickler.dumps((os.getpid(), *told))))


class _Process(subprocess.Popen[bytes]):
    """A process that its pool waits for."""

    __del__: Any = object.__hash__  # C code: that of `Popen` is Python, in which a Ctrl-C is lost


class _Starting(Attachments):
    """Stands for the process where multiprocessing pickles a semaphore: a name on Unix, a handle on Windows."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self._process = process

    def duplicate_for_child(self, handle: int) -> Any:
        """The handle in the process."""
        return reduction.duplicate(handle, int(self._process._handle))  # type: ignore[attr-defined]
