"""Maps over items of any kind: lists, files, generators."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

import numpy as np

from .._core.arguments import make_call, make_list_call
from .._core.call import Call
from .._core.inputs.starmap import star_function
from .._core.messages.misfits import check_no_options
from .._core.options.given import GivenOptions
from .._core.options.keywords import show_keywords
from .._core.options.options import Options, resolve
from .._core.options.settings import Settings
from .._core.outputs.optional import arrays_or_list
from .._system.limits import available_memory
from .run import compute, stream

if TYPE_CHECKING:
    from .typed import Parallel

T = TypeVar("T")
P = ParamSpec("P")


@show_keywords(Options)
def parallel_map(
    func: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    drop_none: bool = False,
    starmap: bool = False,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    rng: Any = None,
    **options: Unpack[Options],
) -> list[T]:
    """Map a function over items of any kind, on all cores.

    Returns the list of the plain loop,
    ``[func(item, *args, **kwargs) for item in items]``, in order.

    Parameters
    ----------
    func : callable
        ``func(*items, *args, **kwargs)``. It may be a lambda or come from a
        notebook.
    *iterables : iterable
        Lists, tuples, generators: mapped together. Items may be anything that
        can be pickled: images of different sizes, file names, records. An
        iterator is read only a few items ahead of the workers.
    drop_none : bool, optional
        Leave out results that are None.
    starmap : bool, optional
        True if each item is a tuple of arguments, as for `starmap` of
        multiprocessing: ``func(*item, *args, **kwargs)``, over one iterable.
    args : tuple, optional
        Further arguments of every call. Large arrays go to each worker once.
    kwargs : dict, optional
        Further keyword arguments of every call.
    rng : optional
        As for `parallel_apply`: each call gets ``rng=``, a Generator of its own.
    **options
        How the call runs; see `parwise.Options`.

    Returns
    -------
    list
        Results of `func`, item by item. With ``errors="ignore"`` a missing one
        is None.

    Raises
    ------
    TypeError
        For a wrong argument, before any work.
    ValueError
        If the iterables have different lengths.
    Exception
        The first exception of `func` or of an iterator, with a note that names
        the item.

    See Also
    --------
    parallel_apply : For arrays.
    parallel_imap : Yields results as soon as they are there.
    Options : More on each option.

    Notes
    -----
    Worker processes have copies: of what `func` changes beside its result, as a
    list that it appends to or an attribute that it counts in, only the part of
    the elements computed in this process arrives. Return the value instead; or
    use ``executor="threads"``.

    Examples
    --------
    >>> from parwise import parallel_map
    >>> parallel_map(str.upper, ["a", "b", "c"])
    ['A', 'B', 'C']
    >>> parallel_map(pow, [2, 3, 4], [5, 2, 1])
    [32, 9, 4]
    >>> parallel_map(pow, [(2, 5), (3, 2), (4, 1)], starmap=True)
    [32, 9, 4]
    >>> parallel_map(lambda x: x if x % 2 else None, range(5), drop_none=True)
    [1, 3]

    SciPy's ``workers=`` takes it:

    >>> from scipy.optimize import differential_evolution, rosen
    >>> found = differential_evolution(
    ...     rosen, [(0, 2), (0, 2)], workers=parallel_map, updating="deferred", rng=1, maxiter=3, polish=False
    ... )
    """
    settings = resolve(options, func, parallel_map)
    func = star_function(func, iterables, starmap)
    call = _list_call(func, iterables, drop_none, args=args, kwargs=kwargs, rng=rng, settings=settings)
    results: list[T] = compute(call)
    return [one for one in results if one is not None] if drop_none else results


@show_keywords(Options, without=("resume",))
def parallel_imap(
    func: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    ordered: bool = True,
    drop_none: bool = False,
    starmap: bool = False,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    rng: Any = None,
    **options: Unpack[Options],
) -> Iterator[T]:
    """Map a function over items of any kind, and yield its results in order as soon as they are there.

    Like ``map(func, *iterables)`` it begins with the first ``next``, reads items
    only as it needs them, in the thread that takes the results, and may be
    left at any time. Each worker computes ahead by a few items (or 0.1 s of
    work) only, so endless input works, and so do results that together would
    fill the memory. Workers have the state of the thread (`numpy.errstate`, the
    precision of `decimal`, context variables) as it was at the first ``next``:
    what the program changes between two results does not reach them.

    Parameters
    ----------
    func : callable
        ``func(*items, *args, **kwargs)``. It may be a lambda or come from a
        notebook.
    *iterables : iterable
        Mapped together. Items may be anything that can be pickled.
    ordered : bool, optional
        False to yield each result as soon as it is there, in whatever order, as
        `imap_unordered` of multiprocessing does: the results alone, without the
        index of their items. A slow item then holds up none but the few that
        were sent to its worker with it. Until workers are up, in 0.1 s, this
        process computes too, and a result waits for the item that it has begun;
        with ``isolate=True`` for none. Results are the same, their generators of
        `rng` included.
    drop_none : bool, optional
        Leave out results that are None.
    starmap : bool, optional
        True if each item is a tuple of arguments, as for `starmap` of
        multiprocessing: ``func(*item, *args, **kwargs)``, over one iterable.
    args : tuple, optional
        Further arguments of every call. Large arrays go to each worker once.
    kwargs : dict, optional
        Further keyword arguments of every call.
    rng : optional
        As for `parallel_apply`: each call gets ``rng=``, a Generator of its own.
    **options
        How the call runs; see `parwise.Options`.

    Yields
    ------
    object
        Results of `func`, item by item. With ``errors="ignore"`` a missing one
        is None.

    Raises
    ------
    TypeError
        For a wrong argument, at once.
    ValueError
        For ``verify=True`` and "full", since results are no longer there when
        they could be compared.
        If the iterables have different lengths: at once if all have a known
        length, otherwise at the end of the shortest.
    Exception
        The exception of `func` or of an iterator, after the results before it,
        with a note that names the item. With ``ordered=False`` as well that of
        the lowest index, after all results before it and perhaps some behind.

    See Also
    --------
    parallel_map : Returns a list, and can compare its results.
    Options : More on each option.

    Notes
    -----
    Worker processes have copies: of what `func` changes beside its result, as a
    list that it appends to or an attribute that it counts in, only the part of
    the elements computed in this process arrives. Return the value instead; or
    use ``executor="threads"``.

    Examples
    --------
    >>> from itertools import count
    >>> from parwise import parallel_imap
    >>> for square in parallel_imap(lambda k: k * k, count()):
    ...     print(square)
    ...     if square > 3:
    ...         break
    0
    1
    4
    """
    if not isinstance(ordered, bool):
        raise TypeError(f"ordered must be a bool, got {ordered!r} of type {type(ordered).__name__}")
    settings = resolve(options, func, parallel_imap)
    if settings.resume is not None:
        raise ValueError(
            f"resume={settings.resume!r} is for parallel_map, which returns all results; parallel_imap "
            "keeps none of those that it has yielded. Use parallel_map, or leave resume out"
        )
    if settings.verify:
        raise ValueError(
            f"verify={settings.verify!r} compares results at the end, and parallel_imap keeps none of "
            "those that it has yielded; use parallel_map, or leave verify out, and only the first result "
            "is compared"
        )
    func = star_function(func, iterables, starmap)
    call = _list_call(func, iterables, drop_none, args=args, kwargs=kwargs, rng=rng, settings=settings)
    results: Iterator[T] = stream(call, ordered)
    # Unlike a generator, `filter` keeps no result that it has handed over.
    return filter(_is_result, results) if drop_none else results


def _is_result(one: Any) -> bool:
    return one is not None


def _list_call(func: Any, iterables: tuple[Any, ...], drop_none: Any, **given: Any) -> Call:
    _check_drop_none(drop_none)
    return make_list_call(func, iterables, **given)


def _check_drop_none(drop_none: Any) -> None:
    if not isinstance(drop_none, bool):
        raise TypeError(f"drop_none must be a bool, got {drop_none!r} of type {type(drop_none).__name__}")


@overload
def parallel(func: Callable[P, T], /, *, drop_none: bool = True, **options: Unpack[Options]) -> Parallel[P, T]: ...


@overload
def parallel(*, drop_none: bool = True, **options: Unpack[Options]) -> Callable[[Callable[P, T]], Parallel[P, T]]: ...


@show_keywords(Options)
def parallel(func: Callable[..., Any] | None = None, /, *, drop_none: bool = True, **options: Unpack[Options]) -> Any:
    """Add `func.parallel` to a function, and leave the function as it is.

    ``func.parallel(items, *args, **kwargs)`` calls it for each item, on all
    cores. Use it bare or with options; or set ``func.parallel = parallel(func).parallel``.

    Parameters
    ----------
    func : callable
        It is called, pickled and documented as before.
    drop_none : bool, optional
        True, the default: results that are None are left out, of lists and of
        arrays, so a result may be shorter than `items`. False keeps them.
    **options
        How its calls run; see `parwise.Options`.

    Returns
    -------
    callable
        `func`, with the attribute ``parallel``: a function of a sequence, or any
        iterable, and of further arguments of every call. For an array it
        returns the array of `parallel_apply`, for anything else a list; both
        without the results that are None, unless `drop_none` is False. Results
        of different shapes make no array, nor do arrays beside a None that is
        kept: these are a list in any case.

    Raises
    ------
    TypeError, ValueError
        For an unknown option or a wrong value, at once.

    Examples
    --------
    >>> import numpy as np
    >>> from parwise import parallel
    >>> @parallel
    ... def quotient(x, by):
    ...     return None if by == 0 else x / by
    >>> quotient(6, 3)
    2.0
    >>> quotient.parallel([6, 9], 3)
    [2.0, 3.0]
    >>> quotient.parallel([6, 9], 0)
    []
    >>> quotient.parallel(np.array([6.0, 9.0]), by=3)
    array([2., 3.])
    >>> quotient.parallel(np.array([6.0, 9.0]), by=0)
    array([], dtype=float64)
    """
    resolve(options, func)
    _check_drop_none(drop_none)
    if func is None:
        return functools.partial(parallel, drop_none=drop_none, **options)
    if not callable(func):
        raise TypeError(f"func must be callable, got {type(func).__name__}; write @parallel, or @parallel(workers=2)")
    given = GivenOptions(options)  # `mapped` is an attribute of the function, and travels with it

    def mapped(items: Any, /, *args: Any, **kwargs: Any) -> Any:
        check_no_options(func, kwargs, "@parallel({option})")
        if isinstance(items, np.ndarray):
            return _map_array(func, items, args, kwargs, resolve(given, func), drop_none)
        return parallel_map(func, items, drop_none=drop_none, args=args, kwargs=kwargs, **given)

    _describe(mapped, func, drop_none)
    try:
        func.parallel = mapped  # type: ignore[attr-defined]
    except AttributeError as error:
        raise TypeError(
            f"attributes of a {type(func).__name__} cannot be set, so {getattr(func, '__name__', func)!r} "
            "cannot have .parallel; use parallel_map(func, items)"
        ) from error
    return func


def _describe(mapped: Callable[..., Any], func: Callable[..., Any], drop_none: bool) -> None:
    """Give ``func.parallel`` the name, the arguments and a docstring that `help` shows."""
    name = getattr(func, "__name__", type(func).__name__)
    mapped.__name__ = "parallel"
    mapped.__qualname__ = f"{name}.parallel"
    rest = ", both without the results that are None" if drop_none else ""
    mapped.__doc__ = (
        f"Call {name} for each item, on all cores, with the other arguments the same in every call.\n\n"
        f"Returns an array for an array, and a list for any other items{rest}; see `parwise.parallel`."
    )
    with contextlib.suppress(TypeError, ValueError):  # functions in C may have no signature
        first, *others = inspect.signature(func).parameters.values()
        if first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
            items = inspect.Parameter("items", first.POSITIONAL_ONLY)
            mapped.__signature__ = inspect.Signature([items, *others])  # type: ignore[attr-defined]


def _map_array(
    func: Callable[..., Any],
    array: np.ndarray,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    settings: Settings,
    drop_none: bool,
) -> Any:
    """What `parallel_apply` returns, of the results that are not None; a list if these do not make arrays."""
    call = make_call(
        func, (array,), args=args, kwargs=kwargs, settings=settings, form="optional", memory=available_memory
    )
    result = compute(call)
    if not isinstance(result, list):
        return result
    return arrays_or_list([one for one in result if one is not None] if drop_none else result)
