"""Runners for processes of other libraries, on this machine or others."""
