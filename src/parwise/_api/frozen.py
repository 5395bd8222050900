"""Frozen programs, which run again as a worker of themselves."""

from __future__ import annotations

import sys

from .._core.nesting import FORK_SERVER
from .._system import interpreter


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
    if sys.argv[1:2] == [FORK_SERVER]:
        # Imported in workers only: it takes a tenth of a second.
        from .._workers.fork_server import main

        main(int(sys.argv[2]))
