"""Private: progress bars, and reports of where the time of a call went."""
