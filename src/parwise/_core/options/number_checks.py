"""What counts as an integer, and as a real number, in an option or an argument."""

from __future__ import annotations

import numbers
from typing import Any


def is_int(value: Any) -> bool:
    """True for an integer, NumPy's included, but not for a bool."""
    # The first check against an abstract class takes 25 us, which most calls avoid.
    return type(value) is int or (isinstance(value, numbers.Integral) and not isinstance(value, bool))


def check_int(name: str, value: Any, least: int, allowed: str = "an int", hint: str = "", unit: str = "") -> int:
    """Return `value` as an int of at least `least`.

    The error has the argument's `name`, everything that is `allowed`, the `unit` of `least` (such as " long") and, for
    a number that is too small, a `hint`.
    """
    if not is_int(value):
        raise TypeError(f"{name} must be {allowed}, got {value!r} of type {type(value).__name__}")
    if value < least:
        limit = f"be at least {least}{unit}" if least else "not be negative"
        raise ValueError(f"{name} must {limit}, got {value}{hint}")
    return int(value)


def is_real(value: Any) -> bool:
    """True for a real number, NumPy's included, but not for a bool."""
    return type(value) is float or (isinstance(value, numbers.Real) and not isinstance(value, bool))
