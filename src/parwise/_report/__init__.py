"""Private: progress displays, and reports of the time that each part of a call took."""
