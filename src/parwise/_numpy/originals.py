"""NumPy's own functions, whatever stands in their places in `numpy`.

A program may have ours there: ``numpy.apply_along_axis = parwise.apply_along_axis``. NumPy's modules for them are not
public, and where a later NumPy lacks them, what `numpy` has when this is imported must do.
"""

from __future__ import annotations

try:
    from numpy.lib._function_base_impl import vectorize
    from numpy.lib._shape_base_impl import apply_along_axis
except ImportError:
    from numpy import apply_along_axis, vectorize

__all__ = ["apply_along_axis", "vectorize"]
