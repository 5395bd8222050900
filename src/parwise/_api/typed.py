"""What type checkers know of arguments and results; nothing imports it when a program runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import numpy as np

from .._core.options.options import Options

P = ParamSpec("P")
Q = ParamSpec("Q")
Item = TypeVar("Item")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class ArrayKeywords(Options, total=False):
    """Keywords of `parallel_apply` on which the type of its result does not depend."""

    axis: int | tuple[int, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None
    vectorized: bool
    chunk: int | tuple[int | None, ...] | Mapping[int, int] | None
    depth: int | tuple[int, ...] | Mapping[int, int]
    boundary: Any
    rng: Any


class Mapped(Protocol[Q, R]):
    """``func.parallel``: takes items, and the function's other arguments."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, items: np.ndarray, /, *args: Q.args, **kwargs: Q.kwargs
    ) -> np.ndarray | Any: ...

    @overload
    def __call__(self, items: Iterable[Any], /, *args: Q.args, **kwargs: Q.kwargs) -> list[R]: ...


class Parallel(Protocol[P, R_co]):
    """A function with the attribute `parallel`."""

    __name__: str
    __qualname__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @property
    def parallel(self: Parallel[Concatenate[Item, Q], R]) -> Mapped[Q, R]: ...
