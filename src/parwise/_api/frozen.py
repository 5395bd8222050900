"""Frozen programs, which run again as a worker of themselves."""

from __future__ import annotations

import sys

from .._core import nesting
from .._core.options import defaults
from .._system import interpreter

# How `multiprocessing` starts its resource tracker, behind options of the interpreter. Portable workers need that, and
# without more the program would run as a whole again.
_TRACKER = "from multiprocessing.resource_tracker import main;"


def freeze_support() -> None:
    """Let a frozen program have worker processes.

    A program that PyInstaller, cx_Freeze or a like tool has made contains its
    Python interpreter, so workers are the program itself, started again. In
    these this function does a worker's work and does not return. Call it first
    of all in the main module; without that parallel calls in a frozen program
    raise `ParwiseError`. In other programs it does nothing.

    See Also
    --------
    multiprocessing.freeze_support : The same for processes of `multiprocessing`.

    Examples
    --------
    >>> import parwise
    >>> if __name__ == "__main__":
    ...     parwise.freeze_support()
    ...     # the program
    """
    interpreter.serves_frozen = True
    # Imported in workers only: it takes a tenth of a second.
    match sys.argv[1:]:
        case [nesting.FORK_SERVER, parent]:
            from .._workers.fork_server import main

            main(int(parent))
        case [nesting.FORK_SERVER, defaults.PORTABLE, handle]:
            from .._workers.portable.process import main_of_frozen

            main_of_frozen(int(handle))
        case [*_, "-c", code] if code.startswith(_TRACKER):
            exec(code)
            sys.exit()
