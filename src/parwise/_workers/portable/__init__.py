"""Workers made of nothing but the cross-platform parts of the standard library."""
