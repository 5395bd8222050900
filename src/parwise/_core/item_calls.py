"""Calls the mapped function for items of a stream, each as soon as it has been read, in the thread that reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from .kernel import GAP, Kernel, Nesting, Outcome, nesting, outcome_of_list
from .results import Results

# Items of each task that are timed one by one, which takes 0.1 us.
TIMED_ITEMS = 16


def run_unread(
    kernel: Kernel, items: Iterator[Any], tuples: bool, lo: int, most: int, seconds: float
) -> tuple[Outcome, int, BaseException | None]:
    """Call the function for items of a stream, in turn with reading them, for about so many seconds.

    Parameters
    ----------
    items : iterator
        The items, from that of element `lo` on.
    tuples : bool
        True if an item is a tuple of arguments.
    most : int
        Number of items after which it ends in any case.

    Returns
    -------
    outcome : Outcome
        Its time is that of the function, estimated from the first `TIMED_ITEMS`.
    read : int
        Number of items that were read.
    end : BaseException or None
        The exception by which the stream ended, StopIteration at its end.
    """
    raw: list[Any] = []
    error: BaseException | None = None
    end: BaseException | None = None
    failures: list[Exception] = []
    call, batch = _call_of_item(kernel, tuples, lo, most, failures), 1
    # Seconds that the first items took to come, and together with their calls.
    reading, sampled = [0.0], 0.0
    start = time.perf_counter()
    with nesting() as nested:
        try:
            while error is None and end is None and len(raw) < most:
                wanted = min(len(raw) + batch, most)
                timed = len(raw) < TIMED_ITEMS
                source = islice(_timed(items, reading) if timed else items, wanted - len(raw))
                error = _call_each(call, source, raw, nested)
                if error is None and len(raw) < wanted:
                    end = StopIteration()
                elapsed = time.perf_counter() - start
                sampled = elapsed if timed else sampled
                if elapsed >= seconds:
                    break
                # An item of a slow stream may take as long as all before it.
                batch = 2 * batch if timed else max(2 * batch, most // 8)
                batch = min(batch, int(1 + (seconds - elapsed) / elapsed * len(raw)))
        except Exception as caught:
            end = caught
    outcome = _outcome(raw, lo, error, failures)
    computing = 1 - reading[0] / sampled if sampled else 1.0
    outcome.seconds, outcome.begun = computing * (time.perf_counter() - start), start
    return outcome, len(raw) + (error is not None), end


def _timed(items: Iterator[Any], spent: list[float]) -> Iterator[Any]:
    """Yield items, and add up the seconds that they take to come."""
    clock = time.perf_counter
    while True:
        begun = clock()
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            spent[0] += clock() - begun
        yield item


def _call_each(
    func: Callable[[Any], Any], items: Iterator[Any], raw: list[Any], nested: Nesting
) -> BaseException | None:
    """Append the results of `func` to `raw`, up to the first exception of it, and return that.

    An exception of the iterator is raised.
    """
    for item in items:
        nested.active = True
        try:
            raw.append(func(item))
        except BaseException as error:
            return error
        nested.active = False  # an iterator may use workers itself
    return None


def _call_of_item(kernel: Kernel, tuples: bool, lo: int, most: int, failures: list[Exception]) -> Callable[[Any], Any]:
    """A function of one item; if errors are ignored it notes the first in `failures`, and returns a mark."""
    func, args, kwargs, streams = kernel.func, kernel.args, kernel.kwargs, kernel.streams
    call: Callable[[Any], Any] = func
    if streams is not None:
        generators = iter(streams.run(lo, lo + most))

        def call(item: Any) -> Any:
            given = item if tuples else (item,)
            return func(*given, *args, rng=next(generators), **kwargs)

    elif tuples:

        def call(item: Any) -> Any:
            return func(*item, *args, **kwargs)

    elif not kernel.bare:

        def call(item: Any) -> Any:
            return func(item, *args, **kwargs)

    if not kernel.ignore:
        return call

    def attempt(item: Any) -> Any:
        try:
            return call(item)
        except Exception as error:
            if not failures:
                failures.append(error)
            return GAP

    return attempt


def _outcome(raw: list[Any], lo: int, error: BaseException | None, failures: list[Exception]) -> Outcome:
    if error is not None and failures:
        return Outcome(None, 0.0, index=lo + len(raw), error=error)
    if not failures:
        return outcome_of_list(raw, lo, error)
    gaps = np.array([index for index, one in enumerate(raw, lo) if one is GAP])
    kept = [one for one in raw if one is not GAP]
    return Outcome(Results([kept]) if kept else None, 0.0, index=int(gaps[0]), error=failures[0], gaps=gaps)
