"""Private: compares the bits of results with those of the plain loop, and finds the cause of a difference."""
