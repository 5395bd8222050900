"""Private: the description of one call, the code that calls the function, and the results."""
