"""What surrounds a function in the caller, and how a worker follows it."""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import ReproducibilityWarning
from .context_variables import Place, SetVariables, VariableFollower
from .environment import (
    NumericState,
    ProcessState,
    read_numeric_state,
    read_process_state,
    seems_unchanged,
    with_changes,
)
from .inheritance import read_ids
from .library_settings import LibraryFollower, LocalSettings, read_library_settings
from .log_levels import LogLevels, read_handlers, read_log_levels
from .module_watch import StampCheck, watch


class Surroundings(NamedTuple):
    """State of the caller that a worker takes over as soon as the function's modules are imported.

    Attributes
    ----------
    libraries : dict of bytes
        Pickled settings of libraries, see `read_library_settings`.
    stamps : bytes
        Pickled stamps of the files of modules, see `ModuleWatch`.
    variables : SetVariables or dict of bytes
        Context variables; in a worker their pickled values.
    """

    numeric: NumericState
    levels: LogLevels
    libraries: dict[str, bytes]
    stamps: bytes
    variables: Any

    def __reduce__(self) -> tuple[Any, ...]:
        packed = _packed(*self[:4])
        return (type(self), tuple(self)) if packed is None else (_unpacked, (packed, self.variables))


# What was last packed, and its pickle: made once and not for each call, which would take it 60 us.
_latest: tuple[Any, bytes | None] = (), None


def _packed(numeric: NumericState, *others: Any) -> bytes | None:
    """Pickle of what hardly ever changes; None if it holds objects that the function's own pickler must send."""
    global _latest
    if numeric.errcall is not None or numeric.print_options.get("formatter"):
        return None
    state, latest = (numeric, *others), _latest
    if latest[0] != state:
        packed: bytes | None = None
        # A script or another package may have defined a category of warnings.
        with contextlib.suppress(pickle.PicklingError, pickle.UnpicklingError, AttributeError):
            found = pickle.dumps(state)
            _Finder(io.BytesIO(found)).load()
            packed = found
        _latest = latest = state, packed
    return latest[1]


class _Finder(pickle.Unpickler):
    """Unpickles only what every process of this Python can import."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] not in {"parwise", "numpy", *sys.stdlib_module_names} or module == "__main__":
            raise pickle.UnpicklingError(module)
        return super().find_class(module, name)


# In a worker: the pickle that came last, and what it holds.
_received: tuple[bytes, Any] = b"", ()


def _unpacked(packed: bytes, variables: dict[Place, bytes]) -> Surroundings:
    global _received
    if packed != _received[0]:
        _received = packed, pickle.loads(packed)
    numeric, levels, libraries, stamps = _received[1]
    return Surroundings(numeric, levels, libraries, stamps, variables)


class CallerState(NamedTuple):
    """All state that surrounds a function in the caller.

    Attributes
    ----------
    fixed : tuple
        What a running worker cannot take over: how often modules have been reloaded, and user, groups and root folder.
    """

    process: ProcessState
    surroundings: Surroundings
    fixed: tuple[Any, ...]

    @classmethod
    def read(cls, pack: Callable[[Any], bytes], local: LocalSettings | None = None) -> CallerState:
        """Read the state of this process and thread.

        Parameters
        ----------
        pack : callable
            Pickles the value of a context variable.
        local : dict, optional
            Settings of the thread that made the call, if that is another one.
        """
        watch.look()
        libraries, variables = read_library_settings(pack, local), SetVariables(pack)
        surroundings = Surroundings(read_numeric_state(), read_log_levels(), libraries, watch.stamps, variables)
        return cls(read_process_state(), surroundings, (watch.reloads, read_ids()))

    def read_again(self, pack: Callable[[Any], bytes], idle: bool) -> CallerState:
        """The state now, or this one if nothing has changed.

        To read all takes 60 us of the 190 of a submitted call. So while workers are not `idle`, umask, rounding mode,
        locale and some limits count as unchanged.
        """
        watch.look()
        libraries, variables = read_library_settings(pack), SetVariables(pack)
        numeric = self.surroundings.numeric
        if idle or variables != self.surroundings.variables or not seems_unchanged(numeric):
            numeric = read_numeric_state()
        surroundings = Surroundings(numeric, read_log_levels(), libraries, watch.stamps, variables)
        process = read_process_state(None if idle else self.process)
        fixed = watch.reloads, read_ids()
        same = process == self.process and surroundings == self.surroundings and fixed == self.fixed
        return self if same else CallerState(process, surroundings, fixed)


class _Changes(NamedTuple):
    """A state of the caller, and that of this process before and after an initializer."""

    base: Any
    before: Any
    after: Any


class Follower:
    """Sets the caller's state in this process, for each call anew.

    What an initializer has set stays, as long as the caller sets nothing else.
    """

    def __init__(self) -> None:
        self._process: ProcessState | None = None
        self._surroundings: Surroundings | None = None
        self._changes: list[tuple[_Changes, ...]] = []
        self._handlers: dict[str, Any] = {}
        self._libraries = LibraryFollower()
        self._variables = VariableFollower()
        self._modules = StampCheck()

    def forget(self) -> None:
        """Forget what an initializer has set."""
        self._changes.clear()
        self._variables.forget()

    def enter(self, process: ProcessState) -> None:
        """Set the state that a process needs before it imports the function's modules."""
        self._process = process
        self._own(0, process).apply()

    def follow(self, surroundings: Surroundings) -> None:
        """Set the rest, once these modules are imported."""
        self._surroundings = surroundings
        self._own(1, surroundings.numeric).apply()
        self._own(2, surroundings.levels).apply(self._handlers)
        self._libraries.follow(surroundings.libraries)
        self._variables.follow(surroundings.variables)

    def follow_in_context(self, surroundings: Surroundings) -> NumericState:
        """Set what belongs to the current context, in a process with other work; return the numeric state."""
        self._surroundings = surroundings
        numeric: NumericState = self._own(1, surroundings.numeric)
        numeric.apply_in_context()
        self._variables.follow(surroundings.variables)
        return numeric

    def warn_of_edits(self) -> None:
        """Warn of modules that this process has imported from other files than the caller."""
        assert self._surroundings is not None
        for name in self._modules.edited(self._surroundings.stamps):
            warnings.warn(
                f"module {name!r} was edited after this program had imported it: the program computes with "
                f"the old version, worker processes with the new one; importlib.reload({name}) loads the new "
                "one here too",
                ReproducibilityWarning,
                stacklevel=2,
            )

    def run(self, function: Callable[..., object], *args: Any) -> None:
        """Call an initializer, after `enter` and `follow`, and note what it sets."""
        before, handlers = _read(), read_handlers()
        try:
            self._variables.run(function, *args)
        finally:
            after, added = _read(), read_handlers()
            base = self._process, *(self._surroundings or ())[:2]
            self._changes.append(tuple(map(_Changes, base, before, after)))
            self._handlers |= {name: one for name, one in added.items() if one != handlers.get(name)}

    def _own(self, kind: int, state: Any) -> Any:
        for changes in self._changes:
            state = with_changes(state, *changes[kind])
        return state


#: That of this process.
follower = Follower()


def _read() -> tuple[ProcessState, NumericState, LogLevels]:
    return read_process_state(), read_numeric_state(), read_log_levels()
