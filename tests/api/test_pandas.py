"""Objects of pandas: mapped as the plain loop has them, or refused with the line to write, which works."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import parwise
from parwise import parallel_apply, parallel_imap, parallel_map

WAYS = [{"workers": 1}, {"workers": 2, "isolate": True}, {"executor": "threads", "workers": 2}]
FRAME = pd.DataFrame({"key": ["a", "b", "a"], "n": [1, 2, 3], "x": [0.5, 1.5, 2.5]}, index=[7, 5, 0])


def never(*_):
    raise AssertionError("func was called")


def typed(item):
    return type(item).__name__, repr(item)


ITEMS = {
    "Series": FRAME["x"],
    "Series of strings": FRAME["key"],
    "Series of dates": pd.Series(pd.date_range("2020", periods=3, tz="UTC"), index=[2, 1, 0]),
    "Series with gaps": pd.Series([1, None, 3], dtype="Int64"),
    "categories": pd.Series(["a", "b", "a"], dtype="category"),
    "Index": FRAME.index,
    "MultiIndex": pd.MultiIndex.from_product([["a", "b"], [1, 2]]),
    "extension array": pd.array([1, None], dtype="Int64"),
    "groups": FRAME.groupby("key"),
    "groups of a column": FRAME.groupby("key")["x"],
    "rows": FRAME.itertuples(index=False),
    "labelled rows": FRAME.iterrows(),
    "items": FRAME.items(),
    "windows": FRAME["x"].rolling(2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ITEMS)
def test_items_are_those_of_the_loop(name, way):
    items = ITEMS[name]
    if name in ("rows", "labelled rows", "items"):  # iterators
        items = list(items)
    want = [typed(item) for item in items]
    assert parallel_map(typed, items, **way) == want
    assert list(parallel_imap(typed, items, **way)) == want


def test_iterators_of_frames():
    want = [row.x + row.n for row in FRAME.itertuples()]
    assert parallel_map(lambda row: row.x + row.n, FRAME.itertuples(), workers=2, isolate=True) == want


@pytest.mark.parametrize("frame", [FRAME, type("GeoFrame", (pd.DataFrame,), {})(FRAME)], ids=["frame", "subclass"])
def test_frames_are_refused_where_their_loop_surprises(frame):
    text = r"a loop over it gives the names of its columns; for its rows write parallel_map\(func, df.itertuples"
    for call in (parallel_map, parallel_imap, lambda f, df: parwise.parallel(f).parallel(df)):
        with pytest.raises(TypeError, match=f"iterable 0 is a DataFrame, and {text}"):
            call(never, frame)
    with pytest.raises(TypeError, match="iterable 1 is a DataFrame"):
        parallel_map(never, [1, 2, 3], frame)
    with pytest.raises(
        TypeError, match=r"array 0 is a .*Frame, whose labels would be lost; for rows as arrays pass df.to_numpy\(\)"
    ):
        parallel_apply(never, frame)


def test_other_labelled_arrays_are_refused():
    with pytest.raises(TypeError, match=r"s.to_numpy\(\); for a Series again write pd.Series\(parallel_map\(func, s\)"):
        parallel_apply(never, FRAME["x"])
    with pytest.raises(TypeError, match=r"has groups in place of elements; write parallel_map\(func, \[group for _,"):
        parallel_apply(never, FRAME.groupby("key"))
    with pytest.raises(
        TypeError, match=r"array 0 is a Index, whose labels would be lost; pass its values, as in x.to_numpy\(\)"
    ):
        parallel_apply(never, FRAME.index)


def test_what_the_errors_say():
    numbers = FRAME[["n", "x"]]
    assert parallel_map(lambda row: row.n + row.x, numbers.itertuples(index=False)) == [1.5, 3.5, 5.5]
    assert parallel_apply(np.sum, numbers.to_numpy()).tolist() == [1.5, 3.5, 5.5]
    assert parallel_map(len, [FRAME[name] for name in FRAME]) == [3, 3, 3]
    assert parallel_map(len, [group for _, group in FRAME.groupby("key")]) == [2, 1]
    got = pd.Series(parallel_map(lambda x: x * 2, FRAME["x"]), index=FRAME.index)
    pd.testing.assert_series_equal(got, FRAME["x"].map(lambda x: x * 2), check_names=False)


def test_pandas_is_not_imported():
    code = (
        "import sys; from parwise import parallel_map, parallel_apply\n"
        "parallel_map(abs, [1]); parallel_apply(abs, __import__('numpy').ones(2))\n"
        "try: parallel_apply(abs, 'x')\nexcept TypeError: pass\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
