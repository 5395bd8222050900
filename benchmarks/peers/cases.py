"""What parwise and its peers are compared on, and how one of them is measured."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .memory import PeakMemory
from .peers import Peer
from .work import Element, Pace, burn_unevenly, rows, smooth, vector

#: Makes an element function and an array; at no size to speak of if the flag is set.
Work = Callable[[Pace, bool], tuple[Element, np.ndarray]]
Call = Callable[[], np.ndarray]
#: Makes a call, and gives what was measured and the result.
Observe = Callable[[Call], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """One kind of work.

    Attributes
    ----------
    title : str
    work : callable
    calls : int
        How many calls are timed, after one that is not; 0 means that the very
        first call of a process is what counts.
    quantity : {"time", "memory"}
    """

    title: str
    work: Work
    calls: int = 0
    quantity: Literal["time", "memory"] = "time"


def _burning(seconds: float, count: int) -> Work:
    return lambda pace, small: (pace.burner(seconds), vector(max(10, count // 100) if small else count))


def _over_rows(func: Element) -> Work:
    return lambda pace, small: (func, rows(20, 500) if small else rows(2000, 25_000))


def _uneven(pace: Pace, small: bool) -> tuple[Element, np.ndarray]:
    steps = pace.steps(0.001 if small else 1.0)
    return functools.partial(burn_unevenly, steps_per_unit=steps), np.random.default_rng(0).uniform(0.1, 0.4, 6)


CASES = {
    "a": Case("20 us x 20,000", _burning(20e-6, 20_000), calls=3),
    "b": Case("0.4 us x 100", _burning(0.4e-6, 100), calls=100),
    "c": Case("0.4 us x 100,000", _burning(0.4e-6, 100_000), calls=5),
    "d": Case("sort 2000 x 25,000", _over_rows(np.sort), calls=3),
    "e": Case("smooth 2000 x 25,000", _over_rows(smooth), calls=3),
    "f": Case("6 uneven, first call", _uneven),
    "g": Case("0.4 us x 100, first call", _burning(0.4e-6, 100)),
    "h": Case("memory, sort", _over_rows(np.sort), calls=1, quantity="memory"),
    "i": Case("memory, sort, first call", _over_rows(np.sort), quantity="memory"),
    "j": Case("0.8 ms x 20", _burning(0.8e-3, 20), calls=30),
    "k": Case("0.5 ms x 100", _burning(0.5e-3, 100), calls=15),
}


def measure(case: Case, peer: Peer, pace: Pace, small: bool) -> dict[str, Any]:
    """Measure one peer on one case in this process, which should be a fresh one.

    Returns
    -------
    dict
        ``value``, in seconds or in bytes beyond input and output; and
        ``digest``, which is the same for equal results.
    """
    func, array = case.work(pace, small)
    opened = peer.load()
    observe = _time if case.quantity == "time" else _memory
    with contextlib.ExitStack() as stack:
        if case.calls:
            apply = stack.enter_context(opened())
            value, out = _later_calls(case.calls, functools.partial(apply, func, array), observe)
        else:
            value, out = observe(lambda: stack.enter_context(opened())(func, array))
        return {"value": value, "digest": digest(out)}


def _later_calls(count: int, call: Call, observe: Observe) -> tuple[float, np.ndarray]:
    out = call()
    values = []
    for _ in range(count):
        del out  # no two results at once
        value, out = observe(call)
        values.append(value)
    return statistics.median(values), out


def _time(call: Call) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    out = call()
    return time.perf_counter() - start, out


def _memory(call: Call) -> tuple[float, np.ndarray]:
    with PeakMemory() as peak:
        out = call()
    return peak.beyond - out.nbytes, out


def digest(out: Any) -> str:
    """Return what tells any two different results apart, types and signs of zero included."""
    if not isinstance(out, np.ndarray):
        return f"not an array but {type(out).__name__}"
    return f"{out.dtype.str} {out.shape} {hashlib.blake2b(np.ascontiguousarray(out).data).hexdigest()}"
