"""Arguments of a vectorized function: those that are mapped over, and those that every call gets alike."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any


class Binding:
    """A call of a vectorized function, as `numpy.vectorize` reads it.

    Parameters
    ----------
    func : callable
    args, kwargs : tuple and dict
        What the vectorized function was called with.
    excluded : container of int and str
        Positions and names that are not mapped over.

    Attributes
    ----------
    spots : list of int or str
        Where the arguments go that are mapped over: positions first.
    values : list
        These arguments.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        excluded: Container[int | str],
    ) -> None:
        self._func = func
        self._args = list(args)
        self._kwargs = dict(kwargs)
        self.spots: list[Any] = [k for k in range(len(args)) if k not in excluded]
        self.spots += [name for name in kwargs if name not in excluded]
        self.values = [self._args[spot] if type(spot) is int else self._kwargs[spot] for spot in self.spots]

    def bind(self, constants: Mapping[int, Any]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """What to call with the other values, and what to hand over behind them.

        Parameters
        ----------
        constants : mapping of int to value
            Of some of `values`, by number, what every call gets.
        """
        args, kwargs = list(self._args), dict(self._kwargs)
        live = []
        for number, spot in enumerate(self.spots):
            value = constants.get(number)
            if number not in constants:
                live.append(spot)
            if type(spot) is int:
                args[spot] = value
            else:
                kwargs[spot] = value
        if live == list(range(len(live))):
            return self._func, tuple(args[len(live) :]), kwargs
        return BoundFunction(self._func, args, kwargs, live), (), {}

    def call(self, given: list[Any]) -> Any:
        """What the function gives with `given` in place of `values`."""
        return BoundFunction(self._func, self._args, self._kwargs, self.spots)(*given)


class BoundFunction:
    """Calls a function with what it is given in some places, and always the same in others.

    Parameters
    ----------
    func : callable
    args, kwargs : list and dict
        A call of `func`; whatever is in `spots` does not count.
    spots : list of int or str
        Positions and names.
    """

    def __init__(
        self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], spots: list[int | str]
    ) -> None:
        self._func = func
        self._args = args
        self._kwargs = kwargs
        self._spots = spots

    def __call__(self, *given: Any) -> Any:
        # New ones for each call: there may be several at once.
        args: Any = self._args.copy()
        kwargs: Any = self._kwargs.copy()
        for spot, value in zip(self._spots, given, strict=True):
            (args if type(spot) is int else kwargs)[spot] = value
        return self._func(*args, **kwargs)


class CachedResult:
    """Stands for an element whose result is at hand.

    Parameters
    ----------
    result : object
    """

    def __init__(self, result: Any) -> None:
        self.result = result


class CachedFirst:
    """Calls a function unless its first argument is `CachedResult`.

    Parameters
    ----------
    func : callable
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func

    def __call__(self, first: Any, /, *args: Any, **kwargs: Any) -> Any:
        return first.result if type(first) is CachedResult else self._func(first, *args, **kwargs)
