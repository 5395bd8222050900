"""Private: compares results with the plain loop's bits, and finds out why they differ."""
