"""Calls the mapped function for the elements of one task, in the caller, a thread or a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice, repeat
from operator import length_hint
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._clock import perf_counter
from .cursor import Cursor
from .indexing import Halo
from .inputs.block_grid import BlockGrid
from .nesting import ALWAYS, NESTED
from .results import PLAIN_ARRAYS, SCALARS, WORDS, Column, Form, Results, Stack, detached, pack, refuse_more, wrap_of

if TYPE_CHECKING:
    from .effects.effect import Effect
    from .effects.isolated import FirstTask
    from .inputs.random import RandomStreams


#: The most exceptions of one task that are kept where they are ignored: to send one takes 0.1 ms.
MOST_FAILURES = 10
# Flags of the code of generators: CO_GENERATOR, CO_COROUTINE and CO_ASYNC_GENERATOR of `inspect`, which takes 5 ms.
_GENERATORS = 0x20 | 0x80 | 0x200

#: Returns memory for results of one dtype and shape: ``allocate(count, dtype, shape)``.
Allocate: TypeAlias = Callable[[int, "np.dtype[Any]", tuple[int, ...]], np.ndarray]


def new_memory(count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """New memory for results."""
    return np.empty((count, *shape), dtype)


class Outcome:
    """The outcome of one task: results, an error, or both.

    Attributes
    ----------
    results : Results or None
        None if the function raised; of a list, the results before the error.
    seconds : float
        Seconds spent in the function.
    threaded : bool
        True if threads of BLAS or OpenMP took part.
    index, error
        The first element for which the function raised, and the exception.
    gaps : ndarray or None
        Indices of elements without a result whose errors are ignored (of a
        block, its first index); `results` has those of the other elements.
    failures : list
        The exceptions of the first gaps, at most `MOST_FAILURES`.
    begun : float
        When the function was first called, by `time.perf_counter` of that machine.
    effects : sequence of Effect
        What the function did beside its result, see `FirstTask`; they travel among the output.
    """

    __slots__ = ("begun", "effects", "error", "failures", "gaps", "index", "results", "seconds", "threaded")

    def __init__(
        self,
        results: Results | None,
        seconds: float,
        threaded: bool = False,
        index: int = -1,
        error: BaseException | None = None,
        gaps: np.ndarray | None = None,
        begun: float = 0.0,
        failures: Sequence[BaseException] = (),
    ) -> None:
        self.failures = failures
        self.effects: Sequence[Effect] = ()
        self.results, self.seconds, self.threaded = results, seconds, threaded
        self.index, self.error, self.gaps, self.begun = index, error, gaps, begun

    def results_or_interrupt(self) -> Results | None:
        """The results, or None if the function raised; KeyboardInterrupt and the like are raised again."""
        if self.error is not None and not isinstance(self.error, Exception):
            raise self.error
        return self.results if self.error is None or self.gaps is not None else None


class Kernel:
    """The function with the arguments of every call.

    Attributes
    ----------
    ignore : bool
        True if an exception leaves a gap and the other elements are computed.
    timed : bool
        True if the cursor also notes when an element began.
    streams : RandomStreams, optional
        The generators that calls get as ``rng``.
    stride : int
        Number of elements from one block to the next.
    first_task : FirstTask, optional
        Looks at the first task in each process that computes some, if the caller computes none.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        vectorized: bool,
        ignore: bool = False,
        timed: bool = False,
        halo: Halo | BlockGrid | None = None,
        streams: RandomStreams | None = None,
        stride: int = 1,
        form: Form = "arrays",
        first_task: FirstTask | None = None,
    ) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.vectorized, self.ignore, self.timed = vectorized, ignore, timed
        self.halo, self.streams, self.stride, self.form = halo, streams, stride, form
        self.first_task = first_task

    def run(
        self, runs: list[np.ndarray], lo: int, hi: int, cursor: Cursor | None = None, allocate: Allocate = new_memory
    ) -> Outcome:
        """Call the function for each element of `runs`, or once for the block.

        Parameters
        ----------
        runs : list of ndarray
            One for each mapped array, in the caller's layout.
        lo, hi : int
            The elements, without a block's halo.
        cursor : Cursor, optional
            Kept at the current element, so that the caller can name it if this
            process dies.
        allocate : callable
            Returns memory for results that are arrays of one dtype and shape.
        """
        # `map` calls at C speed and indexes arrays as `a[i]` does.
        elements = iter(runs[0])
        nested = NESTED.set(ALWAYS)
        start = perf_counter()
        try:
            if self.vectorized:
                outcome = self._block(runs, lo, hi, cursor)
            elif self.ignore:
                outcome = self._elements_with_gaps(elements, runs, lo, cursor)
            elif self.form == "list":
                outcome = self._list(elements, runs, lo, cursor)
            else:
                outcome = Outcome(self._elements(elements, runs, lo, cursor, allocate), 0.0)
        except BaseException as error:
            # The iterator tells how many elements are left, at no cost per element.
            left = 0 if self.vectorized else length_hint(elements)
            index = lo if self.vectorized else lo + len(runs[0]) - left - 1
            outcome = Outcome(None, 0.0, index=index, error=error)
        finally:
            NESTED.reset(nested)
        outcome.seconds, outcome.begun = perf_counter() - start, start
        return outcome

    def _block(self, runs: list[np.ndarray], lo: int, hi: int, cursor: Cursor | None) -> Outcome:
        if cursor is not None:
            cursor.enter(lo)
        kwargs = self.kwargs
        if self.streams is not None:
            number = self.halo.number(lo) if isinstance(self.halo, BlockGrid) else lo // self.stride
            kwargs = {**kwargs, "rng": self.streams.one(number)}
        try:
            result = self.func(*runs, *self.args, **kwargs)
        except Exception as error:
            if not self.ignore:
                raise
            return Outcome(None, 0.0, index=lo, error=error, gaps=np.array([lo]), failures=[light(error)])
        arrays = [_block_array(one) for one in (result if isinstance(result, tuple) else (result,))]
        if self.halo is not None:
            arrays = [self.halo.trim(one, lo, hi) for one in arrays]
        stacks: list[Column] = [Stack("block", one) for one in arrays]
        return Outcome(Results(stacks, wrap_of(type(result)) if isinstance(result, tuple) else None), 0.0)

    def pack(self, raw: list[Any], indices: Sequence[int], kinds: set[type] | None = None) -> Results:
        """Make results of some elements, as `results.pack` does."""
        return pack(raw, indices, self.form, kinds)

    def calls(self, runs: list[np.ndarray]) -> Callable[[Iterator[Any]], Iterator[Any]]:
        """Make the function that iterates over the results of elements, as these are asked for, from the first on."""
        func = partial(self.func, **self.kwargs) if self.kwargs else self.func
        more: list[Iterator[Any]] = [*map(iter, runs[1:]), *map(repeat, self.args)]
        if self.streams is not None:
            func, more = partial(_call_with_rng, func), [*more, iter(self.streams.run(0, len(runs[0])))]
        return lambda elements: map(func, elements, *more)

    def _calls(
        self,
        function: Callable[..., Any],
        elements: Iterator[Any],
        runs: list[np.ndarray],
        lo: int,
    ) -> Iterator[Any]:
        """Iterate over the results of `function` for each element."""
        func = partial(function, **self.kwargs) if self.kwargs else function
        if self.streams is not None:
            # The element first: after an error its iterator tells how many elements were read.
            func = partial(_call_with_rng, func)
            streams = self.streams.run(lo, lo + len(runs[0]))
            return map(func, elements, *runs[1:], *map(repeat, self.args), streams)
        return map(func, elements, *runs[1:], *map(repeat, self.args))

    def _with_cursor(self, calls: Iterator[Any], index: int, cursor: Cursor | None) -> Iterator[Any]:
        """The same results, of elements from `index` on, with `cursor` kept."""
        return calls if cursor is None else cursor.follow(calls, index, self.timed)

    def _elements(
        self, elements: Iterator[Any], runs: list[np.ndarray], lo: int, cursor: Cursor | None, allocate: Allocate
    ) -> Results:
        results, found = self._gather(self._calls(self.func, elements, runs, lo), len(runs[0]), lo, cursor, allocate)
        if found < len(runs[0]):
            # `map` takes a StopIteration from the function for its own end; a
            # plain loop lets it through.
            raise StopIteration
        return results

    def _list(self, elements: Iterator[Any], runs: list[np.ndarray], lo: int, cursor: Cursor | None) -> Outcome:
        """Compute results for a list, up to the first error."""
        raw: list[Any] = []
        error: BaseException | None = None
        if cursor is None and self.bare and len(runs) == 1:
            func = self.func
            for element in elements:
                # Faster than `map` for a function in Python: CPython enters it without a call in C.
                try:
                    raw.append(func(element))
                except BaseException as caught:
                    error = caught
                    break
        else:
            try:
                raw.extend(self._with_cursor(self._calls(self.func, elements, runs, lo), lo, cursor))
            except BaseException as caught:
                error = caught
            if error is None and len(raw) < len(runs[0]):
                error = StopIteration()
        return outcome_of_list(raw, lo, error)

    @property
    def bare(self) -> bool:
        """True if calls get nothing but their elements."""
        return not (self.args or self.kwargs or self.streams)

    def _gather(
        self, calls: Iterator[Any], count: int, lo: int, cursor: Cursor | None, allocate: Allocate
    ) -> tuple[Results, int]:
        """Collect results, arrays and numbers straight in their final memory; return them and their number."""
        if cursor is not None:
            cursor.enter(lo)
        raw = list(islice(calls, 1))
        if not raw:  # a StopIteration: if it was asked again, `map` would go on with the next element
            return Results([raw]), 0
        if cursor is not None and (dtype := WORDS.get(type(raw[0]))) and not self.timed:
            fill_pattern = cursor.fill_pattern(count, dtype)
            if fill_pattern is not None:
                found, odd = _fill(fill_pattern, raw[0], calls)
                numbers = Stack(type(raw[0]), fill_pattern[:found])
                if not odd:
                    return Results([numbers]), found
                raw = numbers.unstack() + odd
        calls = self._with_cursor(calls, lo + len(raw), cursor)
        kinds = PLAIN_ARRAYS if self.form in ("arrays", "optional") else frozenset({np.ndarray})
        if type(raw[0]) in kinds and not raw[0].dtype.hasobject and Stack.keeps(raw[0], self.form):
            stack = _stack(raw[0], calls, count, allocate, kinds, self.form)
            if isinstance(stack, np.ndarray):
                return Results([Stack(np.ndarray, stack)]), len(stack)
            raw = stack
        # Numbers need no copy; any other result is copied at once, which costs a tuple 0.2 us.
        first = raw[0] if isinstance(raw[0], tuple) else raw[:1]
        if not SCALARS.issuperset(map(type, first)):
            raw[-1] = detached(raw[-1])
            calls = map(detached, calls)
        raw.extend(calls)
        return self.pack(raw, range(lo, lo + len(raw))), len(raw)

    def _elements_with_gaps(
        self, elements: Iterator[Any], runs: list[np.ndarray], lo: int, cursor: Cursor | None
    ) -> Outcome:
        """Compute results, and leave gaps where the function raised."""
        failures: list[Exception] = []
        calls = self._with_cursor(self._calls(self.attempt(failures), elements, runs, lo), lo, cursor)
        return self.outcome_with_gaps(list(calls if self.form == "list" else map(detached, calls)), lo, failures)

    def attempt(
        self, failures: list[Exception], note: Callable[[tuple[Any, ...]], object] | None = None
    ) -> Callable[..., Any]:
        """The function, with `GAP` as its result where it raises; the first exceptions are appended to `failures`.

        `note` gets the positional arguments of the first call that raised.
        """
        func = self.func

        def attempt(*given: Any, **named: Any) -> Any:
            try:
                return func(*given, **named)
            except Exception as error:
                if note is not None and not failures:
                    note(given)
                if len(failures) < MOST_FAILURES:
                    failures.append(light(error))
                return GAP

        return attempt

    def outcome_with_gaps(self, raw: list[Any], lo: int, failures: list[Exception]) -> Outcome:
        """The outcome of elements with the results `raw`, some of which are `GAP`."""
        indices = [index for index, one in enumerate(raw, lo) if one is not GAP]
        kept = [one for one in raw if one is not GAP]
        results = self.pack(kept, indices) if kept else None
        if not failures:
            return Outcome(results, 0.0)
        gaps = np.array([index for index, one in enumerate(raw, lo) if one is GAP])
        return Outcome(results, 0.0, index=int(gaps[0]), error=failures[0], gaps=gaps, failures=failures)


def _call_with_rng(function: Callable[..., Any], *given: Any) -> Any:
    """Call `function` with the last of its arguments by name."""
    return function(*given[:-1], rng=given[-1])


def light(error: Exception) -> Exception:
    """An exception that is kept, without the variables of the frames in its traceback, which may be large arrays."""
    if error.__traceback__ is not None:  # the first frame is at work, and holds the arguments
        error.__traceback__ = error.__traceback__.tb_next
    chain: list[BaseException] = [error]
    for one in chain:  # grows meanwhile; `raise error from error` makes a circle
        for frame, _ in walk_tb(one.__traceback__):
            if not frame.f_code.co_flags & _GENERATORS:  # to clear that of one which waits would end it
                with suppress(RuntimeError):  # at work
                    frame.clear()
        more = (one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ()))
        chain += [found for found in more if found is not None and not any(found is known for known in chain)]
    return error


#: Stands for the result of an element whose exception is ignored, within one task.
GAP = object()


def outcome_of_list(raw: list[Any], lo: int, error: BaseException | None) -> Outcome:
    """The outcome of elements with the results `raw`, and of one behind them if there is an error."""
    if error is None:
        return Outcome(Results([raw]), 0.0)
    return Outcome(Results([raw]) if raw else None, 0.0, index=lo + len(raw), error=error)


def _fill(fill_pattern: np.ndarray, first: Any, calls: Iterator[Any]) -> tuple[int, list[Any]]:
    """Store numbers of one type in memory one by one; return their number, and the first result that does not fit."""
    kind, words = type(first), fill_pattern.data
    for at, result in chain(((0, first),), enumerate(calls, 1)):
        if type(result) is not kind:
            return at, [result]
        try:
            words[at] = result
        except ValueError:  # an int beyond 64 bits
            return at, [result]
    return at + 1, []


def _stack(
    first: np.ndarray, calls: Iterator[Any], count: int, allocate: Allocate, kinds: frozenset[type], form: Form
) -> np.ndarray | list[Any]:
    """Store arrays of one dtype and shape in memory one by one; return a list at the first one that differs."""
    dtype, shape = first.dtype, first.shape
    any_order = Stack.takes_any_order(first, form)
    stack = allocate(count, dtype, shape)
    stack[0] = first
    at = 1
    for result in calls:
        same = type(result) in kinds and result.dtype == dtype and result.shape == shape
        if not same or not (any_order or result.flags.c_contiguous):
            return [*Stack(np.ndarray, stack[:at].copy()).unstack(), result]
        stack[at] = result
        at += 1
    return stack[:at]


def _block_array(result: Any) -> np.ndarray:
    """A block function's result as an array that can be concatenated."""
    refuse_more([type(result)])
    array = np.asarray(result)
    if array.ndim == 0:
        raise ValueError(
            "a block function must return an array that keeps the mapped axis, got "
            f"{type(result).__name__} without dimensions; if func takes one element, leave out "
            "vectorized=True"
        )
    return array
