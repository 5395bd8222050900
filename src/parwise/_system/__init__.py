"""Private: the machine and the interpreter; knows nothing of parwise."""
