"""Private: the machine and the interpreter; independent of the rest of parwise."""
