"""Map a slow function over an array on all cores, with the bits of the plain loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import errors  # noqa: F401 - notes the working directory before the program can leave it

if TYPE_CHECKING:
    from ._api.apply import parallel_apply, plan
    from ._api.frozen import freeze_support
    from ._api.map import parallel, parallel_imap, parallel_map
    from ._api.pool import Pool
    from ._core.call import Block
    from ._core.options.options import Options, options
    from ._numpy.apply_along_axis import apply_along_axis
    from ._numpy.vectorize import vectorize
    from ._report.report import Report, report
    from .errors import (
        ElementTimeoutError,
        ExecutorError,
        GapWarning,
        NotReproducibleError,
        ParwiseError,
        RemoteError,
        ReproducibilityWarning,
        WorkerDiedError,
    )

__all__ = [
    "Block",
    "ElementTimeoutError",
    "ExecutorError",
    "GapWarning",
    "NotReproducibleError",
    "Options",
    "ParwiseError",
    "Pool",
    "RemoteError",
    "Report",
    "ReproducibilityWarning",
    "WorkerDiedError",
    "apply_along_axis",
    "freeze_support",
    "options",
    "parallel",
    "parallel_apply",
    "parallel_imap",
    "parallel_map",
    "plan",
    "report",
    "vectorize",
]

__version__ = "0.2.0"

_MODULES = {
    "Block": "_core.call",
    "Options": "_core.options.options",
    "Pool": "_api.pool",
    "Report": "_report.report",
    "apply_along_axis": "_numpy.apply_along_axis",
    "freeze_support": "_api.frozen",
    "options": "_core.options.options",
    "parallel": "_api.map",
    "parallel_apply": "_api.apply",
    "parallel_imap": "_api.map",
    "parallel_map": "_api.map",
    "plan": "_api.apply",
    "report": "_report.report",
    "vectorize": "_numpy.vectorize",
}

#: Modules that register with the library of their name, imported when they are first used.
_SUBMODULES = ("joblib", "xarray")


if not TYPE_CHECKING:  # type checkers would accept any name
    # Names are imported when they are first used, as Scientific Python's SPEC 1
    # recommends: the fork server needs half of the modules only, and a call
    # with a long first element waits for the fork server to start.
    def __getattr__(name: str) -> Any:
        if name in _SUBMODULES:
            try:
                return importlib.import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:  # which `hasattr` and `help` would not take for a lack
                raise AttributeError(f"parwise.{name} needs {error.name}: pip install {error.name}") from error
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__, *_SUBMODULES, "__version__", "errors"]
