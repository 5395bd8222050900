"""The caller's side of workers: all of them, one of them, and what watches them."""
