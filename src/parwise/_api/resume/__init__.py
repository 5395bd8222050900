"""Runs that go on where they stopped: the option `resume`."""
