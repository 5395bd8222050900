"""Pickles for other processes: of functions, items, results and all that they hold."""
