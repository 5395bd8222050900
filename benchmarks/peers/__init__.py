"""parwise beside other libraries, and the work that all benchmarks measure."""
