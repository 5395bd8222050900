"""Private: `apply_along_axis` and `vectorize`, drop-ins for NumPy's."""
