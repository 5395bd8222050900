"""One call of a vectorized function: of scalars, or by a signature of arrays."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias, Unpack

import numpy as np

from .._core.options import Options, resolve
from .._core.output import RawResults
from .._core.settings import Settings
from .binding import Binding, CachedFirst, CachedResult
from .inline import InlineCalls, is_worth_a_try
from .outputs import (
    IterationOrder,
    Outputs,
    collect,
    is_plain,
    iteration_order,
    loop_shape,
    loop_suffices,
    objects_of,
    refuse_options,
)

#: Core dimensions of each input and output.
Cores: TypeAlias = list[tuple[str, ...]]


def map_scalars(binding: Binding, settings: Settings, otypes: Any, cache: bool) -> Any:
    """What `numpy.vectorize` gives without a signature.

    Returns
    -------
    ndarray or tuple of ndarray
        NotImplemented if NumPy's own loop gives that, or the right error.
    """
    objects = [np.asanyarray(value, dtype=object) for value in binding.values]
    if not _all_plain(objects, settings):
        return NotImplemented
    shape = loop_shape([one.shape for one in objects])
    count = 0 if shape is None else math.prod(shape)
    if shape is None or not count or loop_suffices(settings, count) or (otypes is not None and not len(otypes)):
        return NotImplemented
    objects = [one.view(np.ndarray) for one in objects]
    begun = time.perf_counter()
    first = _first_result(binding, settings) if otypes is None else None
    seconds = None if first is None else time.perf_counter() - begun
    if first is not None and isinstance(first[0], tuple) and not first[0]:
        return NotImplemented
    walk = IterationOrder(shape, iteration_order(objects, shape))
    constants = {k: one.item() for k, one in enumerate(objects) if one.size == 1 and (count > 1 or k)}
    func, args, kwargs = binding.bind(constants)
    live = [_flat(one, walk) for k, one in enumerate(objects) if k not in constants]
    if cache and first is not None:
        func = CachedFirst(func)
        live[0] = live[0].copy()
        live[0][0] = CachedResult(first[0])
    if is_worth_a_try(settings, count, seconds):
        found = _with_opening(func, live, settings, args, kwargs, walk)
    else:
        found = collect(func, live, (0,), settings, args, kwargs, walk)
    return _scalar_outputs(found, walk, first, otypes)


def _with_opening(
    func: Callable[..., Any],
    arrays: list[np.ndarray],
    settings: Settings,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    walk: IterationOrder,
) -> RawResults:
    """Results of all elements, of which the caller computes the first by itself."""
    opening = InlineCalls(func, arrays, args, kwargs)
    try:
        opening.run()
    except BaseException as error:
        error.add_note(walk.name(len(opening.results)))
        raise
    results, done = opening.results, len(opening.results)
    if done < len(arrays[0]):
        rest = [one[done:] for one in arrays]
        results += collect(func, rest, (0,), settings, args, kwargs, replace(walk, start=done)).values()
    return RawResults(objects_of(results, (len(results),)), None, 1, np.empty(0, np.intp))


def _all_plain(arrays: list[np.ndarray], settings: Settings) -> bool:
    for one in arrays:
        if not is_plain(one):
            refuse_options(settings, f"an argument of type {type(one).__name__}")
            return False
    return True


def _flat(array: np.ndarray, walk: IterationOrder) -> np.ndarray:
    """The elements of `array`, broadcast, as they are walked through."""
    if array.shape == walk.shape and len(walk.shape) < 2:
        return array.reshape(-1)
    return np.broadcast_to(array, walk.shape).transpose(walk.order).reshape(-1)


def _first_result(binding: Binding, settings: Settings) -> tuple[Any] | None:
    """What the function gives for the first element as NumPy hands it over: not made a Python object.

    None if errors are to be ignored, and it raised one.
    """
    given = [np.asarray(value).flat[0] for value in binding.values]
    try:
        if not settings.isolate:
            return (binding.call(given),)
        func, args, kwargs = binding.bind({})
        single = [objects_of([one], (1,)) for one in given]
        found = collect(func, single, (0,), settings._replace(ignore=False, progress=None), args, kwargs)
        return (found.values()[0],)
    except Exception:
        if settings.ignore:
            return None
        raise


def _scalar_outputs(found: RawResults, walk: IterationOrder, first: tuple[Any] | None, otypes: Any) -> Any:
    """The arrays that NumPy casts results to."""
    shape = walk.lengths
    outputs = Outputs(found, shape)
    if outputs.empty:
        nothing = walk.back(outputs.nothing())
        return nothing if otypes is None or len(otypes) == 1 else (nothing,) * len(otypes)
    if otypes is None:
        example = outputs.values()[0] if first is None else first[0]
        each = example if isinstance(example, tuple) else (example,)
        otypes = [np.asarray(one).dtype.char for one in each]
    every = tuple(range(len(shape)))
    if len(otypes) == 1:
        array = outputs.uniform()
        if array is None or array.shape != shape or array.dtype != np.dtype(otypes[0]):
            array = np.asanyarray(outputs.objects(), dtype=otypes[0])
        return walk.back(outputs.with_gaps(array, every))
    columns = zip(*_tuples(outputs.values(), len(otypes)), strict=True)
    arrays = [np.asanyarray(objects_of(list(c), shape), dtype=o) for c, o in zip(columns, otypes, strict=True)]
    return tuple(walk.back(outputs.with_gaps(array, every)) for array in arrays)


def _tuples(values: list[Any], width: int) -> list[tuple[Any, ...]]:
    for k, value in enumerate(values):
        if not (isinstance(value, tuple) and len(value) == width):
            got = f"a tuple of {len(value)}" if isinstance(value, tuple) else f"no tuple but {type(value).__name__}"
            raise ValueError(
                f"pyfunc has {width} outputs, but its result for element {k} is {got} (NumPy would leave None "
                "there and in elements behind it); return as many outputs for all elements"
            )
    return values


def map_arrays(binding: Binding, settings: Settings, otypes: Any, signature: str) -> Any:
    """What `numpy.vectorize` gives with a signature.

    Returns
    -------
    ndarray or tuple of ndarray
        NotImplemented if NumPy's own loop gives that, or the right error.
    """
    given, giving = _core_dims(signature)
    if len(binding.values) != len(given) or (otypes is not None and not len(otypes)):
        return NotImplemented
    arrays = [np.asanyarray(value) for value in binding.values]
    if not _all_plain(arrays, settings):
        return NotImplemented
    sizes: dict[str, int] = {}
    if not all(_consistent(sizes, one.shape, dims) for one, dims in zip(arrays, given, strict=True)):
        return NotImplemented
    loops = [one.shape[: one.ndim - len(dims)] for one, dims in zip(arrays, given, strict=True)]
    shape = loop_shape(loops)
    count = 0 if shape is None else math.prod(shape)
    if shape is None or not count or loop_suffices(settings, count):
        return NotImplemented
    # As NumPy makes them: read-only, with strides of 0.
    lead = shape or (1,)
    views = [
        np.broadcast_to(one, lead + one.shape[len(loop) :], subok=True) for one, loop in zip(arrays, loops, strict=True)
    ]
    constants = {
        k: views[k][(0,) * len(lead)] for k, loop in enumerate(loops) if math.prod(loop) == 1 and (count > 1 or k)
    }
    func, args, kwargs = binding.bind(constants)
    live = [one for k, one in enumerate(views) if k not in constants]
    found = collect(func, live, tuple(range(len(lead))), settings, args, kwargs)
    outputs = Outputs(found, shape)
    if outputs.empty:
        return outputs.nothing() if len(giving) == 1 else (outputs.nothing(),) * len(giving)
    whole = outputs.uniform()
    if whole is not None and len(giving) == 1 and (otypes is None or np.dtype(otypes[0]) == whole.dtype):
        core = whole.shape[len(shape) :]
        if len(core) == len(giving[0]) and _consistent(sizes, core, giving[0]):
            return whole
    return _again(outputs, arrays, otypes, signature, tuple(range(len(shape))))


def _again(outputs: Outputs, arrays: list[np.ndarray], otypes: Any, signature: str, axes: tuple[int, ...]) -> Any:
    """Have NumPy put the results together: it calls for them in order."""
    values = iter(outputs.values())
    result = np.vectorize(_Next(values.__next__), otypes=otypes, signature=signature)(*arrays)
    if isinstance(result, tuple):
        return tuple(outputs.with_gaps(one, axes) for one in result)
    return outputs.with_gaps(result, axes)


class _Next:
    """Gives one result after another, whatever it is called with."""

    def __init__(self, take: Callable[[], Any]) -> None:
        self._take = take

    def __call__(self, *_: Any) -> Any:
        return self._take()


def _core_dims(signature: str) -> tuple[Cores, Cores]:
    """Core dimensions of inputs and outputs, of a signature that NumPy has checked."""
    sides = [
        [tuple(re.findall(r"\w+", one)) for one in re.findall(r"\(([^)]*)\)", side)] for side in signature.split("->")
    ]
    return sides[0], sides[1]


def _consistent(sizes: dict[str, int], shape: tuple[int, ...], dims: tuple[str, ...]) -> bool:
    """Whether a shape has core dimensions of the known sizes, noting new ones."""
    if len(shape) < len(dims):
        return False
    core = shape[len(shape) - len(dims) :]
    return all(sizes.setdefault(dim, size) == size for dim, size in zip(dims, core, strict=True))


# More arguments than these NumPy's iterator may refuse to look at.
MOST_ARGUMENTS = 30


class vectorize(np.vectorize):  # noqa: N801 - NumPy's name
    """A function of scalars made one of arrays, which works on all cores.

    A drop-in for `numpy.vectorize`: results have the same bytes, dtype, shape
    and memory layout, and `pyfunc` gets what it gets there (Python numbers,
    since NumPy maps over arrays of objects; NumPy's own ones for the first
    call, which finds out `otypes`; with a `signature`, arrays).

    Parameters
    ----------
    pyfunc : callable, optional
        The function. Without it this is a decorator.
    otypes : str or list of dtype, optional
        Of each output. By default those of the results for the first element,
        for which `pyfunc` is called once more.
    doc : str, optional
        The docstring; by default that of `pyfunc`.
    excluded : set of str and int, optional
        Names and positions of arguments that are not mapped over.
    cache : bool, optional
        Use that first call's result instead of calling again.
    signature : str, optional
        As ``(m,n),(n)->(m)``, for functions of arrays.
    **options
        How calls run; see `parwise.Options`.

    Raises
    ------
    TypeError, ValueError
        As NumPy does, and for wrong options. Calls raise a TypeError if
        ``isolate``, ``timeout`` or ``errors="ignore"`` is set and an argument
        is an array that only NumPy's own loop can do.

    See Also
    --------
    parallel_apply : Maps over axes of arrays; its functions get slices.

    Notes
    -----
    Where an argument is a masked array, a matrix or another subclass of
    `numpy.ndarray` (except `numpy.memmap`), and where there is one element
    only, the call is left to NumPy's own loop in this process.

    Results that are Python objects come from workers as copies: two elements
    for which `pyfunc` returns the same list have two lists.

    Where NumPy goes on with None after a result with another number of
    outputs, this raises a ValueError.

    With ``errors="ignore"`` the dtype is that of the first result there is.

    Examples
    --------
    >>> import parwise
    >>> @parwise.vectorize
    ... def gcd(a, b):
    ...     while b:
    ...         a, b = b, a % b
    ...     return a
    >>> gcd([12, 18, 24], [[9], [10]])
    array([[3, 9, 3],
           [2, 2, 2]])
    >>> @parwise.vectorize(otypes=[float], excluded={"p"}, workers=2)
    ... def polynomial(x, p):
    ...     y = 0
    ...     for c in p:
    ...         y = y * x + c
    ...     return y
    >>> polynomial([0, 1, 2], p=[1, 2, 3])
    array([ 3.,  6., 11.])
    """

    def __init__(
        self,
        pyfunc: Any = np._NoValue,
        otypes: Any = None,
        doc: str | None = None,
        excluded: Iterable[int | str] | None = None,
        cache: bool = False,
        signature: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        resolve(options)
        super().__init__(pyfunc, otypes, doc, excluded, cache, signature)
        self._options = options

    def __getstate__(self) -> dict[str, Any]:
        # NumPy keeps ufuncs here, which cannot be pickled.
        return {**self.__dict__, "_ufunc": {}}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Map over arguments, broadcast to one shape."""
        settings = resolve(self._options)
        pyfunc: Any = self.pyfunc
        if pyfunc is np._NoValue or loop_suffices(settings):
            return super().__call__(*args, **kwargs)
        binding = Binding(pyfunc, args, kwargs, self.excluded)
        result = self._mapped(binding, settings)
        if result is NotImplemented:
            return super().__call__(*args, **kwargs)
        return result

    def _mapped(self, binding: Binding, settings: Settings) -> Any:
        """The result, or NotImplemented if NumPy's own loop gives that (or the right error)."""
        if not 0 < len(binding.values) <= MOST_ARGUMENTS:
            refuse_options(settings, f"a call with {len(binding.values)} arguments to map over")
            return NotImplemented
        if self.signature is not None:
            return map_arrays(binding, settings, self.otypes, self.signature)
        return map_scalars(binding, settings, self.otypes, self.cache)
