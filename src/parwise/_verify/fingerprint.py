"""Fingerprint of a process: all that the bits of a function's results can depend on."""

from __future__ import annotations

import _locale
import platform
import sys
from typing import Any

import numpy as np

from .._system.blas import read_threads
from .._system.environment import read_process_state
from .._system.platforms.floating_point import read_floats

#: Parts of a fingerprint, and the remedy where they differ.
REMEDIES = {
    "Python": "use one version everywhere",
    "NumPy": "use one version everywhere",
    "processor": "use machines of one kind",
    "NumPy's processor features": "use machines of one kind, or set NPY_DISABLE_CPU_FEATURES alike",
    "BLAS": "use one build everywhere, or set OPENBLAS_CORETYPE alike",
    "threads": "set them alike: blas_threads='inherit', or threadpoolctl.threadpool_limits(1) around the call",
    "hash seed": "set PYTHONHASHSEED before Python starts, or sort sets before their order matters",
    "rounding or flushing of floats": "import in func's module the library that changes it (-ffast-math does)",
    "locale": "set it in a function given as setup=, or by environment variables",
    "time zone": "set TZ and call time.tzset in a function given as setup=",
}


def read_fingerprint(*ignored: Any) -> dict[str, str]:
    """Text for each key of `REMEDIES`; takes any arguments, so that it can be mapped over an array."""
    return {
        "Python": sys.version,
        "NumPy": np.__version__,
        "processor": platform.machine(),
        "NumPy's processor features": " ".join(_processor_features()),
        "BLAS": " ".join(sorted(read_threads())),
        "threads": " ".join(sorted(f"{name}={count}" for name, count in read_threads().items())),
        "hash seed": str(hash("parwise")),
        "rounding or flushing of floats": str(read_floats()),
        "locale": _locale.setlocale(_locale.LC_ALL, None),
        "time zone": str(read_process_state().zone.offsets),
    }


def _processor_features() -> list[str]:
    core: Any = getattr(np, "_core", None) or np.core
    features: dict[str, bool] = getattr(core._multiarray_umath, "__cpu_features__", {})
    return sorted(name for name, found in features.items() if found)


def environment_differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    """Names of the parts in which two fingerprints differ."""
    return [name for name in REMEDIES if _differ(name, here.get(name, ""), there.get(name, ""))]


def _differ(name: str, here: str, there: str) -> bool:
    if name not in ("BLAS", "threads"):
        return here != there
    # A library that only one process has loaded, as scikit-learn loads one for OpenMP, is not another build.
    mine, theirs = set(here.split()), set(there.split())
    return not (mine <= theirs or theirs <= mine)
