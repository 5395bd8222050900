"""Options: the keywords that users pass to say how a call runs; `options` sets them for a program or a block of code.

`resolve` checks them and returns `Settings`, which has a value for each.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack

from .checks import checked_settings
from .defaults import name_variables
from .given import GivenOptions
from .keywords import show_keywords
from .settings import Settings

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from typing import Protocol

    class DaskClient(Protocol):
        """What type checkers see of a `dask.distributed.Client`."""

        def submit(self, func: Any, *args: Any, **kwargs: Any) -> Any: ...

        def scatter(self, data: Any, *args: Any, **kwargs: Any) -> Any: ...


F = TypeVar("F", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """Options that say how a call runs; none changes what it computes.

    Every entry point takes them by keyword, and `parwise.options` sets them for
    a program or a block of code. Environment variables set defaults for a whole process:
    ``PARWISE_WORKERS=4``, ``PARWISE_EXECUTOR=threads`` and ``PARWISE_PROGRESS=1``
    stand for `workers`, `executor` and `progress` where these are None. They are
    read once, at the first call.

    Attributes
    ----------
    workers : int, optional
        Processes (or threads). None, the default, is the number of CPUs this
        process may use, by affinity mask and cgroup quota. 1 is the plain loop.
    executor : str or executor, optional
        "processes" (the default), "threads", "serial", a `parwise.Pool`, any
        `concurrent.futures.Executor`, or a `dask.distributed.Client`.

        In a Python without the GIL None is "threads", unless another option
        needs processes, or the function is seen to change what its calls share
        (see the page on systems).

        Of a Dask client also ``client.get_executor(...)``, with the options of
        `Client.submit`.
    isolate : bool, optional
        True: never call the function in this process. The default, False, lets
        this process compute while the workers start.
    verify : bool or "full", optional
        None, the default: one element (or block) that this process has computed
        is also computed by a worker; different bits are a
        `ReproducibilityWarning` that names the cause. True: also about 5 % of
        the elements are computed again in this process, and a difference is a
        `NotReproducibleError`. "full": all are. False: no comparison.

        Where elements are few and long, the default compares only if that delays
        the call by less than a tenth. Where workers alone call the function
        (`isolate`, `timeout`), there is nothing to compare with: they look whether
        it draws random numbers from generators that they have copies of. Workers
        also try one border between two blocks of a block function, along each axis
        that is cut, in less than a tenth of the call's time: where values beyond a
        block change its results, the warning names the depth that would do. The
        function cannot open files to write to them in that; one that writes to
        what it has open already needs False. And lists, dicts, sets and counters
        that the function only writes to are named, since workers change copies of
        them. `True` takes the first and the last
        element and both sides of cuts, and tries block functions on blocks of
        different lengths, with NaN and other extreme values around them. That is
        a sample, not a proof.
    blas_threads : int or "inherit", optional
        Threads of BLAS and OpenMP in each worker. None, the default, and
        "inherit" keep this process's number, since a different one can change
        bits.

        If BLAS uses these threads, fewer workers compute, and threads do not
        outnumber CPUs. To leave the CPUs to the workers instead, set one thread
        for this process too (``threadpoolctl.threadpool_limits(1)``). A number
        is refused for threads of this process, and for Dask's blocks: their
        libraries are shared with whatever else runs there.
    progress : bool, str or callable, optional
        True: a bar by tqdm (``pip install tqdm``), in a terminal
        or a notebook. A str: the same, with this label. A function: it gets
        ``(done, total)``. None and False, the default: nothing.

        The label of a bar without one is the function's name. A function is
        called a few times a second in the thread that made the call, and once at
        the end, with elements (or items; of blocks the elements in them); `total`
        is None for an iterator. An exception in it ends the call, as Ctrl-C does.
        Calls within a mapped function show none, nor does NumPy's own loop, which
        `apply_along_axis` and `vectorize` leave some arrays to.
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
        libraries, accessors, names in builtins, seeds.

        It is not called again for the next call with the same function; a worker
        that another one has prepared is replaced. What it sets in a worker stays
        as long as this process does not change the same. An exception in it ends
        the call.
    resume : path, optional
        Keeps a journal of the call at this path: the same call, made again
        after its process was killed or the machine lost its power, goes on where
        it stopped and ends with the same bits.

        `parallel_apply` keeps results in `out`, an array in files
        (`numpy.memmap`, zarr, h5py), and so does ``.par.map`` of a DataArray;
        `parallel_map` keeps them in a folder, which is this path. An element
        counts once its result, and then its line in the journal, are on the
        disk: it is not computed again, so what the function prints there does
        not come again. A call with another result (by the function's code and
        what it holds, arguments, seed, versions) is refused, with the difference
        named. Not with `parwise.options`, `parallel_imap`, `vectorize`, other
        methods of ``.par``, and ``verify="full"``.

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
    executor: Literal["processes", "threads", "serial"] | Executor | DaskClient | None
    isolate: bool
    verify: bool | Literal["full"] | None
    blas_threads: int | Literal["inherit"] | None
    progress: bool | str | Callable[[int, int | None], object] | None
    errors: Literal["raise", "ignore"]
    timeout: float | None
    retries: int
    setup: Callable[[], object] | None
    resume: str | os.PathLike[str] | None


#: A function of parwise, or the names of its arguments.
Door: TypeAlias = Callable[..., Any] | Collection[str]


_NOTHING: Mapping[str, Any] = MappingProxyType({})
# What `with` blocks have set, the innermost last. A context variable: other threads and tasks see nothing of it.
_scoped: contextvars.ContextVar[tuple[options, ...]] = contextvars.ContextVar("parwise_options", default=())
#: An object of `options`, and what its plain call has set.
PlainCall: TypeAlias = "tuple[weakref.ref[options], Mapping[str, Any]]"
# What plain calls have set for the whole process, the latest last, with a reference to each as long as it lives: a
# `with` takes it back. And all of it together, replaced as a whole, so that readers need no lock.
_plain: list[PlainCall] = []
_process: Mapping[str, Any] = _NOTHING
_plain_lock = threading.RLock()


@show_keywords(Options, without=("resume",))  # the journal of one call
class options(contextlib.ContextDecorator):  # noqa: N801 (called like a function, as xarray.set_options is)
    """Set options: for the program when called, for a block of code in ``with``.

    A plain call ``parwise.options(workers=2)`` sets them in the whole process,
    threads included, until another call sets them anew: the default that
    `parwise.Options` names, None for most, restores parwise's own. In ``with`` they hold
    within the block only, in this thread, or this task of asyncio, and in those
    that take over its context; as a decorator, within each call of the
    function.

    It acts when it is called, as `xarray.set_options` does, since it cannot know
    of a ``with`` to come: what is made on one line and entered on another holds
    in the whole process in between. Where other threads make calls, write it in
    the ``with`` statement itself; what is left in between is no longer than
    Python takes to enter.

    An option given to a call itself comes first, then the innermost ``with``,
    then the last plain call.

    Parameters
    ----------
    **options
        How calls run; see `parwise.Options`.

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

    For all calls of a program:

    >>> _ = parwise.options(workers=2)
    >>> _ = parwise.options(workers=None)  # as many as there are CPUs, again
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        if resolve(options).resume is not None:
            raise ValueError(f"resume={options['resume']!r} is the journal of one call; pass it to that call")
        self._given: Mapping[str, Any] = GivenOptions(options)
        with _plain_lock:
            _set_plain([*_plain, (weakref.ref(self), options)])

    def __enter__(self) -> None:
        """Set the options in this context alone."""
        self._withdraw()
        _scoped.set((*_scoped.get(), self))

    def __exit__(self, *error: object) -> None:
        """Restore what was set before; blocks may end in another order than they began."""
        entered = _scoped.get()
        if self in entered:  # a generator may end in another context than it began
            last = len(entered) - 1 - entered[::-1].index(self)
            _scoped.set(entered[:last] + entered[last + 1 :])

    def __call__(self, func: F) -> F:
        """Set the options within each call of a function."""
        self._withdraw()
        return super().__call__(func)

    def _withdraw(self) -> None:
        """Take back what the plain call has set."""
        with _plain_lock:
            _set_plain(self._of_others(_plain))

    def _of_others(self, calls: list[PlainCall]) -> list[PlainCall]:
        return [(owner, given) for owner, given in calls if owner() is not self]


def _set_plain(calls: list[PlainCall]) -> None:
    """Note what plain calls have set; of those that nobody can take back any more neighbours become one."""
    global _process
    kept: list[PlainCall] = []
    for owner, given in calls:
        if kept and owner() is None and kept[-1][0]() is None:
            given = {**kept.pop()[1], **given}
        kept.append((owner, given))
    _plain[:] = kept
    _process = {name: value for _, given in kept for name, value in given.items()} or _NOTHING


def _set_outside() -> Mapping[str, Any]:
    """Options that hold for a call without options of its own."""
    process, scoped = _process, _scoped.get()
    if not (process or scoped):
        return _NOTHING
    found = dict(process)
    for one in scoped:
        found.update(one._given)
    return found


def resolve(given: Mapping[str, Any], func: Any = None, door: Door = ()) -> Settings:
    """Check options and fill in the rest: first what `options` has set, then parwise's defaults.

    `func` is the mapped function, and `door` the function of parwise that was called, or the names of its arguments:
    these may have been meant by an unknown option.
    """
    outside = _set_outside()
    merged = {**outside, **given} if outside else given
    for name in merged:
        if name not in Options.__annotations__:
            raise unknown(name, merged[name], func, door)
    try:
        return checked_settings(merged)
    except Exception as error:
        name_variables(error, merged)
        raise


def unknown(name: str, value: Any, func: Any = None, door: Door = ()) -> TypeError:
    """The error of an unknown option; see `resolve`."""
    from ..messages.unknown_options import parameters_of, unknown_option

    own = parameters_of(door) if callable(door) else door
    return TypeError(unknown_option(name, value, list(dict.fromkeys([*Options.__annotations__, *own])), func))


def unknown_argument(door: str, name: str, value: Any, names: Collection[str], instead: str) -> TypeError:
    """The error of an unknown keyword argument of what takes `names` only; `instead` is where options of calls go."""
    from ..messages.unknown_options import unknown_option

    if name in Options.__annotations__:
        return TypeError(f"{door} takes no {name}=, which is an option of a call; {instead}")
    return TypeError(f"{door}: {unknown_option(name, value, names)}")
