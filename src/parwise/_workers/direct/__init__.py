"""Arrays that workers read from the caller's memory, and results that they write there."""
