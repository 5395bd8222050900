"""`numpy.vectorize` without a signature: functions of scalars."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .._clock import perf_counter
from .._core.options.settings import Settings
from .._core.outputs.output import RawResults
from .binding import Binding, CachedFirst, CachedResult
from .inline import InlineCalls, should_start_inline
from .outputs import (
    IterationOrder,
    Outputs,
    are_plain,
    collect,
    iteration_axes,
    loop_shape,
    loop_suffices,
    object_array,
)

_UNWRAPS = np.lib.NumpyVersion(np.__version__) < "2.3.0"


def map_scalars(binding: Binding, settings: Settings, otypes: Any, cache: bool) -> Any:
    """Return the result of `numpy.vectorize` for a function of scalars.

    It is NotImplemented if only NumPy's own loop has that result, or raises the right error.
    """
    objects = [np.asanyarray(value, dtype=object) for value in binding.values]
    if not are_plain(objects, settings):
        return NotImplemented
    shape = loop_shape([one.shape for one in objects])
    count = 0 if shape is None else math.prod(shape)
    if shape is None or not count or loop_suffices(settings, count) or (otypes is not None and not len(otypes)):
        return NotImplemented
    objects = [one.view(np.ndarray) for one in objects]
    start = perf_counter()
    first = _first_result(binding, settings) if otypes is None else None
    seconds = None if first is None else perf_counter() - start
    if first is not None and isinstance(first[0], tuple) and not first[0]:
        return NotImplemented
    order = IterationOrder(shape, iteration_axes(objects, shape))
    constants = {k: one.item() for k, one in enumerate(objects) if one.size == 1 and (count > 1 or k)}
    func, args, kwargs = binding.bind(constants)
    arrays = [_flatten(one, order) for k, one in enumerate(objects) if k not in constants]
    if cache and first is not None:
        func = CachedFirst(func)
        arrays[0] = arrays[0].copy()
        arrays[0][0] = CachedResult(first[0])
    if should_start_inline(settings, count, seconds):
        results = _collect_inline_first(func, arrays, settings, args, kwargs, order)
    else:
        results = collect(func, arrays, (0,), settings, args, kwargs, order)
    return _make_outputs(results, order, first, otypes)


def _collect_inline_first(
    func: Callable[..., Any],
    arrays: list[np.ndarray],
    settings: Settings,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    order: IterationOrder,
) -> RawResults:
    """Compute the first elements in this thread, and the rest as settings say."""
    inline = InlineCalls(func, arrays, args, kwargs)
    try:
        inline.run()
    except BaseException as error:
        error.add_note(order.name(len(inline.results)))
        raise
    results, done = inline.results, len(inline.results)
    if done < len(arrays[0]):
        rest = [one[done:] for one in arrays]
        results += collect(func, rest, (0,), settings, args, kwargs, replace(order, start=done)).values()
    return RawResults(object_array(results, (len(results),)), None, 1, np.empty(0, np.intp))


def _flatten(array: np.ndarray, order: IterationOrder) -> np.ndarray:
    """The elements of the broadcast array in iteration order, as a 1-D array."""
    if array.shape == order.shape and len(order.shape) < 2:
        return array.reshape(-1)
    return np.broadcast_to(array, order.shape).transpose(order.axes).reshape(-1)


def _first_result(binding: Binding, settings: Settings) -> tuple[Any] | None:
    """Call the function for the first element, with NumPy scalars as `numpy.vectorize` does to find otypes.

    The result is in a tuple of one. None stands for an error that ``errors="ignore"`` turns into a gap.
    """
    values = [np.asarray(value).flat[0] for value in binding.values]
    try:
        if not settings.isolate:
            return (binding.call(values),)
        func, args, kwargs = binding.bind({})
        arrays = [object_array([one], (1,)) for one in values]
        results = collect(func, arrays, (0,), settings._replace(errors="raise", progress=None), args, kwargs)
        return (results.values()[0],)
    except Exception:
        if settings.ignore:
            return None
        raise


def _make_outputs(results: RawResults, order: IterationOrder, first: tuple[Any] | None, otypes: Any) -> Any:
    """Cast results to the output arrays that NumPy makes."""
    shape = order.lengths
    outputs = Outputs(results, shape)
    if outputs.empty:
        gaps = tuple(order.restore_axes(outputs.all_gaps(one)) for one in otypes or (np.float64,))
        return gaps[0] if len(gaps) == 1 else gaps
    if otypes is None:
        example = outputs.values()[0] if first is None else first[0]
        items = example if isinstance(example, tuple) else (example,)
        otypes = [np.asarray(one).dtype.char for one in items]
    axes = tuple(range(len(shape)))
    if len(otypes) == 1:
        array = outputs.uniform()
        if array is None or array.shape != shape or array.dtype != np.dtype(otypes[0]):
            array = _cast(outputs.objects(), otypes[0])
        return order.restore_axes(outputs.with_gaps(array, axes))
    columns = zip(*_check_tuples(outputs.values(), len(otypes)), strict=True)
    arrays = [_cast(object_array(list(c), shape), o) for c, o in zip(columns, otypes, strict=True)]
    return tuple(order.restore_axes(outputs.with_gaps(array, axes)) for array in arrays)


def _cast(objects: np.ndarray, otype: Any) -> np.ndarray:
    """Cast the results of a ufunc as NumPy does."""
    # Before NumPy 2.3 the ufunc gave the object itself for arguments without axes (numpy issue 28624).
    return np.asanyarray(objects.item() if _UNWRAPS and not objects.ndim else objects, dtype=otype)


def _check_tuples(values: list[Any], nout: int) -> list[tuple[Any, ...]]:
    """Return `values` if all are tuples of `nout` items."""
    for k, value in enumerate(values):
        if not (isinstance(value, tuple) and len(value) == nout):
            got = f"a tuple of {len(value)}" if isinstance(value, tuple) else f"no tuple but {type(value).__name__}"
            raise ValueError(
                f"pyfunc has {nout} outputs, but its result for element {k} is {got} (NumPy would leave None "
                "there and in the elements after it); return as many outputs for all elements"
            )
    return values
