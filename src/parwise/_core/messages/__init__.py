"""Private: what messages show of values, and what they say of unknown options."""
