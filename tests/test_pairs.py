"""Fewer cases of tests with many parameters, and still each pair of values."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from .support.pairs import covering


def pairs_of(cases):
    return {pair for case in cases for pair in combinations(sorted(case.items()), 2)}


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.sets(st.integers(0, 255)))
def test_each_pair_of_values_stays_in_some_case(sizes, missing):
    """Also where some combinations are not tested at all."""
    cases = [dict(enumerate(values)) for k, values in enumerate(product(*map(range, sizes))) if k not in missing]
    kept = covering(cases)
    assert kept == sorted(set(kept))
    assert pairs_of([cases[k] for k in kept]) == pairs_of(cases)


def test_one_parameter_keeps_all_its_values():
    assert covering([{"a": k} for k in range(5)]) == [*range(5)]


def test_fewer_cases_than_combinations():
    cases = [dict(zip("abc", values, strict=True)) for values in product(range(10), range(10), range(3))]
    assert len(covering(cases)) == 100
