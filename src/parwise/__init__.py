"""Map a slow function over an array on all cores, with the bits of the plain loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._call import Block
    from ._executor import Pool
    from ._lists import parallel, parallel_imap, parallel_map
    from ._numpy import apply_along_axis, vectorize
    from ._options import Options, options
    from ._report import Report, report
    from .api import parallel_apply, plan
    from .errors import (
        ElementTimeoutError,
        NotReproducibleError,
        ParwiseError,
        RemoteError,
        ReproducibilityWarning,
        WorkerDiedError,
    )

__all__ = [
    "Block",
    "ElementTimeoutError",
    "NotReproducibleError",
    "Options",
    "ParwiseError",
    "Pool",
    "RemoteError",
    "Report",
    "ReproducibilityWarning",
    "WorkerDiedError",
    "apply_along_axis",
    "options",
    "parallel",
    "parallel_apply",
    "parallel_imap",
    "parallel_map",
    "plan",
    "report",
    "vectorize",
]

__version__ = "0.1.0"

_HOMES = {
    "Block": "_call",
    "Options": "_options",
    "Pool": "_executor",
    "Report": "_report",
    "apply_along_axis": "_numpy",
    "options": "_options",
    "parallel": "_lists",
    "parallel_apply": "api",
    "parallel_imap": "_lists",
    "parallel_map": "_lists",
    "plan": "api",
    "report": "_report",
    "vectorize": "_numpy",
}


if not TYPE_CHECKING:  # which would take any name for granted
    # Names are looked up when they are first used, as Scientific Python's SPEC 1
    # has it: the process that workers are forked from needs half of the modules,
    # and a call whose first element is long waits for it.
    def __getattr__(name: str) -> Any:
        if name == "errors":
            return importlib.import_module(f"{__name__}.errors")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__", "errors"]
