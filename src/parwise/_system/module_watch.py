"""Modules of the user's own that were reloaded, or whose files were edited, since they were imported."""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import sys
import threading
import time
import types
import zlib
from collections.abc import Iterable, Iterator
from importlib.machinery import SourceFileLoader
from typing import Any

from .._clock import clock_gettime_ns, time_ns

_LIBRARIES = ("/site-packages/", "/dist-packages/", os.path.dirname(os.__file__) + "/", "<")
_OWN = os.path.dirname(os.path.dirname(__file__)) + "/"

#: Modification time in nanoseconds, size and checksum of a source file.
Stamp = tuple[int, int, int]


class ModuleWatch:
    """Watches the imported modules of this process that belong to no installed package.

    Attributes
    ----------
    reloads : int
        How often a module was seen to have been reloaded. A worker from before
        may hold the old one.
    stamps : bytes
        Pickled stamps of the files that the modules were imported from, by
        name; None for a file that seems to have been edited since.
    """

    def __init__(self) -> None:
        self.reloads = 0
        self.stamps = pickle.dumps({})
        self._lock = threading.Lock()
        self._count = 0
        self._seen: set[str] = set()
        self._watched: dict[str, tuple[Any, Stamp | None]] = {}

    def look(self) -> None:
        """Look for modules that are new, or were imported again: `importlib.reload` makes a new ``__spec__``."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        modules = sys.modules
        again = {name for name, (spec, _) in self._watched.items() if _spec(modules.get(name)) is not spec}
        self.reloads += bool(again)
        if again or self._count != len(modules):
            self._count = len(modules)
            self._add(again)

    def _add(self, again: set[str]) -> None:
        for name in again:
            del self._watched[name]
        self._seen -= again
        for name, module in list(sys.modules.items()):
            if name in self._seen:
                continue
            self._seen.add(name)
            path = None if name == "__main__" else _own_file(module)
            if path is not None:
                self._watched[name] = _spec(module), _stamp_at_import(module, path)
        self._pack()

    def _pack(self) -> None:
        self.stamps = pickle.dumps({name: stamp for name, (_, stamp) in self._watched.items()})

    def is_edited(self, name: str | None) -> bool:
        """True if a module's file was edited since it was imported: its functions then travel with their code."""
        if name is not None and name not in self._seen:
            self.look()  # a call that is submitted may be packed before its workers are started
        if name is None or name not in self._watched:
            return False
        with self._lock:
            spec, stamp = self._watched.get(name, (None, None))
            path = None if stamp is None else _own_file(sys.modules.get(name))
            if stamp is None or path is None:
                return stamp is None
            with contextlib.suppress(OSError):
                if os.stat(path).st_mtime_ns == stamp[0]:
                    return False
            found = _stamp(path)
            same = found is None or found[1:] == stamp[1:]
            self._watched[name] = spec, found or stamp if same else None
            self._pack()
            return not same


def _spec(module: Any) -> Any:
    # From its dict: some modules import others when an attribute is looked up.
    return module.__dict__.get("__spec__") if isinstance(module, types.ModuleType) else None


def _own_file(module: Any) -> str | None:
    """The source file of a module, unless it belongs to an installed package."""
    path = module.__dict__.get("__file__") if isinstance(module, types.ModuleType) else None
    if not isinstance(path, str) or not path.endswith(".py") or _spec(module) is None:
        return None
    return None if path.startswith(_OWN) or any(folder in path for folder in _LIBRARIES) else path


def _stamp(path: str) -> Stamp | None:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        found = os.fstat(file.fileno())
        return found.st_mtime_ns, found.st_size, zlib.crc32(file.read())
    return None


def _stamp_at_import(module: Any, path: str) -> Stamp | None:
    """The stamp of a module's file; None if it seems to have been edited since the import."""
    stamp = _stamp(path)
    if stamp is None or stamp[0] < _start_of_process() or type(_spec(module).loader) is not SourceFileLoader:
        return stamp
    with contextlib.suppress(Exception):
        code, imported = _code(path), _imported_code(module)
        texts: dict[str, list[types.CodeType]] = {}
        for one in _nested(code):
            texts.setdefault(one.co_qualname, []).append(one)
        # After a reload a module may also hold functions that its file no longer has.
        same = all(one in texts.get(one.co_qualname, [one]) for one in _codes(module.__dict__.values(), path))
        return stamp if same and imported in (None, code) else None
    return None


def _start_of_process() -> int:
    """When this process began at the earliest, in nanoseconds since the epoch; 0 where the system does not tell."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return 0
    if clock_gettime_ns is None:
        return 0
    age = clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * 10**9 // os.sysconf("SC_CLK_TCK")
    return time_ns() - age - 10**9


def _code(path: str) -> types.CodeType:
    """The code of a module's source file as it is now."""
    with open(path, "rb") as file:
        text = file.read()
    code: types.CodeType = compile(text, path, "exec", dont_inherit=True)
    return code


def _imported_code(module: Any) -> types.CodeType | None:
    """The code that the import of a module has left in a file of bytecode, if it has."""
    if sys.dont_write_bytecode:
        return None
    with contextlib.suppress(OSError, TypeError), open(module.__dict__.get("__cached__"), "rb") as file:
        code: types.CodeType = marshal.loads(file.read()[16:])
        return code
    return None


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield one
            yield from _nested(one)


def _codes(values: Iterable[Any], path: str) -> Iterator[types.CodeType]:
    """The code of functions that are defined in a file, and of the methods of classes."""
    for value in values:
        function = getattr(value, "__func__", value) if isinstance(value, (classmethod, staticmethod)) else value
        if isinstance(function, types.FunctionType) and function.__code__.co_filename == path:
            yield function.__code__
        elif isinstance(value, type):
            yield from _codes([one for one in vars(value).values() if not isinstance(one, type)], path)


#: That of this process.
watch = ModuleWatch()


class StampCheck:
    """Finds modules that a worker has imported from other files than the caller."""

    def __init__(self) -> None:
        self._stamps = b""
        self._count = 0
        self._checked: set[str] = set()

    def edited(self, stamps: bytes) -> list[str]:
        """Names of such modules, each once; `stamps` are the caller's, see `ModuleWatch`."""
        if stamps == self._stamps and self._count == len(sys.modules):
            return []
        self._stamps, self._count = stamps, len(sys.modules)
        table: dict[str, Stamp | None] = pickle.loads(stamps)
        new = [name for name in table if name in sys.modules and name not in self._checked]
        self._checked.update(new)
        return [name for name in new if not self._agrees(sys.modules[name], table[name])]

    @staticmethod
    def _agrees(module: Any, stamp: Stamp | None) -> bool:
        path = _own_file(module)
        # None if the file was edited after this process had imported it: it holds the same text as the caller, then.
        found = None if path is None else _stamp_at_import(module, path)
        # The same text may have been written again.
        return found is None or (stamp is not None and found[1:] == stamp[1:])
