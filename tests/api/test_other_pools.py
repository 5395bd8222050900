"""Methods of other libraries' pools: the error says what to write, and what it says works."""

from __future__ import annotations

import concurrent.futures
import multiprocessing.pool

import pytest

import parwise
from parwise._api.other_pools import _INSTEAD

ITEMS, PAIRS = [1, -2, 3], [(2, 5), (3, 2)]
DONE = {"abs": [1, 2, 3], "pow": [32, 9]}


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.fixture
def pool():
    with parwise.Pool(1) as one:
        yield one


def test_every_method_of_pythons_own_pools_is_there_or_answered(pool):
    theirs = public(multiprocessing.pool.Pool) | public(concurrent.futures.ProcessPoolExecutor)
    assert theirs - public(parwise.Pool) <= {*_INSTEAD, "Process"}


@pytest.mark.parametrize("name", _INSTEAD)
def test_the_error_says_what_to_write(pool, name):
    with pytest.raises(AttributeError, match="'Pool' object has no attribute '.*'; write ") as caught:
        getattr(pool, name)
    assert str(caught.value) == f"'Pool' object has no attribute {name!r}; write {_INSTEAD[name]}"
    assert (caught.value.name, caught.value.obj) == (name, pool)
    assert not hasattr(pool, name)


def test_other_names_get_pythons_own_error(pool):
    with pytest.raises(AttributeError, match=r"^'Pool' object has no attribute 'something'$"):
        _ = pool.something


@pytest.mark.parametrize("name", ["starmap", "starmap_async", "istarmap", "imap_unordered", "map_async", "map_sync"])
def test_what_it_says_works(pool, name):
    names = {"pool": pool, "parwise": parwise, "f": pow if "star" in name else abs}
    names["items"] = PAIRS if "star" in name else ITEMS
    for line in _INSTEAD[name].split(", which")[0].split(", or "):
        assert sorted(eval(line, names)) == sorted(DONE[names["f"].__name__])


def test_apply_async(pool):
    line = _INSTEAD["apply_async"].split(", which")[0]
    assert eval(line, {"pool": pool, "f": pow, "args": (2, 5), "kwargs": {"mod": 5}}).result() == 2
