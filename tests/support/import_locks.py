"""For scripts that are interrupted at random moments: Ctrl-C within a callback of Python's own import system."""

from __future__ import annotations

import sys
import types


def pass_over_interrupted_locks() -> None:
    """Do not print that Ctrl-C came as an import took its lock away, which is lost there and told on stderr."""
    usual = sys.unraisablehook

    def hook(unraisable: types.SimpleNamespace) -> None:
        name = getattr(unraisable.object, "__qualname__", "")
        if not (unraisable.exc_type is KeyboardInterrupt and name.startswith("_get_module_lock.")):
            usual(unraisable)

    sys.unraisablehook = hook
