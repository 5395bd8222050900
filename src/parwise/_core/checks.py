"""What counts as a number where an argument has to be one."""

from __future__ import annotations

import numbers
from typing import Any


def is_int(value: Any) -> bool:
    """Whether `value` is an integer, NumPy's included, and no bool."""
    # The first look at an abstract class takes 25 us, which most calls do without.
    return type(value) is int or (isinstance(value, numbers.Integral) and not isinstance(value, bool))


def is_real(value: Any) -> bool:
    """Whether `value` is a real number, NumPy's included, and no bool."""
    return type(value) is float or (isinstance(value, numbers.Real) and not isinstance(value, bool))
