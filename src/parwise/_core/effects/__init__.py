"""Private: what a function does beside its result: to generators, containers and numbers that it holds."""
