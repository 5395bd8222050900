"""A call at work: its tasks, its output, and what all runners share of it."""
