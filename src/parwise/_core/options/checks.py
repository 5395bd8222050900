"""The checks of options: one function for each, and one for several together."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ...errors import ParwiseError
from .defaults import EXECUTORS, Defaults, defaults, has_no_gil
from .executors import executor_name, is_a, is_dask_client, is_dask_executor, is_pool, is_thread_pool
from .number_checks import check_int, is_int, is_real
from .progress import checked_progress
from .settings import Settings


def _isolating(merged: Mapping[str, Any]) -> str:
    """The option that keeps the function out of this process."""
    if merged.get("isolate"):
        return "isolate=True"
    return "a pool with an initializer" if merged.get("timeout") is None else f"timeout={merged['timeout']}"


def _fit_pool(chosen: dict[str, Any], pool: Any) -> None:
    """Set the options that follow from the pool in which a call runs."""
    workers = chosen.get("workers")
    if workers is not None and workers > pool.workers:
        raise ValueError(
            f"workers={workers} is more than the {pool.workers} of the pool; make a larger pool, or leave workers out"
        )
    chosen["workers"] = workers or pool.workers
    # Only workers of the pool have called the initializer.
    chosen["isolate"] = chosen.get("isolate", False) or pool.initialized


def _workers(value: Any, executor: Any) -> int | None:
    if value is None:
        return None
    hint = "; workers=None takes every CPU, workers=1 is the plain loop"
    if not is_int(value) and (is_dask_client(executor) or is_dask_executor(executor)):
        raise TypeError(
            f"workers must be an int or None, got {value!r}; to choose workers of Dask, pass "
            f"executor=client.get_executor(workers={value!r})"
        )
    return check_int("workers", value, 1, "an int or None", hint)


def _executor(value: Any) -> Any:
    if value is None:
        return defaults().executor or "processes"
    if isinstance(value, str):
        if value not in EXECUTORS:
            names = ", ".join(map(repr, EXECUTORS))
            raise ValueError(f"executor must be one of {names}, an Executor or a dask Client, got {value!r}")
        return value
    if isinstance(value, type):
        raise TypeError(f"executor must be an instance, got the class {value.__name__}; call it first")
    if sys.is_finalizing():
        raise too_late(f"executor={type(value).__name__}")
    if is_a(value, "concurrent.futures", "Executor") or is_dask_client(value):
        return value
    raise TypeError(
        "executor must be a name, a concurrent.futures.Executor or a dask.distributed.Client, "
        f"got an object of type {type(value).__name__}"
    )


def _isolate(value: Any, executor: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"isolate must be a bool, got {value!r} of type {type(value).__name__}")
    if value and (executor in ("threads", "serial") or is_thread_pool(executor)):
        name = executor_name(executor)
        raise ValueError(
            f"isolate=True needs worker processes, but executor={name!r} runs in this process; leave one of the two out"
        )
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
    number = check_int("blas_threads", value, 1, "an int, 'inherit' or None")
    if executor == "threads" or is_thread_pool(executor):
        # Numbers of threads of OpenBLAS and MKL belong to the process, whose other threads may compute at that time.
        raise ValueError(
            f"blas_threads={number} is set in worker processes, but executor={executor_name(executor)!r} "
            f"runs in this one; set it for this process, with threadpoolctl.threadpool_limits({number}): "
            "..., or leave it out"
        )
    return number


def _errors(value: Any, executor: Any) -> str:
    if not (isinstance(value, str) and value in ("raise", "ignore")):
        raise ValueError(f"errors must be 'raise' or 'ignore', got {value!r}")
    return value


def _timeout(value: Any, executor: Any) -> float | None:
    if value is None:
        return None
    if not is_real(value):
        raise TypeError(f"timeout must be a number of seconds or None, got {value!r} of type {type(value).__name__}")
    if not float(value) > 0:
        raise ValueError(f"timeout must be more than 0 seconds, got {value}; timeout=None sets no limit")
    if executor != "processes" and not is_pool(executor):
        raise ValueError(
            f"timeout={value} needs worker processes that can be killed, but executor={executor_name(executor)!r} has "
            "none of parwise's own; leave one of the two out"
        )
    # No poll can wait longer.
    return min(float(value), 1e6)


def _retries(value: Any, executor: Any) -> int:
    retries = check_int("retries", value, 0)
    if retries and not (isinstance(executor, str) or is_pool(executor)):
        raise ValueError(
            f"retries={value} is for parwise's own worker processes, and {executor_name(executor)} is "
            "none of them; leave retries out, or leave executor out"
        )
    return retries


def _progress(value: Any, executor: Any) -> Any:
    return checked_progress(value)


def _setup(value: Any, executor: Any) -> Callable[[], object] | None:
    if value is None:
        return None
    if isinstance(value, type) or not callable(value):
        what = f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"
        raise TypeError(f"setup must be a function without arguments, or None, got {what}")
    function: Callable[[], object] = value
    return function


def _resume(value: Any, executor: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"resume must be a path or None, got {value!r} of type {type(value).__name__}")
    path = os.fspath(value)
    if not isinstance(path, str) or not path:
        raise ValueError(f"resume must be a path as a str, got {path!r}")
    return path


#: For each option except `executor`: the function that checks and converts it.
_CHECKS: dict[str, Callable[[Any, Any], Any]] = {
    "workers": _workers,
    "isolate": _isolate,
    "verify": _verify,
    "blas_threads": _blas_threads,
    "errors": _errors,
    "timeout": _timeout,
    "retries": _retries,
    "progress": _progress,
    "setup": _setup,
    "resume": _resume,
}


def _fill_in(chosen: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Set what environment variables give for options that nobody chose."""
    found = defaults()
    # An executor of the user's has a number of workers already.
    if chosen.get("workers") is None and found.workers is not None and isinstance(chosen["executor"], str):
        chosen["workers"] = found.workers
    if found.progress and options.get("progress") is None:
        chosen["progress"] = checked_progress(True)


#: Types of values that never change themselves, and of which settings for the same ones may be kept.
_PLAIN = frozenset({bool, int, float, str, type(None)})


def checked_settings(options: Mapping[str, Any]) -> Settings:
    """Check options that are all known; return settings with every default.

    Checks take a small call 30 us once a function has taken a ms, so those of plain values are made once.
    """
    if sys.is_finalizing() or not _PLAIN.issuperset(map(type, options.values())):
        return _check_all(options)
    return _check_plain(defaults(), has_no_gil(), **options)


@functools.lru_cache(maxsize=64, typed=True)  # typed: True is no number of workers
def _check_plain(found: Defaults, free_threaded: bool, /, **options: Any) -> Settings:
    """Settings of plain options; what is given beside them is what else they depend on."""
    return _check_all(options)


def _check_all(options: Mapping[str, Any]) -> Settings:
    executor = _executor(options.get("executor"))
    chosen: dict[str, Any] = {"executor": executor}
    if options.get("executor") is None and has_no_gil():
        found = defaults()
        chosen["undecided"] = found.executor is None and not found.portable
    for name, value in options.items():  # options left out need no check, which saves a small call time
        if name in _CHECKS:
            chosen[name] = _CHECKS[name](value, executor)
    _fill_in(chosen, options)
    if chosen.get("timeout") is not None:
        chosen["isolate"] = True
    if is_pool(executor):
        _fit_pool(chosen, executor)
    if chosen.get("isolate") and chosen.get("verify"):
        raise ValueError(
            f"verify={chosen['verify']!r} calls func in this process too, to compare, which "
            f"{_isolating(options)} rules out; leave one of the two out"
        )
    if chosen.get("resume") is not None and chosen.get("verify") == "full":
        raise ValueError(
            "verify='full' computes everything again, which resume is there to avoid; use verify=True, "
            "which computes a sample again"
        )
    settings = Settings(**chosen)
    return _at_the_end(settings, options) if sys.is_finalizing() else settings


def _at_the_end(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """Settings of a call from `__del__` while the interpreter is torn down: a plain loop needs nothing of it."""
    if settings.isolate:
        raise too_late(_isolating(options))
    return settings._replace(executor="serial")


def too_late(what: str) -> ParwiseError:
    """The error of a call that asks for what an interpreter that is torn down does not have any more."""
    return ParwiseError(
        f"{what} needs processes or threads, which Python cannot start any more while it shuts down; "
        "make the call earlier, at the latest in a function registered with atexit"
    )
