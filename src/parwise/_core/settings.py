"""Settings: the options of one call after checks, with every default filled in.

Users pass `Options`; all other code reads `Settings`.
"""

from __future__ import annotations

import numbers
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from ..errors import ParwiseError
from .defaults import EXECUTORS, defaults, has_no_gil


def is_int(value: Any) -> bool:
    """True for an integer, NumPy's included, but not for a bool."""
    # The first check against an abstract class takes 25 us, which most calls avoid.
    return type(value) is int or (isinstance(value, numbers.Integral) and not isinstance(value, bool))


def check_int(name: str, value: Any, least: int, allowed: str = "an int", hint: str = "", unit: str = "") -> int:
    """Return `value` as an int of at least `least`.

    The error has the argument's `name`, everything that is `allowed`, the `unit` of `least` (such as " long") and, for
    a number that is too small, a `hint`.
    """
    if not is_int(value):
        raise TypeError(f"{name} must be {allowed}, got {value!r} of type {type(value).__name__}")
    if value < least:
        limit = f"be at least {least}{unit}" if least else "not be negative"
        raise ValueError(f"{name} must {limit}, got {value}{hint}")
    return int(value)


def is_real(value: Any) -> bool:
    """True for a real number, NumPy's included, but not for a bool."""
    return type(value) is float or (isinstance(value, numbers.Real) and not isinstance(value, bool))


#: Options that ask for worker processes.
_NEED_PROCESSES = ("timeout", "retries", "isolate", "setup", "blas_threads")


class Settings(NamedTuple):
    """The options of one call after checks, with every default filled in.

    Attributes
    ----------
    workers : int or None
        None for the number of CPUs, which takes 0.3 ms to read from cgroup
        files: a small call does without it.
    undecided : bool
        True if nobody has chosen an executor, in a Python without the GIL: `decided` chooses by the function.
    why_executor : str or None
        Reason for that choice.
    """

    workers: int | None = None
    executor: Any = "processes"
    isolate: bool = False
    verify: bool | Literal["full"] | None = None
    blas_threads: int | Literal["inherit"] | None = None
    progress: Any = None
    errors: Literal["raise", "ignore"] = "raise"
    timeout: float | None = None
    retries: int = 0
    setup: Callable[[], object] | None = None
    resume: str | None = None
    undecided: bool = False
    why_executor: str | None = None

    def decided(self, find_change: Callable[[], str | None]) -> Settings:
        """Settings with threads, unless an option needs processes, or calls at the same time would change something.

        `find_change` returns that in words; see `shared_change`.
        """
        needs = [name for name in _NEED_PROCESSES if getattr(self, name) not in (None, False, 0, "inherit")]
        why = f"{needs[0]} is for worker processes" if needs else find_change()
        if why is None:
            why = "this Python has no GIL, so threads compute at the same time"
            return self._replace(executor="threads", undecided=False, why_executor=why)
        return self._replace(undecided=False, why_executor=f"threads were not taken: {why}")

    @property
    def ignore(self) -> bool:
        """True if errors are gaps in the result."""
        return self.errors == "ignore"

    @property
    def shares_globals(self) -> bool:
        """True if functions find globals that an initializer or `setup` has set."""
        return self.setup is not None or (is_pool(self.executor) and bool(self.executor.initialized))

    @property
    def needs_killable_workers(self) -> bool:
        """True if timeout or retries need workers that parwise can kill."""
        return self.timeout is not None or self.retries > 0

    @property
    def needs_runner(self) -> bool:
        """True if an option asks for more than a plain loop does: isolation, gaps, a check, progress, a setup."""
        asked = self.isolate or self.ignore or self.verify or self.progress is not None
        return bool(asked or self.setup is not None or self.resume is not None)

    @property
    def needs_own_workers(self) -> bool:
        """True if a call changes workers, or may end some, and so cannot share them with calls of a pool."""
        return self.needs_killable_workers or self.setup is not None

    def serial_reason(self, tasks: int, nested: bool, what: str = "element") -> str | None:
        """The reason why a call of `tasks` tasks can only be a plain loop, if settings and size tell."""
        if self.executor == "serial":
            return "executor='serial'"
        if nested:
            return "it was called within a mapped function"
        if not tasks:
            return "there was nothing to compute"
        if self.isolate or not (isinstance(self.executor, str) or is_pool(self.executor)):
            return None
        if self.workers == 1:
            return "workers=1"
        return f"there is one {what} only" if tasks < 2 else None


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
    if _is_a(value, "concurrent.futures", "Executor") or is_dask_client(value):
        return value
    raise TypeError(
        "executor must be a name, a concurrent.futures.Executor or a dask.distributed.Client, "
        f"got an object of type {type(value).__name__}"
    )


def is_dask_client(value: Any) -> bool:
    """True for a `dask.distributed.Client`; does not import dask."""
    return _is_a(value, "distributed", "Client")


def is_dask_executor(value: Any) -> bool:
    """True for the executor of a Dask client, which holds options of `Client.submit`; does not import dask."""
    return _is_a(value, "distributed.cfexecutor", "ClientExecutor")


def is_pool(value: Any) -> bool:
    """True for a `parwise.Pool`; does not import its module."""
    return _is_a(value, "parwise._api.pool", "Pool")


def is_thread_pool(value: Any) -> bool:
    """True for a `concurrent.futures.ThreadPoolExecutor`; does not import its module."""
    return _is_a(value, "concurrent.futures.thread", "ThreadPoolExecutor")


def _is_a(value: Any, module: str, name: str) -> bool:
    """True for an instance of a class, whose module must have been imported to make it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


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


def executor_name(executor: Any) -> str:
    """The executor's name, or that of its class."""
    return executor if isinstance(executor, str) else type(executor).__name__


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


def checked_settings(options: Mapping[str, Any]) -> Settings:
    """Check options that are all known; return settings with every default."""
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


#: A function of the elements done, and of all elements (None if their number is not known).
ProgressFunction: TypeAlias = Callable[[int, int | None], object]


def checked_progress(value: Any) -> Literal[True] | str | ProgressFunction | None:
    """Check the option `progress`; return None for no progress, True for a bar, its label, or a function."""
    if value is None or value is False:
        return None
    import importlib.util  # not needed for most calls
    import inspect

    if value is True or isinstance(value, str):
        if sys.modules.get("tqdm") is None and importlib.util.find_spec("tqdm") is None:
            raise ImportError(f"progress={value!r} needs tqdm: pip install tqdm; or pass a function of (done, total)")
        return value
    if isinstance(value, type) or not callable(value):
        what = f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"
        raise TypeError(f"progress must be True, a label, or a function of (done, total), got {what}")
    try:
        inspect.signature(value).bind(0, None)
    except TypeError:
        raise TypeError(
            f"progress must be a function of two arguments (done, total), got {inspect.signature(value)}"
        ) from None
    except ValueError:  # some functions made in C have no signature
        pass
    function: ProgressFunction = value
    return function
