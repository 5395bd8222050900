"""Private: drop-ins for `numpy.apply_along_axis` and `numpy.vectorize`."""
