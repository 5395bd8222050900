"""Private: the implementation of the accessor `.par`, which `parwise.xarray` registers."""
