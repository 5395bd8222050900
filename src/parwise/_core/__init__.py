"""Private: one call: its checked arguments, the place where the function is called, and its results."""
