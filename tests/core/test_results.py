"""Results of one task: stacked where they are of one kind, and compared by bits."""

from __future__ import annotations

import numpy as np
import pytest

from parwise import parallel_apply
from parwise._core.results import Results, Stack, pack_column, same_results


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ([1.0, 2.0], float),
        ([1, 2], int),
        ([True, False], bool),
        ([np.float32(1)], np.float32),
        ([np.zeros(2)], np.ndarray),
    ],
)
def test_results_of_one_kind_are_stacked(raw, kind):
    column = pack_column(raw)
    assert isinstance(column, Stack)
    assert column.kind is kind
    assert list(map(type, column.unstack())) == list(map(type, raw))


@pytest.mark.parametrize(
    "raw",
    [[1, 2.0], [2**63], ["a", "b"], [None], [np.zeros(2), np.zeros(3)], [np.datetime64(1, "s"), np.datetime64(1, "D")]],
)
def test_other_results_wait_for_the_rest(raw):
    assert pack_column(raw) is raw


def test_same_results_is_about_bits():
    def results(*values):
        return Results([pack_column(list(values))])

    assert same_results(results(np.nan), results(np.nan))
    assert not same_results(results(0.0), results(-0.0))
    assert not same_results(results(1), results(1.0))
    assert not same_results(results(np.float32(1)), results(np.float64(1)))
    assert same_results(results({"a": [np.zeros(2)]}), results({"a": [np.zeros(2)]}))
    assert not same_results(results({"a": [np.zeros(2)]}), results({"a": [-np.zeros(2)]}))
    assert same_results(results(object()), results(object()))
    assert same_results(results(np.longdouble(1) / 3), results(np.longdouble(1) / 3))
    padded = np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 8], "itemsize": 16})
    one, other = np.zeros(3, padded), np.frombuffer(b"\xff" * 48, padded).copy()
    other["a"], other["b"] = 0, 0
    assert same_results(results(one), results(other))


class Line(tuple):
    """A tuple that knows more than its items."""

    def __new__(cls, items):
        made = super().__new__(cls, items)
        made.slope = made[0]
        return made


def test_a_type_of_tuple_makes_the_result_itself():
    got = parallel_apply(lambda row: Line((row.sum(), row.max())), np.ones((3, 2)))
    assert type(got) is Line
    assert got.slope is got[0]
