"""How a call runs: the options that every entry point takes."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, Unpack, get_args

from ._checks import is_int, is_real
from ._cpu import cpu_count

ExecutorName: TypeAlias = Literal["processes", "threads", "serial"]


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


class Settings(NamedTuple):
    """Options after checking, every default filled in.

    Attributes
    ----------
    given_workers : int or None
        None if the user left the number open. What that means takes reading
        cgroup files (0.3 ms), which a small call does without.
    """

    given_workers: int | None = None
    executor: Any = "processes"
    isolate: bool = False
    verify: bool | Literal["full"] | None = None
    blas_threads: int | Literal["inherit"] | None = None
    ignore: bool = False
    timeout: float | None = None
    retries: int = 0
    progress: Any = None

    @property
    def shares(self) -> bool:
        """Whether functions are to find what an initializer has set."""
        return is_pool(self.executor) and bool(self.executor.initialized)

    @property
    def needs_own_workers(self) -> bool:
        """Whether what happens to workers is to be seen to, which no executor does for its calls."""
        return self.timeout is not None or self.retries > 0

    def why_plain(self, tasks: int, nested: bool, what: str = "element") -> str | None:
        """Why a call of so many tasks can only be the plain loop, if that is clear from the beginning."""
        if self.executor == "serial":
            return "executor='serial'"
        if nested:
            return "it was called within a mapped function"
        if not tasks:
            return "there was nothing to compute"
        if self.isolate or not (isinstance(self.executor, str) or is_pool(self.executor)):
            return None
        if self.given_workers == 1:
            return "workers=1"
        return f"there is one {what} only" if tasks < 2 else None

    @property
    def workers(self) -> int:
        """Processes or threads, for a call that is large enough to need them."""
        return self.given_workers or cpu_count()


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


def _isolating(merged: Mapping[str, Any]) -> str:
    """What keeps the function out of this process."""
    if merged.get("isolate"):
        return "isolate=True"
    return "a pool with an initializer" if merged.get("timeout") is None else f"timeout={merged['timeout']}"


def _fit_pool(chosen: dict[str, Any], pool: Any) -> None:
    """Options that follow from the pool that a call is to run in."""
    workers = chosen.get("given_workers")
    if workers is not None and workers > pool.workers:
        raise ValueError(f"workers={workers} is more than the {pool.workers} of the pool; make a larger one")
    chosen["given_workers"] = workers or pool.workers
    # Only its workers have been through the initializer.
    chosen["isolate"] = chosen.get("isolate", False) or pool.initialized


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, Options.__annotations__, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(Options.__annotations__)}"
    return f"unknown option {name!r}: {hint}"


def _refuse_reserved(merged: Mapping[str, Any]) -> None:
    """Options whose name is fixed but whose work is not done yet."""
    if merged.get("checkpoint") is not None:
        raise NotImplementedError(f"option checkpoint={merged['checkpoint']!r} is not there yet; leave it out")


def _workers(value: Any, executor: Any) -> int | None:
    if value is None:
        return None
    if not is_int(value):
        raise TypeError(f"workers must be an int or None, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(
            f"workers must be at least 1, got {value}; workers=None takes every CPU, workers=1 is the plain loop"
        )
    return int(value)


def _executor(value: Any) -> Any:
    if value is None:
        return "processes"
    if isinstance(value, str):
        if value not in get_args(ExecutorName):
            names = ", ".join(map(repr, get_args(ExecutorName)))
            raise ValueError(f"executor must be one of {names}, an Executor or a dask Client, got {value!r}")
        return value
    if isinstance(value, type):
        raise TypeError(f"executor must be an instance, got the class {value.__name__}; call it first")
    if _is_a(value, "concurrent.futures", "Executor") or is_dask_client(value):
        return value
    raise TypeError(
        "executor must be a name, a concurrent.futures.Executor or a dask.distributed.Client, "
        f"got an object of type {type(value).__name__}"
    )


def is_dask_client(value: Any) -> bool:
    """Whether `value` is a `dask.distributed.Client`, without importing dask."""
    return _is_a(value, "distributed", "Client")


def is_pool(value: Any) -> bool:
    """Whether `value` is a `parwise.Pool`, without importing that."""
    return _is_a(value, "parwise._executor", "Pool")


def is_thread_pool(value: Any) -> bool:
    """Whether `value` is a `concurrent.futures.ThreadPoolExecutor`, without importing that."""
    return _is_a(value, "concurrent.futures", "ThreadPoolExecutor")


def _is_a(value: Any, module: str, name: str) -> bool:
    """Whether `value` is of a class whose module was imported by whoever made it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _isolate(value: Any, executor: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"isolate must be a bool, got {value!r} of type {type(value).__name__}")
    if value and (executor in ("threads", "serial") or is_thread_pool(executor)):
        name = executor if isinstance(executor, str) else type(executor).__name__
        raise ValueError(f"isolate=True needs worker processes, but executor={name!r} runs in this one")
    return value


def _verify(value: Any, executor: Any) -> bool | Literal["full"] | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value == "full":
        return "full"
    raise ValueError(f"verify must be None, True, False or 'full', got {value!r}")


def _blas_threads(value: Any, executor: Any) -> int | Literal["inherit"] | None:
    if value is None:
        return None
    if isinstance(value, str) and value == "inherit":
        return "inherit"
    if not is_int(value):
        raise TypeError(f"blas_threads must be an int, 'inherit' or None, got {value!r}")
    if value < 1:
        raise ValueError(f"blas_threads must be at least 1, got {value}")
    return int(value)


def _ignore(value: Any, executor: Any) -> bool:
    if not (isinstance(value, str) and value in ("raise", "ignore")):
        raise ValueError(f"errors must be 'raise' or 'ignore', got {value!r}")
    return value == "ignore"


def _timeout(value: Any, executor: Any) -> float | None:
    if value is None:
        return None
    if not is_real(value):
        raise TypeError(f"timeout must be a number of seconds or None, got {value!r} of type {type(value).__name__}")
    if not float(value) > 0:
        raise ValueError(f"timeout must be more than 0 seconds, got {value}; timeout=None sets no limit")
    if executor != "processes" and not is_pool(executor):
        raise ValueError(
            f"timeout={value} needs worker processes that can be killed, but executor={_name(executor)} has none of "
            "parwise's own; leave one of the two out"
        )
    # Longer than any poll can wait is as good as for ever.
    return min(float(value), 1e6)


def _retries(value: Any, executor: Any) -> int:
    if not is_int(value):
        raise TypeError(f"retries must be an int, got {value!r} of type {type(value).__name__}")
    if value < 0:
        raise ValueError(f"retries must not be negative, got {value}")
    if value and not (isinstance(executor, str) or is_pool(executor)):
        raise ValueError(
            f"retries={value} is for parwise's own worker processes; {_name(executor)} has rules of its own "
            "for what it lost"
        )
    return int(value)


def _progress(value: Any, executor: Any) -> Any:
    if value is None or value is False:  # most calls need nothing else
        return None
    from ._progress import checked_progress

    return checked_progress(value)


def _name(executor: Any) -> str:
    return repr(executor) if isinstance(executor, str) else type(executor).__name__


#: Of each option that has a value of its own: its field in `Settings`, and what checks and converts it.
_CHECKS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "workers": ("given_workers", _workers),
    "isolate": ("isolate", _isolate),
    "verify": ("verify", _verify),
    "blas_threads": ("blas_threads", _blas_threads),
    "errors": ("ignore", _ignore),
    "timeout": ("timeout", _timeout),
    "retries": ("retries", _retries),
    "progress": ("progress", _progress),
}
