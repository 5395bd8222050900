"""Results of one task: stacked where they are of one kind, and compared by bits."""

from __future__ import annotations

import time
from collections import namedtuple
from typing import NamedTuple

import numpy as np
import pytest

from parwise import options, parallel, parallel_apply, parallel_map, vectorize
from parwise._core.results import Results, Stack, pack_column, same_results

from ..support.oracle import assert_same


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
    """A tuple that knows more than its items, which its constructor takes in a way of its own."""

    def __new__(cls, slope, *, offset):
        made = super().__new__(cls, (slope, offset.max()))
        made.offset = offset
        return made

    def __getnewargs_ex__(self):
        return (self[0],), {"offset": self.offset}


class Checked(namedtuple("Checked", "low high")):
    """A named tuple whose constructor wants numbers."""

    def __new__(cls, low, high):
        return super().__new__(cls, float(low), float(high))


class Refusing(namedtuple("Refusing", "low high")):
    @classmethod
    def _make(cls, items):
        raise TypeError("not from items")


class Changing(namedtuple("Changing", "low high")):
    @classmethod
    def _make(cls, items):
        return tuple.__new__(cls, map(np.negative, items))


class Typed(NamedTuple):
    low: float
    high: float = 2.0


KINDS = {
    "line": (lambda row: Line(row.sum(), offset=row), tuple),
    "checked": (lambda row: Checked(row.min(), row.max()), Checked),
    "refusing": (lambda row: Refusing(row.min(), row.max()), tuple),
    "changing": (lambda row: Changing(row.min(), row.max()), tuple),
    "typed": (lambda row: Typed(row.min()), Typed),
    "structseq": (lambda row: time.gmtime(row[0]), tuple),
    "linalg": (lambda row: np.linalg.slogdet(np.diag(row)), type(np.linalg.slogdet(np.eye(2)))),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_type_of_tuple_is_made_of_arrays_only_where_it_tells_how(name, runner):
    func, kind = KINDS[name]
    rows = np.arange(12.0).reshape(4, 3) + 1
    got = parallel_apply(func, rows, **runner)
    assert isinstance(got, tuple)
    assert type(got).__name__ == kind.__name__
    assert_same(tuple(got), tuple(np.asarray(list(column)) for column in zip(*map(func, rows), strict=True)))


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"linalg", "structseq"}))  # which are made of numbers
def test_blocks_return_types_of_tuple(name):
    func, kind = KINDS[name]

    def block(rows):
        made = func(np.ones(3))
        return tuple.__new__(type(made), (rows, rows * 2))

    got = parallel_apply(block, np.ones((4, 3)), vectorized=True, chunk=2)
    assert type(got) is kind


def test_results_of_scipy(runner):
    stats = pytest.importorskip("scipy.stats")
    times, rows = np.arange(9.0), np.random.default_rng(0).normal(size=(5, 9))
    funcs = [
        lambda y: stats.linregress(times, y),
        lambda y: stats.pearsonr(times, y),
        lambda y: stats.ttest_1samp(y, 0),
        lambda y: stats.ttest_ind(y, times),
        lambda y: stats.ks_2samp(y, times),
        lambda y: stats.describe(y),
        lambda y: stats.mode(y),
        lambda y: stats.theilslopes(y, times),
        lambda y: stats.relfreq(y, numbins=3),
    ]
    for func in funcs:
        got = parallel_apply(func, rows, **runner)
        assert_same(tuple(got), tuple(np.asarray(list(column)) for column in zip(*map(func, rows), strict=True)))
        repr(got)


def test_raw_results_keep_all_that_a_type_of_tuple_knows(runner):
    def func(k):
        return Line(np.ones(2) * k, offset=np.arange(3) + k)

    with options(**runner):
        got = vectorize(func, otypes=[object])(np.arange(4))
    for k, one in enumerate(got):
        assert type(one).__name__ == "Line"
        assert one.offset.tolist() == [k, k + 1, k + 2]


def test_arrays_that_come_as_a_list_keep_their_memory_layout(runner):
    def fortran(k):
        return np.ones((2, 3 if k < 30 else 4), order="F")

    def pair(k):
        return fortran(k), k

    def sometimes(k):
        return None if k == 35 else np.ones((2, 3), order="F")

    for func in [fortran, pair, sometimes]:
        for one in parallel(func, drop_none=False, **runner).parallel(np.arange(40.0)):
            matrix = one[0] if isinstance(one, tuple) else one
            assert matrix is None or (matrix.flags.f_contiguous and not matrix.flags.c_contiguous)


def test_empty_tuples_make_no_arrays(runner):
    with pytest.raises(ValueError, match=r"func returned an empty tuple for element 0; return an array"):
        parallel_apply(lambda x: (), np.arange(40.0), **runner)
    assert parallel_map(lambda x: (), range(3), **runner) == [()] * 3
