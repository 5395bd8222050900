"""How a call runs: the options that every entry point takes."""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypedDict, Unpack

from .settings import _CHECKS, ExecutorName, Settings, _executor, _fit_pool, _isolating, is_pool


class Options(TypedDict, total=False):
    """How a call runs; none of these changes what is computed.

    Every entry point takes them by keyword, and `parwise.options` sets them for
    a block of code.

    Attributes
    ----------
    workers : int, optional
        Processes (or threads). None, the default, is the number of CPUs this
        process may use, by affinity mask and cgroup quota. 1 is the plain loop.
    executor : str or executor, optional
        "processes" (the default), "threads", "serial", a `parwise.Pool`, any
        `concurrent.futures.Executor`, or a `dask.distributed.Client`.
    isolate : bool, optional
        True: never call the function in this process. The default, False, lets
        this process compute while the workers start.
    verify : bool or "full", optional
        None, the default: one element (or block) that this process has computed
        is computed by a worker too and compared; a difference is a
        `ReproducibilityWarning` that tells why. Of a few long elements only if
        that does not hold up the call by more than a tenth. True: also about
        5 % of the elements (first, last, both sides of cuts) are computed
        again here, and block functions are tried on blocks of other lengths,
        with NaN and other hostile values around them; a difference is a
        `NotReproducibleError`. That is a sample, not a proof. "full": all is
        computed again here. False: no comparison.
    blas_threads : int or "inherit", optional
        Threads of BLAS and OpenMP in each worker. None, the default, and
        "inherit" are this process's number, since any other can change bits;
        where BLAS is seen to use them, fewer workers compute, so that threads
        do not outnumber CPUs. To give the CPUs to the workers instead, set one
        thread for this process too (``threadpoolctl.threadpool_limits(1)``).
    progress : bool or callable, optional
        True: a bar by tqdm (``pip install "parwise[progress]"``), in a terminal
        or a notebook. A function: it gets ``(done, total)``, elements (or
        items; of blocks the elements in them), a few times a second in the
        thread that made the call, and once at the end; `total` is None for an
        iterator. An exception in it ends the call, as Ctrl-C does. None and
        False, the default: nothing. Calls within a mapped function show none,
        nor does NumPy's own loop, which `apply_along_axis` and `vectorize`
        leave some arrays to.
    errors : {"raise", "ignore"}, optional
        "raise", the default: the exception of the lowest index is raised.
        "ignore": where the function raised an `Exception`, where its worker
        died and where it took longer than `timeout`, the result has a gap, and
        one `RuntimeWarning` at the end tells the indices and the first cause.
        A gap is NaN in results of floats, NaT in dates, NaN in floats made of
        integers, and None in objects made of anything else (bool, text,
        records). Of a block function the whole block is a gap.
    timeout : float, optional
        Seconds that one element (or block) may take. After that its worker is
        killed, with the processes that the function started, and the error is
        an `ElementTimeoutError`. The function never runs in this process then,
        as with `isolate`.
    retries : int, optional
        How often an element (or block) is computed again whose worker died or
        took too long; 0 by default. What the function raises is not tried again.
    checkpoint : path, optional
        Reserved.
    """

    workers: int | None
    executor: ExecutorName | Any | None
    isolate: bool
    verify: bool | Literal["full"] | None
    blas_threads: int | Literal["inherit"] | None
    progress: bool | Callable[[int, int | None], object] | None
    errors: Literal["raise", "ignore"]
    timeout: float | None
    retries: int
    checkpoint: str | os.PathLike[str] | None


_NOTHING: Mapping[str, Any] = MappingProxyType({})
_scoped: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("parwise_options", default=_NOTHING)


@contextlib.contextmanager
def options(**options: Unpack[Options]) -> Iterator[None]:
    """Set options for the calls within a ``with`` block.

    Parameters
    ----------
    **options
        See `parwise.Options`. An option given to a call itself comes first.

    Raises
    ------
    TypeError, ValueError
        For an unknown option or a wrong value, at once.

    Examples
    --------
    >>> import numpy as np
    >>> import parwise
    >>> with parwise.options(workers=1):
    ...     parwise.parallel_apply(np.sum, np.ones((2, 3)))
    array([3., 3.])
    """
    resolve(options)
    token = _scoped.set({**_scoped.get(), **options})
    try:
        yield
    finally:
        _scoped.reset(token)


def resolve(given: Mapping[str, Any]) -> Settings:
    """Check options and fill in defaults, first the scope's, then parwise's."""
    scoped = _scoped.get()
    merged = {**scoped, **given} if scoped else given
    for name in merged:
        if name not in Options.__annotations__:
            raise TypeError(_unknown(name))
    executor = _executor(merged.get("executor"))
    chosen: dict[str, Any] = {"executor": executor}
    for name, value in merged.items():  # a small call is not to wait for checks of what was left out
        if name in _CHECKS:
            field, check = _CHECKS[name]
            chosen[field] = check(value, executor)
    if chosen.get("timeout") is not None:
        chosen["isolate"] = True
    if is_pool(executor):
        _fit_pool(chosen, executor)
    if chosen.get("isolate") and chosen.get("verify"):
        raise ValueError(
            f"verify={chosen['verify']!r} calls func in this process too, to compare, which {_isolating(merged)} rules "
            "out; leave one of the two out"
        )
    _refuse_reserved(merged)
    return Settings(**chosen)


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, Options.__annotations__, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(Options.__annotations__)}"
    return f"unknown option {name!r}: {hint}"


def _refuse_reserved(merged: Mapping[str, Any]) -> None:
    """Options whose name is fixed but whose work is not done yet."""
    if merged.get("checkpoint") is not None:
        raise NotImplementedError(f"option checkpoint={merged['checkpoint']!r} is not there yet; leave it out")
