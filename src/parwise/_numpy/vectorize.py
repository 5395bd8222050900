"""The class `vectorize`, a drop-in for `numpy.vectorize`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

import numpy as np

from .._core.options.given import GivenOptions
from .._core.options.keywords import show_keywords
from .._core.options.options import Options, resolve
from .._core.options.settings import Settings
from . import originals
from .binding import Binding
from .outputs import loop_suffices, use_own_loop
from .scalars import map_scalars
from .signature import map_core_arrays

# NumPy's iterator may refuse more operands than this.
MAX_ARGUMENTS = 30


@show_keywords(Options, without=("resume",))
class vectorize(originals.vectorize):  # noqa: N801 - NumPy's name
    """Turn a function of scalars into a function of arrays, which runs on all CPU cores.

    A drop-in for `numpy.vectorize`: results have the same bytes, dtype, shape
    and memory layout (but for the strides of axes of length 1, which mean
    nothing), and `pyfunc` gets the same arguments. These are Python numbers,
    since NumPy maps over arrays of objects, except in the first call, which
    NumPy makes with its own scalars to find the dtype of the output. With a
    `signature` they are arrays.

    Parameters
    ----------
    pyfunc : callable, optional
        The function. If omitted, `vectorize` is used as a decorator.
    otypes : str or list of dtype, optional
        Dtype of each output. If None, that of the results for the first
        element: `pyfunc` is called once more to find it.
    doc : str, optional
        The docstring. If None, that of `pyfunc`.
    excluded : set of str and int, optional
        Names and positions of arguments that are not mapped over.
    cache : bool, optional
        True to use the result of that first call instead of calling again.
    signature : str, optional
        Core dimensions of a function of arrays, such as ``(m,n),(n)->(m)``.
    **options
        How calls run; see `parwise.Options`.

    Raises
    ------
    TypeError, ValueError
        Where NumPy raises them, and for invalid options. A call raises a
        TypeError if ``isolate``, ``timeout`` or ``errors="ignore"`` is set and
        an argument is an array that only NumPy's own loop can map over.

    See Also
    --------
    parallel_apply : Maps over axes of arrays; its function gets slices.

    Notes
    -----
    NumPy's own loop runs in this process if an argument is a masked array, a
    matrix or another subclass of `numpy.ndarray` (except `numpy.memmap`), or
    if there is only one element.

    Results that are Python objects come from workers as copies: if `pyfunc`
    returns the same list for two elements, the result has two lists.

    A result with a different number of outputs than the first one raises a
    ValueError, where NumPy continues with None.

    With ``errors="ignore"`` the dtype is that of the first result that is not a
    gap.

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
        resume = resolve(options, pyfunc, vectorize).resume
        if resume is not None:
            raise ValueError(
                f"resume={resume!r} needs out=, an array in files where results are kept, which vectorize "
                "does not have; use parallel_apply"
            )
        super().__init__(pyfunc, otypes, doc, excluded, cache, signature)
        self._options = GivenOptions(options)

    def __getstate__(self) -> dict[str, Any]:
        # NumPy keeps ufuncs in this cache. They cannot be pickled.
        return {**self.__dict__, "_ufunc": {}}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Map the function over the arguments, broadcast to one shape."""
        settings = resolve(self._options)
        pyfunc: Any = self.pyfunc
        if pyfunc is np._NoValue or loop_suffices(settings):
            return super().__call__(*args, **kwargs)
        binding = Binding(pyfunc, args, kwargs, self.excluded)
        result = self._map(binding, settings)
        if result is NotImplemented:
            return super().__call__(*args, **kwargs)
        return result

    def _map(self, binding: Binding, settings: Settings) -> Any:
        """Return the result, or NotImplemented if only NumPy's own loop has it or raises the right error."""
        count = len(binding.values)
        if not 0 < count <= MAX_ARGUMENTS:
            remedy = f", or exclude all but {MAX_ARGUMENTS}" if count else ""
            use_own_loop(settings, f"a call with {count} arguments to map over", remedy)
            return NotImplemented
        if self.signature is not None:
            return map_core_arrays(binding, settings, self.otypes, self.signature)
        return map_scalars(binding, settings, self.otypes, self.cache)
