"""Mapped and constant arguments of a vectorized function."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any


class Binding:
    """Arguments of one call of a vectorized function, as `numpy.vectorize` reads them.

    Positions, then names, of the mapped arguments are in `keys`; `values` has the arguments in this order.
    """

    def __init__(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], excluded: Container[int | str]
    ) -> None:
        self._func = func
        self._args = list(args)
        self._kwargs = dict(kwargs)
        self.keys: list[Any] = [k for k in range(len(args)) if k not in excluded]
        self.keys += [name for name in kwargs if name not in excluded]
        self.values = [self._args[key] if type(key) is int else self._kwargs[key] for key in self.keys]

    def bind(self, constants: Mapping[int, Any]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """Bind some mapped arguments, by number in `values`, to values that are the same in every call.

        Returns a function of the other mapped arguments, and the positional and keyword arguments that follow them.
        """
        args, kwargs = list(self._args), dict(self._kwargs)
        varying = []
        for number, key in enumerate(self.keys):
            value = constants.get(number)
            if number not in constants:
                varying.append(key)
            if type(key) is int:
                args[key] = value
            else:
                kwargs[key] = value
        if varying == list(range(len(varying))):
            return self._func, tuple(args[len(varying) :]), kwargs
        return BoundFunction(self._func, args, kwargs, varying), (), {}

    def call(self, values: list[Any]) -> Any:
        """Call the function with `values` in place of the mapped arguments."""
        return BoundFunction(self._func, self._args, self._kwargs, self.keys)(*values)


class BoundFunction:
    """A function whose arguments are bound, except those at `keys`: positions and names that each call fills."""

    def __init__(
        self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], keys: list[int | str]
    ) -> None:
        self._func, self._args, self._kwargs, self._keys = func, args, kwargs, keys

    def __call__(self, *values: Any) -> Any:
        # Copies, since several threads may call at once.
        args: Any = self._args.copy()
        kwargs: Any = self._kwargs.copy()
        for key, value in zip(self._keys, values, strict=True):
            (args if type(key) is int else kwargs)[key] = value
        return self._func(*args, **kwargs)


class CachedResult:
    """Placeholder for an element whose result is known."""

    def __init__(self, result: Any) -> None:
        self.result = result


class CachedFirst:
    """A function that is not called if its first argument is a `CachedResult`: that one's result is returned."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func

    def __call__(self, first: Any, /, *args: Any, **kwargs: Any) -> Any:
        return first.result if type(first) is CachedResult else self._func(first, *args, **kwargs)
