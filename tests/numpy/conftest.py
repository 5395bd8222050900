"""Fixtures for the drop-ins: each executor in turn, in a scope of options."""

from __future__ import annotations

import pytest

import parwise
from parwise._numpy import scalars

from ..support.drop_ins import WAYS


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Options in a scope; except by default, workers take part from the start."""
    if request.param != "default":
        monkeypatch.setattr(scalars, "should_start_inline", lambda *_: False)
    if request.param == "processes":
        request.getfixturevalue("eager")
    with parwise.options(**WAYS[request.param]):
        yield request.param
