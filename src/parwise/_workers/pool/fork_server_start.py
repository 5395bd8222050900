"""Starts a fork server: its command line, its environment, its descriptors."""

from __future__ import annotations

import errno
import os
import sys

from ..._core.nesting import FORK_SERVER
from ..._system.blas import THREAD_VARIABLES
from ..._system.inheritance import starts_elsewhere
from ..._system.interpreter import absolute_path, as_started, find_python, packages_elsewhere, start_variables
from ..._system.platforms.here import SIGNALS_AT_REST
from ...errors import NoWorkersError
from ..descriptors import standard_files
from ..protocol import Socket

# Set to 1 while the fork server imports NumPy: BLAS must start no threads before a fork.
ONE_THREAD = tuple(THREAD_VARIABLES.values())
# OpenBLAS's threads wait by spinning, for 2**26 cycles, and keep other threads
# off the CPUs; in workers they sleep at once.
SLEEP_AT_ONCE = {"OPENBLAS_THREAD_TIMEOUT": "4"}

#: Options of an interpreter, by their names in `sys.flags`.
_LETTERS = {
    "debug": "d",
    "optimize": "O",
    "dont_write_bytecode": "B",
    "no_user_site": "s",
    "no_site": "S",
    "ignore_environment": "E",
    "isolated": "I",
    "verbose": "v",
    "bytes_warning": "b",
    "quiet": "q",
}

# Imports a package from a folder that is not in the path: the caller has found it by the entry "".
IMPORT = """
from importlib import machinery, util
spec = machinery.PathFinder.find_spec({name!r}, [{folder!r}])
sys.modules[{name!r}] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[{name!r}])
"""

#: Descriptor of its end of the control socket.
CONTROL_FD = 3


def start(control: Socket, variables: dict[str, str]) -> int:
    """Start a fork server, a new interpreter and no fork of this process, and return its process id."""
    if starts_elsewhere():
        raise NoWorkersError(
            "worker processes cannot be started: this process has called unshare, so its children would "
            "be in PID or time namespaces different from its own; make the call in such a child, or use "
            "executor='threads'"
        )
    python = find_python()
    command = _command(python)
    try:
        return os.posix_spawn(
            command[0],
            command,
            {**start_variables(), **dict.fromkeys(ONE_THREAD, "1"), **SLEEP_AT_ONCE, **variables},
            file_actions=[(os.POSIX_SPAWN_DUP2, control.fileno(), CONTROL_FD), *standard_files()],
            setpgroup=0,
            setsigmask=(),
            setsigdef=SIGNALS_AT_REST,
        )
    except OSError as error:
        raise refused("the process that starts workers", error) from error


def refused(what: str, error: OSError) -> NoWorkersError:
    """Why the system has not started a process, and the remedy."""
    remedy = "raise the limits on processes and memory"
    if error.errno == errno.E2BIG:
        remedy = "shorten the environment variables and sys.path, which are too long for a new process"
    return NoWorkersError(f"{what} could not be started ({error}); {remedy}, or use executor='threads'")


def _command(python: str | None) -> list[str]:
    """Command line of a fork server, with this interpreter's flags, and the absolute part of its module path.

    ``-P`` keeps the working directory off the path: a ``random.py`` there must
    not be imported in place of the standard library's. Workers get the whole
    path with each call. A frozen program reads its command line in
    `parwise.freeze_support`.
    """
    if python is None:
        return [sys.executable, FORK_SERVER, str(os.getpid())]
    path = absolute_path()
    lines = [f"import gc, sys; gc.disable(); sys.path[:] = {path!r}"]
    lines += [IMPORT.format(name=name, folder=folder) for name, folder in packages_elsewhere(path)]
    lines += [f"from parwise._workers.fork_server import main; main({os.getpid()})"]
    return [python, *flags(), "-P", "-c", "\n".join(lines), FORK_SERVER]


def flags() -> list[str]:
    """Command line options of this interpreter.

    `subprocess` has such a function, but its import takes 8 ms.
    """
    letters = [letter * getattr(sys.flags, name) for name, letter in _LETTERS.items()]
    options = {name: as_started(str(v)) if name == "pycache_prefix" else v for name, v in sys._xoptions.items()}
    named = [name if value is True else f"{name}={value}" for name, value in options.items()]
    return [
        *("-" + letter for letter in letters if letter),
        *("-W" + one for one in sys.warnoptions),
        *("-X" + one for one in named),
    ]
