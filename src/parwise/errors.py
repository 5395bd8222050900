"""The errors and warnings that parwise raises."""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

__all__ = [
    "ElementTimeoutError",
    "ExecutorError",
    "GapWarning",
    "NotReproducibleError",
    "ParwiseError",
    "RemoteError",
    "ReproducibilityWarning",
    "WorkerDiedError",
]


class ParwiseError(Exception):
    """Base class of the errors that parwise itself raises.

    An exception raised by the mapped function is not one of these: it keeps
    its own type.
    """


class NoWorkersError(ParwiseError):
    """Worker processes cannot be had here; the caller can compute alone."""


class WorkerDiedError(ParwiseError):
    """A worker process ended before it had returned its results.

    Attributes
    ----------
    index : int or tuple of int or None
        The element, or first element of the block, that the worker was
        computing; None if it had not begun one.
    pid : int
        Process id of the worker.
    signal : int or None
        Number of the signal that ended the worker; None if it exited.
    exitcode : int or None
        Exit code of the worker; None if a signal ended it.
    stack : str
        Call stack of the function, innermost call first. Only SIGSEGV, SIGBUS,
        SIGFPE, SIGILL, SIGABRT and SIGTERM leave one; otherwise empty.

    Examples
    --------
    >>> import os, numpy, parwise
    >>> def f(x):
    ...     os._exit(3)
    >>> try:
    ...     parwise.parallel_apply(f, numpy.zeros(2), isolate=True, workers=1)
    ... except parwise.WorkerDiedError as error:
    ...     print(error.exitcode, error.signal)
    3 None
    """

    index: int | tuple[int, ...] | None = None
    pid: int = 0
    signal: int | None = None
    exitcode: int | None = None
    stack: str = ""


class ExecutorError(ParwiseError):
    """An executor of another library failed: it was closed, lost its scheduler, or cannot compute here.

    The cause is the executor's own exception, if there is one. A process of it
    that died is a `WorkerDiedError`.

    Attributes
    ----------
    index : int or tuple of int or None
        The lowest element, or first element of the block, without a result.
    done : int
        Elements that had been computed.
    """

    index: int | tuple[int, ...] | None = None
    done: int = 0


class NotReproducibleError(ParwiseError):
    """The function returned different bits in a worker than in the caller, or for different blocks.

    Attributes
    ----------
    kind : str
        The cause, if it was found, or else the sort of difference:

        - "unstable": the function returns different bits on each call (random
          numbers, the clock, state of earlier calls);
        - "threads": the bits depend on the number of BLAS or OpenMP threads;
        - "halo": a block function reads further than `depth`;
        - "block": the bits depend on the length or the start of the block;
        - "environment": the worker's process differs from this one, in a
          point that the message names;
        - "type": dtype, type or shape differ;
        - "nan": only bits of NaN, or the sign of zero, differ;
        - "value": none of these; the message shows both values.
    index : int or tuple of int or None
        The element, or first element of the block.
    depth : int or None
        For "halo", a depth that is sufficient, if one was found.

    Examples
    --------
    >>> import numpy, parwise
    >>> def block_mean(x):
    ...     return x - x.mean()
    >>> try:
    ...     parwise.parallel_apply(block_mean, numpy.arange(100.0), vectorized=True, chunk=10, verify=True)
    ... except parwise.NotReproducibleError as error:
    ...     print(error.kind)
    block
    """

    kind: str = "value"
    index: int | tuple[int, ...] | None = None
    depth: int | None = None


class ElementTimeoutError(ParwiseError, TimeoutError):
    """One element took longer than the ``timeout`` option allows.

    Attributes
    ----------
    index : int or tuple of int
        The element, or first element of the block.
    pid : int
        Process id of the worker, which was killed.
    stack : str
        Call stack of the function, innermost call first.
    """

    index: int | tuple[int, ...] | None = None
    pid: int = 0
    stack: str = ""


class RemoteError(ParwiseError):
    """An exception of a worker that could not be pickled; the message has its type and text.

    Attributes
    ----------
    type_name : str
        Qualified name of the exception's own type.
    """

    type_name: str = ""


class GapWarning(RuntimeWarning):
    """Some elements have no result, as ``errors="ignore"`` allows.

    Attributes
    ----------
    indices : list of int, or list of tuple of int
        All elements without a result, in order; of a block function all elements
        of its blocks.
    errors : dict
        The exceptions by index (of a block: of its first element). Not all are
        kept: the first 10 of each task, which is one element if elements are
        slow, and 1,000 of a call.
    labels : dict
        For ``.par.map``: the labels of `indices` along each mapped dimension
        that has labels, as arrays.
    variable : hashable
        For ``.par.map`` of a Dataset: the name of the variable; else None.

    Notes
    -----
    It can be pickled. Exceptions in it that cannot are then replaced by a
    `RemoteError` with their type and text.

    Examples
    --------
    >>> import warnings, parwise
    >>> with warnings.catch_warnings(record=True) as found:
    ...     warnings.simplefilter("always")
    ...     parwise.parallel_map(int, ["1", "two", "3"], errors="ignore")
    [1, None, 3]
    >>> found[0].message.indices, found[0].message.errors
    ([1], {1: ValueError("invalid literal for int() with base 10: 'two'")})
    """

    indices: Sequence[Any] = ()
    errors: Mapping[Any, BaseException] = MappingProxyType({})
    labels: Mapping[Any, Any] = MappingProxyType({})
    variable: Hashable = None

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(vars(self))
        if "errors" in state:
            state["errors"] = {index: _portable(error) for index, error in self.errors.items()}
        return type(self), self.args, state


def _portable(error: BaseException) -> BaseException:
    """The exception if it can be pickled, else a `RemoteError` with its type and text."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # whatever its class raises
        name = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        stand_in = RemoteError(f"{name}: {error}")
    except Exception:
        stand_in = RemoteError(f"{name}: (its text cannot be shown)")
    stand_in.type_name = name
    return stand_in


class ReproducibilityWarning(UserWarning):
    """The result, or what the function changes beside it, may not be that of the plain loop."""


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return None


#: Working directory when parwise was imported, most often that in which Python was started.
STARTED_IN = _folder()

#: Path that the files of parwise's own frames in tracebacks begin with.
PACKAGE = os.path.dirname(__file__) + os.sep


def user_level() -> int:
    """Number of frames from the caller of this function up to the user's code, for `warnings.warn(stacklevel=...)`."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
        level += 1
    return level
