"""Threads of this process."""
