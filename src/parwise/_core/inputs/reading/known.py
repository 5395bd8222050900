"""Functions, methods and attributes that are known to read only: those of Python's builtins and of NumPy."""

from __future__ import annotations

import builtins
import functools
import math
import sys
import time
import types
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import numpy as np


class Rule(NamedTuple):
    """How a known function may be called, and what it returns.

    Attributes
    ----------
    name : str
        Its name in messages and in `parwise._core.inputs.reading.operations`.
    result : str
        "array" or "typed": new memory; "like": new memory of the first argument's dtype; "view": perhaps that of the
        first argument; "number", "int", "plain", "arrays"; another word is a rule of its own.
    least, most : int
        Number of positional arguments: `out` would be behind them.
    keywords : frozenset of str
        Those that may be given.
    """

    name: str
    result: str
    least: int = 0
    most: int = 1
    keywords: frozenset[str] = frozenset()


_NOTHING: frozenset[str] = frozenset()
_AXIS = frozenset({"axis"})
_REDUCTION = frozenset({"axis", "keepdims"})
_SPREAD = frozenset({"axis", "keepdims", "ddof"})
_DTYPE = frozenset({"dtype"})

#: Functions of NumPy: result, least and most positional arguments, keywords, names. What each returns, and that it
#: leaves its arguments as they are, is tested with each of them.
_FUNCTIONS: list[tuple[str, int, int, frozenset[str], str]] = [
    ("array", 1, 2, _REDUCTION, "sum mean min max amin amax prod any all argmin argmax median ptp count_nonzero"),
    ("array", 1, 2, _REDUCTION, "nansum nanmean nanmin nanmax nanmedian nanprod"),
    ("array", 1, 2, _SPREAD, "std var nanstd nanvar"),
    ("array", 1, 2, _AXIS, "cumsum cumprod nancumsum nancumprod average"),
    ("array", 2, 3, _REDUCTION, "percentile quantile nanpercentile nanquantile"),
    ("array", 1, 2, _AXIS, "sort argsort"),
    ("array", 2, 3, _AXIS, "partition argpartition take repeat roll"),
    ("array", 1, 1, _NOTHING, "unique diff nan_to_num flatnonzero angle sinc triu tril"),
    ("array", 2, 2, _NOTHING, "dot vdot inner outer kron isclose digitize searchsorted tile polyval"),
    ("array", 2, 3, _NOTHING, "tensordot pad convolve correlate"),
    ("array", 3, 3, _NOTHING, "where interp clip polyfit"),
    ("array", 1, 2, _NOTHING, "trapezoid cov corrcoef cross trace"),
    ("array", 1, 1, _AXIS, "concatenate stack"),
    ("array", 1, 1, _NOTHING, "hstack vstack column_stack bincount"),
    ("array", 1, 3, _NOTHING, "arange linspace"),
    ("array", 2, 2, _NOTHING, "full full_like"),
    ("typed", 1, 1, _DTYPE, "zeros ones empty eye identity"),
    ("like", 1, 1, _DTYPE, "zeros_like ones_like empty_like array"),
    ("view", 1, 1, _NOTHING, "asarray ascontiguousarray real imag round around squeeze ravel atleast_1d atleast_2d"),
    ("view", 1, 2, _NOTHING, "reshape transpose flip expand_dims broadcast_to diagonal"),
    ("view", 3, 3, _NOTHING, "swapaxes moveaxis"),
    ("number", 2, 2, _NOTHING, "array_equal allclose"),
    ("int", 1, 1, _NOTHING, "ndim size"),
    ("plain", 1, 1, _NOTHING, "shape"),
    ("arrays", 1, 1, _NOTHING, "histogram"),
    ("errstate", 0, 0, frozenset({"all", "divide", "invalid", "over", "under"}), "errstate"),
]
_LINALG: list[tuple[str, int, int, frozenset[str], str]] = [
    ("array", 1, 3, _REDUCTION, "norm"),
    ("array", 1, 1, _NOTHING, "det inv pinv eigvals eigvalsh cholesky matrix_rank"),
    ("array", 2, 2, _NOTHING, "solve"),
    ("arrays", 1, 1, _NOTHING, "eig eigh svd qr slogdet"),
    ("arrays", 2, 2, _NOTHING, "lstsq"),
]
_FFT: list[tuple[str, int, int, frozenset[str], str]] = [
    ("array", 1, 3, _AXIS, "fft ifft rfft irfft"),
    ("array", 1, 1, _NOTHING, "fft2 ifft2 rfft2"),
    ("array", 1, 2, _NOTHING, "fftfreq rfftfreq"),
]
_BUILTINS: list[tuple[str, int, int, frozenset[str], str]] = [
    ("number", 1, 1, _NOTHING, "float complex bool"),
    ("int", 1, 1, _NOTHING, "int len"),
    ("builtin", 1, 3, _NOTHING, "abs range min max round enumerate zip list tuple sum any all sorted isinstance"),
]
_MATH = (
    "sqrt exp expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh hypot pow "
    "fabs fmod copysign isnan isinf isfinite erf erfc gamma lgamma degrees radians floor ceil gcd isqrt factorial"
)

#: Methods of arrays: as above.
_METHODS: list[tuple[str, int, int, frozenset[str], str]] = [
    ("array", 0, 1, _REDUCTION, "sum mean min max prod any all argmin argmax"),
    ("array", 0, 1, _SPREAD, "std var"),
    ("array", 0, 1, _AXIS, "cumsum cumprod argsort"),
    ("like", 0, 1, _NOTHING, "copy flatten"),
    ("array", 1, 1, _NOTHING, "dot"),
    ("array", 1, 2, _NOTHING, "take repeat searchsorted"),
    ("astype", 1, 1, _NOTHING, "astype"),
    ("view", 0, 4, _NOTHING, "reshape transpose"),
    ("view", 0, 1, _NOTHING, "ravel squeeze"),
    ("view", 2, 2, _NOTHING, "clip swapaxes"),
    ("view", 0, 1, _NOTHING, "round"),
    ("view", 0, 0, _NOTHING, "conj conjugate diagonal"),
    ("number", 0, 3, _NOTHING, "item"),
    ("plain", 0, 0, _NOTHING, "tolist tobytes nonzero"),
]


def _rules(lines: list[tuple[str, int, int, frozenset[str], str]]) -> dict[str, Rule]:
    return {
        name: Rule(name, result, least, most, keywords)
        for result, least, most, keywords, names in lines
        for name in names.split()
    }


METHODS = _rules(_METHODS)
#: Attributes of arrays that are numbers, or tuples of numbers; and those that are views.
INT_ATTRIBUTES = frozenset({"ndim", "size", "nbytes", "itemsize"})
TUPLE_ATTRIBUTES = frozenset({"shape", "strides"})
VIEW_ATTRIBUTES = frozenset({"T", "real", "imag", "mT"})


def known(thing: Any) -> Rule | None:
    """The rule of a function or type that is known by its identity."""
    return _table("numpy.fft" in sys.modules).get(thing)


@functools.cache
def _table(with_fft: bool) -> dict[Any, Rule]:
    """Rules by function. NumPy imports `numpy.fft` where it is first used."""
    table: dict[Any, Rule] = {}
    for module, lines in ((np, _FUNCTIONS), (np.linalg, _LINALG), *([(np.fft, _FFT)] if with_fft else [])):
        for name, rule in _rules(lines).items():
            if _is_numpys_own(one := vars(module).get(name)):
                table[one] = rule
    for one in vars(np).values():
        if _is_numpys_own(one) and isinstance(one, np.ufunc):
            table[one] = Rule(one.__name__, "array" if one.nout == 1 else "arrays", one.nin, one.nin)
    for name, rule in _rules(_BUILTINS).items():
        table[vars(builtins)[name]] = rule
    for name in _MATH.split():
        table[vars(math)[name]] = Rule(name, "number", 1, 2)
    for name in ("sleep", "perf_counter", "monotonic", "time", "process_time", "thread_time"):
        table[vars(time)[name]] = Rule(name, "number", 0, 1)
    for one in {*np.sctypeDict.values()}:
        if issubclass(one, np.number | np.bool_):
            table[one] = Rule("dtype", "view", 1, 1)
    table[np.ndarray] = Rule("ndarray", "type", 9, 0)
    for one in vars(builtins).values():
        if isinstance(one, type) and issubclass(one, Exception):
            table[one] = Rule("exception", "exception", 0, 9)
    return table


def _is_numpys_own(thing: Any) -> bool:
    """True if it is NumPy's, and not what a program has put in its place."""
    if type(thing) is np.ufunc:
        # One that `np.frompyfunc` makes calls a function in Python; its only loop is that of objects.
        return any(set(one) - set("O->") for one in thing.types)
    if type(thing) is FunctionType:
        return str(thing.__globals__.get("__name__")).partition(".")[0] == "numpy"
    kinds = (BuiltinFunctionType, type(np.linalg.norm), type)
    module = getattr(thing, "__module__", None)
    return type(thing) in kinds and not isinstance(thing, types.FunctionType) and str(module).startswith("numpy")


def names_a_dtype(rule: Rule) -> bool:
    """True for types of numbers, which name a dtype without objects."""
    return rule.name in ("float", "int", "complex", "bool", "dtype")
