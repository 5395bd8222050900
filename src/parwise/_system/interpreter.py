"""Python interpreter: how to start another one, its module path, SIGINT deferred, switch interval of the GIL."""

from __future__ import annotations

import _thread
import importlib
import os
import select as _select
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from ..errors import STARTED_IN, NoWorkersError

# `signal`'s own functions turn handlers into enums and back, which takes 12 us for a block.
_plain: Any = sys.modules.get("_signal", signal)


def _second_instance(module: Any) -> Any:
    """A new instance of a C module of the standard library, without the patches that the first one has got."""
    spec = module.__spec__
    fresh = spec.loader.create_module(spec)
    spec.loader.exec_module(fresh)
    return fresh


#: `os.close` as Python has it: that of gevent (from 25.8.1 on) closes a descriptor only when its hub runs next.
close: Any = sys.modules[os.name].close

#: `select` as Python has it: gevent and eventlet delete `epoll`, and replace `poll` by a function that runs other work.
select: Any = _second_instance(_select)


def starts_threads() -> bool:
    """True unless gevent or eventlet start a greenlet instead, which stops all others while it waits."""
    module: str = getattr(_thread.start_new_thread, "__module__", None) or ""
    return module.partition(".")[0] not in ("gevent", "eventlet")


class DeferredInterrupt:
    """Defers SIGINT for a ``with`` block, and raises it at the end of the block.

    For a few lines that open or close descriptors, or take a lock: an exception
    between a system call and the assignment of its result would lose the
    result. Blocking the signal is not enough: another thread of the process
    (BLAS has some) would receive it, and the main thread be interrupted anyway.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._pending = False

    def __enter__(self) -> DeferredInterrupt:
        # Python interrupts the main thread only; a handler that was not set from Python cannot be restored.
        # (`current_thread` would leave an entry for each thread that `threading` does not know.)
        if threading.get_ident() == threading.main_thread().ident and _plain.getsignal(signal.SIGINT) is not None:
            self._before = _plain.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending = True

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._before is not None:
            _plain.signal(signal.SIGINT, self._before)
            if self._pending:
                signal.raise_signal(signal.SIGINT)


#: True once this program has called `parwise.freeze_support`.
serves_frozen = False


def _looks_like_python(path: str | None) -> bool:
    """True if a program is a Python interpreter by its name: python3.11, pypy, mayapy, hython."""
    names = {os.path.basename(one).lower() for one in (path, os.path.realpath(path))} if path else set()
    return any("py" in name or "ython" in name for name in names)


def find_python() -> str | None:
    """Path of a Python interpreter for other processes; None if this program serves as one itself.

    Raises
    ------
    NoWorkersError
        If there is none: to start `sys.executable` of a frozen program, or of one that embeds Python, would run the
        whole program again.
    """
    spawn = sys.modules.get("multiprocessing.spawn")
    chosen = os.fsdecode(spawn.get_executable() or "") if spawn is not None else ""
    if chosen != sys.executable and _looks_like_python(chosen):
        return chosen
    frozen = getattr(sys, "frozen", False)
    if not frozen and _looks_like_python(sys.executable):
        return sys.executable
    if serves_frozen and sys.executable:
        return None
    if frozen:
        raise NoWorkersError(
            f"worker processes cannot be started: this program is frozen, and {sys.executable!r} would "
            "run as a whole again; call parwise.freeze_support() at the start of its main module, or use "
            "executor='threads'"
        )
    raise NoWorkersError(
        f"worker processes need a Python interpreter, but sys.executable is {sys.executable!r}; name "
        "one with multiprocessing.set_executable(path), or use executor='threads'"
    )


# The module path. Python makes relative entries absolute as it first needs them, and not again when the program goes to
# another directory; a process that was started there would read other files.


def known_entries() -> dict[str, str]:
    """Folders that relative entries of `sys.path` stand for, as far as this interpreter has searched them.

    The entry ``""`` is not among them: it stands for the working directory at each moment.
    """
    found = {}
    for entry in sys.path:
        if isinstance(entry, str) and entry and entry[0] != os.sep:
            folder = getattr(sys.path_importer_cache.get(entry), "path", "")
            if os.path.isabs(folder):
                found[entry] = folder
    return found


def resolve_entries(known: dict[str, str]) -> None:
    """Have relative entries of `sys.path` stand for what `known_entries` has told of another process."""
    for entry in sys.path:
        if isinstance(entry, str) and entry[:1] != os.sep:
            if entry not in known:
                sys.path_importer_cache.pop(entry, None)
            elif getattr(sys.path_importer_cache.get(entry), "path", None) != known[entry]:
                get_importer = importlib.import_module("pkgutil").get_importer  # hardly ever needed
                sys.path_importer_cache[entry] = get_importer(known[entry])


def absolute_path() -> list[str]:
    """`sys.path` for another process: without what depends on the directory in which that is started."""
    known = known_entries()
    return [known.get(one, one) for one in sys.path if isinstance(one, str) and (os.path.isabs(one) or one in known)]


#: Packages that each worker has, imported from where this interpreter has them.
CARRIED = ("numpy", __name__.partition(".")[0])


def packages_elsewhere(path: list[str]) -> Iterator[tuple[str, str]]:
    """Names of parwise and NumPy, and where they lie, if this interpreter has found them by no entry of `path`."""
    for name in CARRIED:
        package = sys.modules[name]
        home = os.path.dirname(package.__file__ or "")
        folder = os.path.dirname(home)
        # An import hook, as of an editable installation, finds them again, and may have found them in parts.
        if list(package.__path__) == [home] and os.path.isabs(folder) and folder not in path:
            yield name, folder


# What Python reads at its start, and whether that may have several entries.
_FOLDERS = {"PYTHONHOME": True, "PYTHONPATH": True, "PYTHONPYCACHEPREFIX": False, "PYTHONUSERBASE": False}


def start_variables() -> dict[str, str]:
    """Environment variables for another interpreter, its folders as this one has taken them at its start.

    A relative one is left out if that is not known.
    """
    variables = dict(os.environ)
    for name, several in _FOLDERS.items():
        if value := variables.get(name):
            entries = value.split(os.pathsep) if several else [value]
            variables[name] = os.pathsep.join(
                filter(None, (as_started(entry, name == "PYTHONPATH") for entry in entries))
            )
    return variables


def as_started(entry: str, searched: bool = False) -> str:
    """What a relative folder meant when this interpreter started; "" if that is not known.

    One that is `searched` for modules is in `sys.path`, unless the program had left its first directory before it
    imported parwise.
    """
    if os.path.isabs(entry):
        return entry
    folder = os.path.normpath(os.path.join(STARTED_IN or "", entry))
    return folder if os.path.isabs(folder) and (not searched or folder in sys.path) else ""


# Switch interval of the GIL while a helper thread works.
SWITCH_SECONDS = 0.00001


class ShortSwitchInterval:
    """Shortens the GIL switch interval to `SWITCH_SECONDS` while at least one thread needs that.

    A thread releases the GIL in every system call, and a function in pure
    Python gives it back only after the switch interval. With the default of
    5 ms, looking for BLAS threads took 0.4 s and starting workers half a
    second. The interval belongs to the process, so the last thread that ends
    restores it.
    """

    def __init__(self) -> None:
        self._users = 0
        self._before = 0.0
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Count one more thread; the first one shortens the interval."""
        with self._lock:
            if not self._users:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_SECONDS)
            self._users += 1

    def release(self) -> None:
        """Count one thread less; the last one restores the interval."""
        with self._lock:
            self._users -= 1
            if not self._users:
                sys.setswitchinterval(self._before)


#: The one of this process.
short_switch_interval = ShortSwitchInterval()
