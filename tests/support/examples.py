"""How many examples property tests draw."""

from __future__ import annotations

from typing import Any

import hypothesis

#: Those of a usual run, which tests are written for.
USUAL = 100


def examples(count: int, **more: Any) -> hypothesis.settings:
    """Settings of a test that draws `count` examples in a usual run, and fewer or more with another profile."""
    return hypothesis.settings(max_examples=max(1, count * hypothesis.settings().max_examples // USUAL), **more)
