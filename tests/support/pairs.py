"""Fewer cases for tests with many parameters: each pair of values, and not each combination.

A test with the mark ``pairs`` has several parameters, say twelve kinds of windows, three dtypes and ten executors. What
goes wrong in one of the 360 cases hardly ever takes more than two of them to go wrong; 120 cases have all pairs.
"""

from __future__ import annotations

from itertools import combinations


def covering(cases):
    """Indices of cases that have each pair of values that two parameters have in any; a case is a dict."""
    # Each value, where there is but one parameter.
    pairs = [set(combinations(sorted(case.items()), min(2, len(case)))) for case in cases]
    missing, kept = set().union(*pairs), []
    while missing:
        kept.append(max(range(len(cases)), key=lambda k: len(pairs[k] & missing)))
        missing -= pairs[kept[-1]]
    return sorted(kept)


def divide(items):
    """Tests that are to run, and those that are left out, in the order of `items`."""
    tests = {}
    for item in items:
        if item.get_closest_marker("pairs") is not None:
            tests.setdefault((item.path, item.originalname), []).append(item)
    left_out = set()
    for cases in tests.values():
        # By identity: a value is one object in all cases, and may not be hashable.
        values = [{name: id(value) for name, value in case.callspec.params.items()} for case in cases]
        kept = set(covering(values))
        left_out.update(case for k, case in enumerate(cases) if k not in kept)
    return [item for item in items if item not in left_out], [item for item in items if item in left_out]
