"""Settings of some libraries that the results of a function can depend on, read in the caller and followed in workers.

Only settings that can be read within microseconds and set through the library's
own functions are in `_LIBRARIES`; for all others there is the option `setup`.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from .late_imports import when_imported

Settings = dict[str, Any]
#: Settings of libraries that belong to one thread, by library.
LocalSettings = dict[str, Settings]


class _Library(NamedTuple):
    """How the settings of an imported library are read, compared and written.

    Attributes
    ----------
    read : callable
        Returns the library's own dict, or a new one, of all settings.
    write : callable
        Takes the library, and the name and the value of a setting.
    own : callable
        Returns the settings to carry: by default all of them.
    """

    read: Callable[[Any], Settings]
    write: Callable[[Any, str, Any], object]
    own: Callable[[Any, Settings], Settings] = lambda library, settings: settings


# Backends that draw into files. Another one may open windows, which only the caller can show.
_FILE_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


def _matplotlib_own(matplotlib: Any, settings: Settings) -> Settings:
    defaults = matplotlib.rcParamsOrig
    changed = {k: v for k, v in settings.items() if dict.get(defaults, k) != v and k != "backend_fallback"}
    if str(changed.get("backend")).lower() not in _FILE_BACKENDS:
        changed.pop("backend", None)
    return changed


def _write_matplotlib(matplotlib: Any, name: str, value: Any) -> None:
    if name == "backend" and isinstance(value, str):
        matplotlib.use(value, force=False)
    else:
        matplotlib.rcParams[name] = value


def _pandas_settings(pandas: Any) -> Settings:
    found: Settings = pandas._config.config._global_config
    return found


def _pandas_own(pandas: Any, settings: Settings) -> Settings:
    config = pandas._config.config
    flat = {f"{k}.{name}": value for k, names in settings.items() for name, value in _flat(names)}
    options = {k: one for k, one in config._registered_options.items() if k not in config._deprecated_options}
    return {k: flat[k] for k, one in options.items() if k in flat and flat[k] != one.defval}


def _flat(names: Settings) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in names.items():
        inner = isinstance(value, dict)
        found += [(f"{name}.{k}", v) for k, v in _flat(value)] if inner else [(name, value)]
    return found


_TORCH = {
    "set_default_dtype": "get_default_dtype",
    "use_deterministic_algorithms": "are_deterministic_algorithms_enabled",
    "set_float32_matmul_precision": "get_float32_matmul_precision",
}

_LIBRARIES = {
    "csv": _Library(
        lambda csv: {"field_size_limit": csv.field_size_limit()},
        lambda csv, name, value: csv.field_size_limit(value),
    ),
    "matplotlib": _Library(lambda matplotlib: matplotlib.rcParams, _write_matplotlib, _matplotlib_own),
    "pandas": _Library(_pandas_settings, lambda pandas, name, value: pandas.set_option(name, value), _pandas_own),
    "sklearn": _Library(
        lambda sklearn: sklearn.get_config(),
        lambda sklearn, name, value: sklearn.set_config(**{name: value}),
    ),
    "socket": _Library(
        lambda socket: {"timeout": socket.getdefaulttimeout()},
        lambda socket, name, value: socket.setdefaulttimeout(value),
    ),
    "torch": _Library(
        lambda torch: {setter: getattr(torch, getter)() for setter, getter in _TORCH.items()},
        lambda torch, name, value: getattr(torch, name)(value),
    ),
    "xarray": _Library(
        lambda xarray: xarray.core.options.OPTIONS,
        lambda xarray, name, value: xarray.set_options(**{name: value}),
    ),
}
#: Libraries whose settings each thread has for itself.
_LOCAL = {"sklearn"}

# Of each library: all of its settings when they were last read, and those to carry, pickled.
_known: dict[str, tuple[Settings, bytes]] = {}


def read_local_settings() -> LocalSettings:
    """Settings that belong to the calling thread."""
    found = {}
    for name in sys.modules.keys() & _LOCAL:
        with contextlib.suppress(Exception):  # as in `read_library_settings`: another thread may be importing it
            found[name] = _LIBRARIES[name].read(sys.modules[name])
    return found


@contextlib.contextmanager
def local_settings(settings: LocalSettings) -> Iterator[None]:
    """Set, for a ``with`` block, settings of the calling thread to those of another one."""
    before = read_local_settings() if settings else {}
    _write_local(before, settings)
    try:
        yield
    finally:
        _write_local(settings, before)


def _write_local(before: LocalSettings, after: LocalSettings) -> None:
    for name, settings in after.items():
        for setting, value in settings.items():
            if value != before.get(name, {}).get(setting):
                _LIBRARIES[name].write(sys.modules[name], setting, value)


def read_library_settings(pack: Callable[[Any], bytes], local: LocalSettings | None = None) -> dict[str, bytes]:
    """Settings of each library that is imported, pickled by `pack`; `local` are those of the thread of the call."""
    found: dict[str, bytes] = {}
    for name, one in _LIBRARIES.items():
        library = sys.modules.get(name)
        if library is None:
            continue
        # The library may be another version than these lines were written for, or be half imported.
        with contextlib.suppress(Exception):
            settings = (local or {}).get(name) or one.read(library)
            known = _known.get(name)
            # dict's own comparison, which takes equal objects for equal values: 0.2 to 3 us.
            if known is None or not dict.__eq__(settings, known[0]):
                known = _known[name] = _copy(settings), _packed(pack, one.own(library, dict(dict.items(settings))))
            found[name] = known[1]
    return found


def _copy(settings: Any) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in dict.items(settings)}


def _packed(pack: Callable[[Any], bytes], settings: Settings) -> bytes:
    packed: dict[str, bytes] = {}
    for name, value in settings.items():
        with contextlib.suppress(Exception):  # what cannot be sent
            packed[name] = pack(value)
    return pickle.dumps(packed)


class LibraryFollower:
    """Sets the caller's settings in a worker, each one when the caller has changed it.

    What an initializer has set stays until then.
    """

    def __init__(self) -> None:
        self._told: dict[str, bytes] = {}
        self._done: dict[str, dict[str, bytes]] = {}
        # Settings of this process before the caller's took their place.
        self._replaced: dict[str, Settings] = {}

    def follow(self, told: dict[str, bytes]) -> None:
        """Set what differs from the settings followed before; of other libraries once they are imported."""
        before, self._told = self._told, told
        for name, packed in told.items():
            if name not in before:
                when_imported(name, partial(self._set, name))
            elif packed != before[name] and name in sys.modules:
                self._set(name)

    def _set(self, name: str) -> None:
        if name not in self._told:
            return
        told: dict[str, bytes] = pickle.loads(self._told[name])
        done = self._done.get(name, {})
        self._done[name] = told
        replaced = self._replaced.setdefault(name, {})
        new = [setting for setting in told | done if told.get(setting) != done.get(setting)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that have another name by now
            for setting in new:
                with contextlib.suppress(Exception):
                    _write(name, setting, told.get(setting), replaced)


def _write(name: str, setting: str, packed: bytes | None, replaced: Settings) -> None:
    """Set one setting of a library, or the one that was replaced."""
    library, one = sys.modules[name], _LIBRARIES[name]
    present = _value(one.read(library), setting)
    if packed is None:
        value = replaced.pop(setting)
    else:
        value = pickle.loads(packed)
        replaced.setdefault(setting, present)
    if value != present:
        one.write(library, setting, value)


def _value(settings: Settings, name: str) -> Any:
    """A setting by its name, whose parts may be those of nested dicts."""
    if name in settings:
        return dict.__getitem__(settings, name)
    first, _, rest = name.partition(".")
    return _value(settings[first], rest)
