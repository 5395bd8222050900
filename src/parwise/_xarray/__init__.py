"""Private: what `parwise.xarray` registers as `.par` is implemented here."""
