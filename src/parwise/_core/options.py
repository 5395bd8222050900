"""Options: the keywords that users pass to say how a call runs; `options` sets them for a block of code.

`resolve` checks them and returns `Settings`, which has a value for each.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from .settings import ExecutorName, Settings, checked_settings


class Options(TypedDict, total=False):
    """Options that say how a call runs; none changes what it computes.

    Every entry point takes them by keyword, and `parwise.options` sets them for
    a block of code.

    Attributes
    ----------
    workers : int, optional
        Processes (or threads). None, the default, is the number of CPUs this
        process may use, by affinity mask and cgroup quota. 1 is the plain loop.
    executor : str or executor, optional
        "processes" (the default), "threads", "serial", a `parwise.Pool`, any
        `concurrent.futures.Executor`, or a `dask.distributed.Client`; of it
        also ``client.get_executor(...)``, with the options of `Client.submit`.
    isolate : bool, optional
        True: never call the function in this process. The default, False, lets
        this process compute while the workers start.
    verify : bool or "full", optional
        None, the default: one element (or block) that this process has computed
        is also computed by a worker, and the results are compared; a difference
        is a `ReproducibilityWarning` that names the cause. Where elements are
        few and long, they are compared only if that delays the call by less
        than a tenth. True: also about 5 % of the elements (first, last, both
        sides of cuts) are computed again in this process, and block functions
        are tried on blocks of different lengths, with NaN and other extreme
        values around them; a difference is a `NotReproducibleError`. That is a
        sample, not a proof. "full": all is computed again in this process.
        False: no comparison.
    blas_threads : int or "inherit", optional
        Threads of BLAS and OpenMP in each worker. None, the default, and
        "inherit" keep this process's number, since a different one can change
        bits; if BLAS uses these threads, fewer workers compute, and threads do
        not outnumber CPUs. To leave the CPUs to the workers instead, set one
        thread for this process too (``threadpoolctl.threadpool_limits(1)``).
        A number is refused for threads of this process, and for Dask's blocks:
        their libraries are shared with whatever else runs there.
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
        one `GapWarning` at the end has the indices and the exceptions.
        A gap is NaN in results of floats, NaT in dates, NaN in floats made of
        integers, and None in objects made of anything else (bool, text,
        records). With a block function the whole block is a gap.
    timeout : float, optional
        Seconds that one element (or block) may take. After that its worker is
        killed, with the processes that the function started, and the error is
        an `ElementTimeoutError`. The function never runs in this process then,
        as with `isolate`.
    retries : int, optional
        How often an element (or block) is computed again if its worker died or
        it took too long; 0, the default, for never. An element for which the
        function raised is not computed again.
    setup : callable, optional
        A function without arguments, called once in each worker before `func`,
        and in this process, too, unless the call is isolated: for settings of
        libraries, accessors, names in builtins, seeds. It is not called again
        for the next call with the same function; a worker that another one has
        prepared is replaced. What it sets in a worker stays as long as this
        process does not change the same. An exception in it ends the call.
    resume : path, optional
        Keeps a journal of the call at this path: the same call, made again
        after its process was killed or the machine lost its power, goes on where
        it stopped and ends with the same bits. `parallel_apply` keeps results
        in `out`, an array in files (`numpy.memmap`, zarr, h5py), and so does
        ``.par.map`` of a DataArray; `parallel_map` keeps them in a folder,
        which is this path. An element counts once its
        result, and then its line in the journal, are on the disk: it is not
        computed again, so what the function prints there does not come again.
        A call with another result (by the function's code and what it holds,
        arguments, seed, versions) is refused, with the difference named.
        Not with `parallel_imap`, `vectorize`, other methods of ``.par``, and
        ``verify="full"``.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from parwise import parallel_apply
    >>> folder = tempfile.mkdtemp()
    >>> path = os.path.join(folder, "out.npy")
    >>> mode = "r+" if os.path.exists(path) else "w+"
    >>> out = np.lib.format.open_memmap(path, mode=mode, dtype="f8", shape=(3,))
    >>> parallel_apply(np.sum, np.ones((3, 4)), out=out, resume=os.path.join(folder, "run.journal"))
    memmap([4., 4., 4.])
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
    setup: Callable[[], object] | None
    resume: str | os.PathLike[str] | None


#: A function of parwise, or the names of its arguments.
Door: TypeAlias = Callable[..., Any] | Collection[str]

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
    if resolve(options).resume is not None:
        raise ValueError(f"resume={options['resume']!r} is the journal of one call; pass it to that call")
    token = _scoped.set({**_scoped.get(), **options})
    try:
        yield
    finally:
        _scoped.reset(token)


def resolve(given: Mapping[str, Any], func: Any = None, door: Door = ()) -> Settings:
    """Check options and fill in the rest: first the scope's values, then parwise's defaults.

    `func` is the mapped function, and `door` the function of parwise that was called, or the names of its arguments:
    these may have been meant by an unknown option.
    """
    scoped = _scoped.get()
    merged = {**scoped, **given} if scoped else given
    for name in merged:
        if name not in Options.__annotations__:
            raise unknown(name, merged[name], func, door)
    return checked_settings(merged)


def unknown(name: str, value: Any, func: Any = None, door: Door = ()) -> TypeError:
    """The error of an unknown option; see `resolve`."""
    from .messages.unknown_options import parameters_of, unknown_option

    own = parameters_of(door) if callable(door) else door
    return TypeError(unknown_option(name, value, list(dict.fromkeys([*Options.__annotations__, *own])), func))


def unknown_argument(door: str, name: str, value: Any, names: Collection[str], instead: str) -> TypeError:
    """The error of an unknown keyword argument of what takes `names` only; `instead` is where options of calls go."""
    from .messages.unknown_options import unknown_option

    if name in Options.__annotations__:
        return TypeError(f"{door} takes no {name}=, which is an option of a call; {instead}")
    return TypeError(f"{door}: {unknown_option(name, value, names)}")
