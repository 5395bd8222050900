"""Values that show what functions do not do alike everywhere."""

from __future__ import annotations

import numpy as np


def to_nan(values: np.ndarray) -> bool:
    """Make all NaN, which spreads through whatever it touches, also in sums that go on for ever."""
    if values.dtype.kind in "fc":
        values[...] = np.nan
        return True
    return False


def to_large(values: np.ndarray) -> bool:
    """Make all large, or as large as can be."""
    if values.dtype.kind in "fc":
        values[...] = 1e3 * (1 + abs(values.ravel()).max()) if values.size else 0
    elif values.dtype.kind in "iu":
        values[...] = np.iinfo(values.dtype).max
    elif values.dtype.kind == "b":
        np.logical_not(values, out=values)
    else:
        return False
    return True


def sprinkle(values: np.ndarray) -> bool:
    """Put NaN of both signs, infinities, zeros of both signs and subnormal numbers among the others."""
    if values.dtype.kind not in "fc" or not values.size:
        return False
    tiny = np.finfo(values.dtype).smallest_subnormal
    special = np.array([np.nan, -0.0, tiny, -np.nan, 3 * tiny, 0.0, np.inf, -tiny, -np.inf], values.dtype)
    places = np.arange(0, values.size, 3)
    # `flat` also takes arrays that are not contiguous.
    values.flat[places] = special[places // 3 % special.size]
    return True
