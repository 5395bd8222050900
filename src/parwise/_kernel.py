"""The one place where the mapped function is called."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, repeat
from operator import length_hint
from typing import Any, TypeAlias

import numpy as np

from ._results import Results, Stack, is_masked, pack_column, split_tuples

#: Holds the index of the element at hand: one int, that another process may see.
Mark: TypeAlias = "memoryview[int]"

#: Gives memory for results of one dtype and shape: ``place(count, dtype, shape)``.
Place: TypeAlias = Callable[[int, "np.dtype[Any]", tuple[int, ...]], np.ndarray]


_nested: ContextVar[bool] = ContextVar("parwise_nested", default=False)


def is_nested() -> bool:
    """Whether this is a call from within a mapped function: it runs serially."""
    return _nested.get()


def new_memory(count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Memory of their own for results."""
    return np.empty((count, *shape), dtype)


@dataclass(slots=True)
class Outcome:
    """What became of one task.

    Attributes
    ----------
    results : Results or None
        None if the function raised.
    seconds : float
        Time spent in the function.
    threaded : bool
        Whether threads of BLAS or the like took part.
    index : int
        The element that raised.
    error : BaseException or None
    """

    results: Results | None
    seconds: float
    threaded: bool = False
    index: int = -1
    error: BaseException | None = None


@dataclass(frozen=True)
class Kernel:
    """The function with what every call of it gets.

    Attributes
    ----------
    func : callable
    args, kwargs : tuple and dict
    vectorized : bool
        True if `func` takes a whole block.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    vectorized: bool = False

    def run(self, runs: list[np.ndarray], lo: int, mark: Mark | None = None, place: Place = new_memory) -> Outcome:
        """Call the function on each element of `runs`, or once on the block.

        Parameters
        ----------
        runs : list of ndarray
            One per mapped array, in the caller's layout.
        lo : int
            Index of the first element, for `mark` and errors.
        mark : memoryview of one int, optional
            Kept at the index of the element at hand, for whoever finds this
            process dead.
        place : callable
            Where results go if they are arrays of one dtype and shape.
        """
        # `map` calls at C speed and walks arrays as `a[i]` does.
        elements = iter(runs[0])
        nested = _nested.set(True)
        start = time.perf_counter()
        try:
            if self.vectorized:
                results = self._block(runs, lo, mark)
            else:
                results = self._elements(elements, runs, lo, mark, place)
        except BaseException as error:
            # Its iterator knows how far it came, at no cost per element.
            left = 0 if self.vectorized else length_hint(elements)
            index = lo if self.vectorized else lo + len(runs[0]) - left - 1
            return Outcome(None, time.perf_counter() - start, index=index, error=error)
        finally:
            _nested.reset(nested)
        return Outcome(results, time.perf_counter() - start)

    def _block(self, runs: list[np.ndarray], lo: int, mark: Mark | None) -> Results:
        if mark is not None:
            mark[0] = lo
        result = self.func(*runs, *self.args, **self.kwargs)
        if isinstance(result, tuple):
            return Results([Stack("block", _block_array(one)) for one in result], type(result))
        return Results([Stack("block", _block_array(result))])

    def _elements(
        self, elements: Iterator[Any], runs: list[np.ndarray], lo: int, mark: Mark | None, place: Place
    ) -> Results:
        func = partial(self.func, **self.kwargs) if self.kwargs else self.func
        calls: Iterator[Any] = map(func, elements, *runs[1:], *map(repeat, self.args))
        if mark is not None:
            calls = _marked(calls, mark, lo)
        count = len(runs[0])
        results, found = _gather(calls, count, lo, place)
        if found < count:
            # `map` takes a StopIteration from the function for its own end; a
            # plain loop lets it through.
            raise StopIteration
        return results


def _marked(calls: Iterator[Any], mark: Mark, lo: int) -> Iterator[Any]:
    """The same results, with `mark` at the element that is being computed."""
    mark[0] = lo
    for mark[0], result in enumerate(calls, lo + 1):
        yield result


def _gather(calls: Iterator[Any], count: int, lo: int, place: Place) -> tuple[Results, int]:
    """Collect results, arrays straight into their place, and tell how many there were."""
    raw = list(islice(calls, 1))
    if raw and type(raw[0]) is np.ndarray and not raw[0].dtype.hasobject:
        stack = _stack(raw[0], calls, count, place)
        if isinstance(stack, np.ndarray):
            return Results([Stack(np.ndarray, stack)]), len(stack)
        raw = stack
    raw.extend(calls)
    if raw and isinstance(raw[0], tuple):
        columns, kind = split_tuples(raw, lo)
        return Results([pack_column(column) for column in columns], kind), len(raw)
    return Results([pack_column(raw)]), len(raw)


def _stack(first: np.ndarray, calls: Iterator[Any], count: int, place: Place) -> np.ndarray | list[Any]:
    """Copy arrays of one dtype and shape into their place, each as it comes.

    Returns
    -------
    ndarray or list
        The stack; or, from the first result on that does not fit, all so far.
    """
    dtype, shape = first.dtype, first.shape
    stack = place(count, dtype, shape)
    stack[0] = first
    at = 1
    for result in calls:
        if type(result) is not np.ndarray or result.dtype != dtype or result.shape != shape:
            return [*stack[:at].copy(), result]
        stack[at] = result
        at += 1
    return stack[:at]


def _block_array(result: Any) -> np.ndarray:
    """A block function's result as an array that can be concatenated."""
    if is_masked(type(result)):
        raise TypeError("func returned a MaskedArray, whose mask would be lost; return filled values")
    array = np.asarray(result)
    if array.ndim == 0:
        raise ValueError(
            f"a block function must return an array that keeps the mapped axis, got {type(result).__name__} "
            "without dimensions; for a function of one element leave out vectorized=True"
        )
    return array
