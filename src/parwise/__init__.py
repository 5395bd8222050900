"""Map a slow function over an array on all cores, with the bits of the plain loop."""

from ._options import Options, options
from .api import parallel_apply
from .errors import (
    ElementTimeoutError,
    NotReproducibleError,
    ParwiseError,
    RemoteError,
    ReproducibilityWarning,
    WorkerDiedError,
)

__all__ = [
    "ElementTimeoutError",
    "NotReproducibleError",
    "Options",
    "ParwiseError",
    "RemoteError",
    "ReproducibilityWarning",
    "WorkerDiedError",
    "options",
    "parallel_apply",
]

__version__ = "0.1.0"
