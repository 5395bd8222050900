"""`parallel_apply`, and `plan`, which shows its blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from .._core.arguments import make_call
from .._core.call import Block
from .._core.options.keywords import show_keywords
from .._core.options.options import Options, resolve
from .._system.limits import available_memory
from .run import compute

if TYPE_CHECKING:
    import numpy as np

    from .typed import ArrayKeywords

Out = TypeVar("Out")


@overload
def parallel_apply(
    func: Callable[..., tuple[Any, ...]], /, *arrays: Any, out: None = None, **keywords: Unpack[ArrayKeywords]
) -> tuple[np.ndarray, ...]: ...


@overload
def parallel_apply(
    func: Callable[..., Any], /, *arrays: Any, out: None = None, **keywords: Unpack[ArrayKeywords]
) -> np.ndarray: ...


@overload
def parallel_apply(func: Callable[..., Any], /, *arrays: Any, out: Out, **keywords: Unpack[ArrayKeywords]) -> Out: ...


@show_keywords(Options)
def parallel_apply(
    func: Callable[..., Any],
    /,
    *arrays: Any,
    axis: int | tuple[int, ...] = 0,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    vectorized: bool = False,
    chunk: int | tuple[int | None, ...] | Mapping[int, int] | None = None,
    depth: int | tuple[int, ...] | Mapping[int, int] = 0,
    boundary: Any = None,
    out: Any = None,
    rng: Any = None,
    **options: Unpack[Options],
) -> Any:
    """Map a function over an axis of arrays, on all cores.

    The result has exactly the bits of the plain loop::

        np.stack([func(a[i]) for i in range(len(a))])

    `axis` names the axes to loop over, and `func` gets the rest. For a cube of
    shape ``(time, lat, lon)``::

        axis=0         func(cube[i])         an image, once per time
        axis=(1, 2)    func(cube[:, i, j])   a series, once per pixel

    This is the opposite of NumPy's reductions: ``np.median(cube, axis=0)`` and
    ``parwise.apply_along_axis(func, 0, cube)`` consume the axis that they name.

    Parameters
    ----------
    func : callable
        An element function ``func(*elements, *args, **kwargs)``; or, with
        `vectorized`, a block function that takes consecutive elements and keeps
        `axis`. It may be a lambda or come from a notebook. It gets copies, so it
        may write to its elements without changing the array.
    *arrays : ndarray or array_like
        Mapped together; all have the same length along `axis`. Arrays in files
        (zarr, h5py) are read block by block, and each of their chunks once.
    axis : int or tuple of int, optional
        Axis or axes to loop over: ``axis=(1, 2)`` calls `func` once per pixel
        with ``a[:, i, j]``.
    args : tuple, optional
        Further arguments of every call. Large arrays are sent to each worker once.
    kwargs : dict, optional
        Further keyword arguments of every call.
    vectorized : bool, optional
        True if `func` takes a block. Along several axes blocks are boxes, whose
        lengths `func` must keep.
    chunk : int, tuple or dict, optional
        Elements per block: one int for all mapped axes, a tuple in the order of
        `axis`, or a dict by axis. Blocks never depend on the number of workers;
        a remainder of one element joins the block before it.
    depth : int, tuple or dict, optional
        Elements of its neighbours, those at corners too, that a block also gets,
        on each side. The function must keep the length; the neighbours' part of
        its result is cut off. An axis that a dict does not name has 0.
    boundary : {"reflect", "symmetric", "nearest", "wrap", "constant"}, tuple or dict, optional
        Values beyond the ends of the array, in the words of `numpy.pad`
        ("nearest" is its "edge", "periodic" is "wrap"); ``("constant", value)``
        for a value other than 0. None, the default: the first and last blocks
        are shorter. Several axes are padded one after another, in the order of
        `axis`.
    out : array, optional
        Array to store the result in (a tuple of arrays for a tuple result), cast
        as NumPy's ufuncs do, by "same_kind"; but text that would be cut is an
        error. Files (zarr, h5py) are written in whole chunks. Do not pass a
        slice of one, ``z[:10]``, which is a copy. If `func` reads that array,
        results are held in memory until the end.
    rng : int, SeedSequence, BitGenerator or Generator, optional
        If given, `func` gets ``rng=``, a `numpy.random.Generator` of its own for
        each element (or block): for an int that of
        ``np.random.default_rng(seed).spawn(n)[i]``, with any workers and
        executor. Given a Generator, each call spawns a child from it, so a
        second call draws different numbers.
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
        If a worker process ended while it computed an element.
    OSError
        If `out` lies in a file and the disk has no room for it; before any work.
    NotReproducibleError
        If `verify` is True and a worker computed different bits than this process.
    Exception
        The exception that `func` raised for the lowest index, with a note that
        names the index.

    See Also
    --------
    parallel_map : For lists of anything.
    Options : More on each option.

    Notes
    -----
    Worker processes have copies: of what `func` changes beside its result, as a
    list that it appends to or an attribute that it counts in, only the part of
    the elements computed in this process arrives. Return the value instead; or
    use ``executor="threads"``.

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

    A filter over boxes of an image, each with its neighbours on all sides:

    >>> from scipy.ndimage import median_filter
    >>> image = np.arange(10_000.0).reshape(100, 100) % 17
    >>> how = {"axis": (0, 1), "args": (5,), "vectorized": True, "chunk": (40, 50), "depth": 2}
    >>> np.array_equal(parallel_apply(median_filter, image, **how), median_filter(image, 5))
    True

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
        settings=resolve(options, func, parallel_apply),
        memory=available_memory,
    )
    return compute(call)


def plan(
    *arrays: Any,
    axis: int | tuple[int, ...] = 0,
    chunk: int | tuple[int | None, ...] | Mapping[int, int] | None = None,
    depth: int | tuple[int, ...] | Mapping[int, int] = 0,
    boundary: Any = None,
) -> list[Block]:
    """The blocks with which `parallel_apply` calls a block function.

    They depend on the shape and dtype of the arrays, on `chunk` and on `depth`,
    never on the workers. So does the result: it has the bits of the loop ::

        for b in parwise.plan(a, axis=(0, 1), depth=2, ...):
            seen = a[b.first[0]:b.last[0], b.first[1]:b.last[1]]  # beyond the ends: as numpy.pad has it
            result[b.start[0]:b.stop[0], b.start[1]:b.stop[1]] = func(seen)[2:-2, 2:-2]  # without the neighbours

    Parameters
    ----------
    *arrays : ndarray or array_like
    axis, chunk, depth, boundary : optional
        As for `parallel_apply` with ``vectorized=True``.

    Returns
    -------
    list of Block
        Tuples ``(start, stop, first, last)``: the result of ``start:stop`` comes
        from a call that sees ``first:last``. Along several axes each of these is
        a tuple.

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
    >>> parwise.plan(np.zeros((7, 500)), axis=(0, 1), chunk=(3, 250), depth={1: 10})[1]
    Block(start=(0, 250), stop=(3, 500), first=(0, 240), last=(3, 500))
    """
    if not arrays or callable(arrays[0]):
        raise TypeError("plan takes the arrays alone, without the function, as in plan(array, chunk=100)")
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
    """A function for a call that is never run."""
