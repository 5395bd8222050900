"""The functions that users call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, Unpack

import numpy as np

from ._call import Block, Call, make_call, make_list_call
from ._job import Job
from ._options import Options, resolve
from ._runners import runner_of
from ._watch import Watch, reports

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def parallel_apply(
    func: Callable[..., Any],
    /,
    *arrays: Any,
    axis: int | tuple[int, ...] = 0,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    vectorized: bool = False,
    chunk: int | None = None,
    depth: int = 0,
    boundary: Any = None,
    out: Any = None,
    rng: Any = None,
    **options: Unpack[Options],
) -> Any:
    """Map a function over an axis of arrays, on all cores.

    The result has exactly the bits of the plain loop::

        np.stack([func(a[i]) for i in range(len(a))])

    Parameters
    ----------
    func : callable
        An element function ``func(*elements, *args, **kwargs)``; or, with
        `vectorized`, a block function that takes runs of elements and keeps
        `axis`. It may be a lambda or come from a notebook, and gets copies
        that it may write to where it could in the loop.
    *arrays : ndarray or array_like
        Mapped together; all of one length along `axis`. What is not an ndarray
        (a zarr or h5py dataset) is read block by block.
    axis : int or tuple of int, optional
        What is mapped over: ``axis=(1, 2)`` calls `func` once per pixel with
        ``a[:, i, j]``.
    args : tuple, optional
        Further arguments of every call. Large arrays go to each worker once.
    kwargs : dict, optional
        Further keyword arguments of every call.
    vectorized : bool, optional
        True if `func` takes a block.
    chunk : int, optional
        Elements per block. Blocks never depend on the number of workers; a
        remainder of one element joins the block before it.
    depth : int, optional
        Elements of its neighbours that a block also gets, on each side. The
        function must keep the length; what belongs to the neighbours is cut off
        its result.
    boundary : {"reflect", "symmetric", "nearest", "wrap", "constant"}, optional
        What stands beyond the ends of the array, in the words of `numpy.pad`
        ("nearest" is its "edge"); ``("constant", value)`` for other values than
        0. None, the default: the first and last blocks are shorter.
    out : array, optional
        Where to put the result (a tuple of arrays for a tuple result); cast as
        NumPy's ufuncs cast, by "same_kind".
    rng : int, SeedSequence, BitGenerator or Generator, optional
        If given, `func` gets ``rng=``, a `numpy.random.Generator` of its
        element's own: that of ``np.random.default_rng(seed).spawn(n)[i]`` for
        an int, whatever the workers and executor. One per block, for block
        functions. Of anything but an int each call takes one child
        (``rng.spawn(1)``), and so another call other numbers.
    **options
        How the call runs; see `parwise.Options`.

    Returns
    -------
    ndarray or tuple of ndarray
        For an element function ``np.asarray`` of all results, with the mapped
        axes where they were, or last if the results have too few dimensions
        (negative axes count from the end of the result). For a block function
        the results, concatenated along `axis`. A tuple of arrays if `func`
        returns tuples.

    Raises
    ------
    TypeError, ValueError
        For a wrong argument, before any work.
    WorkerDiedError
        If a worker process ended in the midst of an element.
    NotReproducibleError
        If `verify` is True and a worker gave other bits than this process.
    Exception
        Whatever `func` raised for the lowest index, with a note that names it.

    Examples
    --------
    >>> import numpy as np
    >>> from parwise import parallel_apply
    >>> a = np.arange(12.0).reshape(3, 4)
    >>> parallel_apply(np.sum, a)
    array([ 6., 22., 38.])
    >>> parallel_apply(np.cumsum, a, axis=1)  # down each column
    array([[ 0.,  1.,  2.,  3.],
           [ 4.,  6.,  8., 10.],
           [12., 15., 18., 21.]])
    >>> parallel_apply(lambda row, k: (row.min(), row[k]), a, args=(2,))
    (array([0., 4., 8.]), array([ 2.,  6., 10.]))

    A filter over blocks of rows, each with one neighbour on each side:

    >>> blur = lambda b: 0.5 * b + 0.25 * (np.roll(b, 1, axis=0) + np.roll(b, -1, axis=0))
    >>> parallel_apply(blur, a, vectorized=True, chunk=1, depth=1, boundary="nearest")
    array([[ 1.,  2.,  3.,  4.],
           [ 4.,  5.,  6.,  7.],
           [ 7.,  8.,  9., 10.]])

    Random numbers that depend on the seed and the index alone:

    >>> noisy = parallel_apply(lambda row, rng: row + rng.normal(), a, rng=42)
    """
    call = make_call(
        func,
        arrays,
        axis=axis,
        args=args,
        kwargs=kwargs,
        vectorized=vectorized,
        chunk=chunk,
        depth=depth,
        boundary=boundary,
        out=out,
        rng=rng,
        settings=resolve(options),
    )
    return compute(call)


def compute(call: Call) -> Any:
    """The result of a call that has been checked."""
    if call.settings.progress is None and not reports.get():
        return _compute(call, None)
    with Watch(call) as watch:
        result = _compute(call, watch)
        watch.finish()
        return result


def _compute(call: Call, watch: Watch | None) -> Any:
    if call.settings.verify:
        from ._audit import run_with_audit

        return run_with_audit(call, watch)
    job = Job(call, watch=watch)
    runner_of(call)(job)
    if job.disputed is not None:
        from ._audit import audit

        return audit(job)
    return job.finish()


def parallel_map(
    func: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    drop_none: bool = False,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    rng: Any = None,
    **options: Unpack[Options],
) -> list[T]:
    """Map a function over items of any kind, on all cores.

    The list that it gives is that of the plain loop,
    ``[func(item, *args, **kwargs) for item in items]``, in order.

    Parameters
    ----------
    func : callable
        ``func(*items, *args, **kwargs)``. It may be a lambda or come from a
        notebook.
    *iterables : iterable
        Lists, tuples, generators: mapped together. Items may be anything that
        can be pickled: images of different sizes, file names, records. From an
        iterator no more items are taken than are at work, and a few.
    drop_none : bool, optional
        Leave out results that are None.
    args : tuple, optional
        Further arguments of every call. Large arrays go to each worker once.
    kwargs : dict, optional
        Further keyword arguments of every call.
    rng : optional
        As for `parallel_apply`: each call gets ``rng=``, a Generator of its own.
    **options
        How the call runs; see `parwise.Options`. With ``errors="ignore"`` the
        result is None where there is none.

    Returns
    -------
    list
        What `func` returned, item by item.

    Raises
    ------
    TypeError
        For a wrong argument, before any work.
    ValueError
        If the iterables are of different length.
    Exception
        Whatever `func`, or an iterator, raised first, with a note that names
        the item.

    See Also
    --------
    parallel_apply : For arrays.

    Examples
    --------
    >>> from parwise import parallel_map
    >>> parallel_map(str.upper, ["a", "b", "c"])
    ['A', 'B', 'C']
    >>> parallel_map(pow, [2, 3, 4], [5, 2, 1])
    [32, 9, 4]
    >>> parallel_map(lambda x: x if x % 2 else None, range(5), drop_none=True)
    [1, 3]

    It is what SciPy's ``workers=`` wants:

    >>> from scipy.optimize import differential_evolution, rosen
    >>> found = differential_evolution(
    ...     rosen, [(0, 2), (0, 2)], workers=parallel_map, updating="deferred", rng=1, maxiter=3, polish=False
    ... )
    """
    if not isinstance(drop_none, bool):
        raise TypeError(f"drop_none must be a bool, got {drop_none!r} of type {type(drop_none).__name__}")
    settings = resolve(options)
    call = make_list_call(func, iterables, args=args, kwargs=kwargs, rng=rng, settings=settings)
    results: list[T] = compute(call)
    return [one for one in results if one is not None] if drop_none else results


def parallel(func: F | None = None, /, **options: Unpack[Options]) -> Any:
    """Give a function a way to be mapped, and leave it as it is.

    ``func.parallel(items, *args, **kwargs)`` calls it for each item, on all
    cores. Use it bare or with options; or set ``func.parallel = parallel(func).parallel``.

    Parameters
    ----------
    func : callable
        Stays itself: it is called, pickled and documented as before.
    **options
        How its calls run; see `parwise.Options`.

    Returns
    -------
    callable
        `func`, with the attribute ``parallel``: a function of a sequence, or any
        iterable, and of further arguments that each call gets. Of an array it
        gives the array that `parallel_apply` gives, of anything else a list,
        without the results that are None.

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
    """
    resolve(options)
    if func is None:
        return functools.partial(parallel, **options)
    if not callable(func):
        raise TypeError(f"func must be callable, got {type(func).__name__}; write @parallel, or @parallel(workers=2)")

    def mapped(items: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the function for each item, on all cores; see `parwise.parallel`."""
        if isinstance(items, np.ndarray):
            return parallel_apply(func, items, args=args, kwargs=kwargs, **options)
        return parallel_map(func, items, drop_none=True, args=args, kwargs=kwargs, **options)

    try:
        func.parallel = mapped  # type: ignore[attr-defined]
    except AttributeError as error:
        raise TypeError(
            f"a {type(func).__name__} takes no attribute, so {getattr(func, '__name__', func)!r} cannot have "
            ".parallel; use parallel_map(func, items)"
        ) from error
    return func


def plan(
    *arrays: Any,
    axis: int = 0,
    chunk: int | None = None,
    depth: int = 0,
    boundary: Any = None,
) -> list[Block]:
    """The blocks that `parallel_apply` gives to a block function.

    They depend on the arrays' shape and dtype, `chunk` and `depth` alone, never
    on the workers: so does the result.

    Parameters
    ----------
    *arrays : ndarray or array_like
    axis, chunk, depth, boundary : optional
        As for `parallel_apply` with ``vectorized=True``.

    Returns
    -------
    list of Block
        Tuples ``(start, stop, first, last)``: the result of ``start:stop`` comes
        from a call that sees ``first:last``.

    Raises
    ------
    TypeError, ValueError
        For a wrong argument.

    See Also
    --------
    parallel_apply

    Examples
    --------
    >>> import numpy as np
    >>> import parwise
    >>> for block in parwise.plan(np.zeros((7, 500)), chunk=3, depth=2):
    ...     print(block)
    Block(start=0, stop=3, first=0, last=5)
    Block(start=3, stop=7, first=1, last=7)
    """
    call = make_call(
        _nothing,
        arrays,
        axis=axis,
        vectorized=True,
        chunk=chunk,
        depth=depth,
        boundary=boundary,
        settings=resolve({}),
    )
    return call.blocks


def _nothing(block: Any) -> None:
    """Stands in where a function is asked for and never called."""
