"""Maps over arrays in Dask's blocks, whose results are lazy."""
