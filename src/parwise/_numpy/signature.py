"""`numpy.vectorize` with a signature: functions of arrays with core dimensions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .._core.options.settings import Settings
from . import originals
from .binding import Binding
from .outputs import Outputs, are_plain, collect, loop_shape, loop_suffices

#: Names of the core dimensions of each argument (or output), as in ``(m,n),(n)``.
CoreDims: TypeAlias = list[tuple[str, ...]]


def map_core_arrays(binding: Binding, settings: Settings, otypes: Any, signature: str) -> Any:
    """Return the result of `numpy.vectorize` for a function of arrays with core dimensions.

    It is NotImplemented if only NumPy's own loop has that result, or raises the right error.
    """
    input_dims, output_dims = _parse_signature(signature)
    if len(binding.values) != len(input_dims) or (otypes is not None and not len(otypes)):
        return NotImplemented
    arrays = [np.asanyarray(value) for value in binding.values]
    if not are_plain(arrays, settings):
        return NotImplemented
    sizes: dict[str, int] = {}
    if not all(_update_sizes(sizes, one.shape, dims) for one, dims in zip(arrays, input_dims, strict=True)):
        return NotImplemented
    loop_shapes = [one.shape[: one.ndim - len(dims)] for one, dims in zip(arrays, input_dims, strict=True)]
    shape = loop_shape(loop_shapes)
    count = 0 if shape is None else math.prod(shape)
    if shape is None or not count or loop_suffices(settings, count):
        return NotImplemented
    # Views as NumPy makes them: read-only, with strides of 0.
    lengths = shape or (1,)
    views = [
        np.broadcast_to(one, lengths + one.shape[len(loop) :], subok=True)
        for one, loop in zip(arrays, loop_shapes, strict=True)
    ]
    constants = {
        k: views[k][(0,) * len(lengths)]
        for k, loop in enumerate(loop_shapes)
        if math.prod(loop) == 1 and (count > 1 or k)
    }
    func, args, kwargs = binding.bind(constants)
    varying = [one for k, one in enumerate(views) if k not in constants]
    results = collect(func, varying, tuple(range(len(lengths))), settings, args, kwargs)
    return _make_outputs(Outputs(results, shape), arrays, sizes, shape, output_dims, otypes, signature)


def _make_outputs(
    outputs: Outputs,
    arrays: list[np.ndarray],
    sizes: dict[str, int],
    shape: tuple[int, ...],
    output_dims: CoreDims,
    otypes: Any,
    signature: str,
) -> Any:
    """The output arrays that NumPy makes of the results."""
    if outputs.empty:
        told = zip(otypes or [np.float64] * len(output_dims), output_dims, strict=False)
        # A dimension that no argument has is not known.
        gaps = tuple(outputs.all_gaps(one, tuple(sizes[d] for d in dims if d in sizes)) for one, dims in told)
        return gaps[0] if len(gaps) == 1 else gaps
    stack = outputs.uniform()
    if stack is not None and len(output_dims) == 1 and (otypes is None or np.dtype(otypes[0]) == stack.dtype):
        core_shape = stack.shape[len(shape) :]
        if len(core_shape) == len(output_dims[0]) and _update_sizes(sizes, core_shape, output_dims[0]):
            return stack
    return _replay(outputs, arrays, otypes, signature, tuple(range(len(shape))))


def _replay(outputs: Outputs, arrays: list[np.ndarray], otypes: Any, signature: str, axes: tuple[int, ...]) -> Any:
    """Run NumPy's own loop with a function that returns the known results, in order."""
    values = iter(outputs.values())
    result = originals.vectorize(_NextResult(values.__next__), otypes=otypes, signature=signature)(*arrays)
    if isinstance(result, tuple):
        return tuple(outputs.with_gaps(one, axes) for one in result)
    return outputs.with_gaps(result, axes)


class _NextResult:
    """A function that ignores its arguments and returns the next known result."""

    def __init__(self, next_result: Callable[[], Any]) -> None:
        self._next_result = next_result

    def __call__(self, *_: Any) -> Any:
        return self._next_result()


def _parse_signature(signature: str) -> tuple[CoreDims, CoreDims]:
    """Core dimensions of inputs and of outputs; NumPy has checked the signature."""
    sides = [
        [tuple(re.findall(r"\w+", one)) for one in re.findall(r"\(([^)]*)\)", side)] for side in signature.split("->")
    ]
    return sides[0], sides[1]


def _update_sizes(sizes: dict[str, int], shape: tuple[int, ...], dims: tuple[str, ...]) -> bool:
    """Add the core dimensions of an array to `sizes`; return False if they are too few or differ from known sizes."""
    if len(shape) < len(dims):
        return False
    core_shape = shape[len(shape) - len(dims) :]
    return all(sizes.setdefault(dim, size) == size for dim, size in zip(dims, core_shape, strict=True))
