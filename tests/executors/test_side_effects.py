"""Changes that a function makes beside its result arrive in part: one warning names them."""

from __future__ import annotations

import functools
import warnings
from collections import Counter, deque

import numpy as np
import pytest

from parwise import ReproducibilityWarning, parallel_apply, parallel_map
from parwise._core.effects.side_effects import SideEffects

FOUND: list[int] = []
COUNT = 0


class Counts:
    def __init__(self):
        self.calls, self.seen, self.memo, self.model = 0, [], {}, None

    def __call__(self, x):
        self.calls += 1
        return x

    def note(self, x):
        self.seen.append(x)
        return x

    def remember(self, x):
        if self.model is None:
            self.model = 3
        if x not in self.memo:
            self.memo[x] = x
        return self.memo[x]


def to_global(x):
    FOUND.append(x)
    return x


def counts_globally(x):
    global COUNT
    COUNT += 1
    return x


def closures():
    a, b, c, d, e, n = [], {}, set(), deque(), Counter(), 0

    def append(x):
        a.append(x)

    def store(x):
        b[x] = x

    def add(x):
        c.add(x)

    def extend(x, more):
        if x % 2:
            d.extend([x])
        else:
            d.append(x)

    def count(x):
        e[x] += 1

    def number(x):
        nonlocal n
        n += 1

    return {"a": append, "b": store, "c": add, "d": functools.partial(extend, more=1), "e": count, "n": number}


CLOSURES = closures()
EFFECTS = CLOSURES | {"FOUND": to_global, "COUNT": counts_globally, "calls": Counts(), "seen": Counts().note}


def told(func, **how):
    """Warnings of a call of which workers have computed a part, and this process another."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parallel_map(func, range(400), **{"workers": 2} | how)
    assert all(one.category is ReproducibilityWarning and one.filename == __file__ for one in caught)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("name", EFFECTS)
def test_what_arrives_in_part_is_named(name, eager):
    func = EFFECTS[name]
    for _ in range(20):
        texts = told(func)
        if texts:
            break
    (text,) = texts
    assert f" {name!r} (" in text
    assert "Return the value" in text
    assert told(func, verify=False) == []
    assert told(func, executor="threads") == []
    assert told(func, workers=1) == []


MEMO: dict[int, int] = {}
ROOM: list[np.ndarray] = []
TABLE = [1, 2, 3]
SETTING = 3


def memo(x):
    try:
        return MEMO[x]
    except KeyError:
        MEMO[x] = x + SETTING + TABLE[0]
    return MEMO[x]


def room(x):
    if not ROOM:
        ROOM.append(np.empty(3))
    ROOM[0][:] = x
    return ROOM[0].sum()


@functools.lru_cache
def cached(x):
    return x


KNOWN: dict[int, int] = {}
ENTRIES: dict[int, list[int]] = {}


def known(x):
    return KNOWN.get(x)


def read_elsewhere(x):
    found = known(x)
    if found is None:
        found = KNOWN[x] = x
    return found


def read_within(x):
    KNOWN[x] = x
    return min([x], key=lambda one: KNOWN.get(one, 0))


def by_default(x):
    pair = np.empty(2)
    pair[0] = KNOWN.setdefault(x, x)
    return pair[0]


def passed_on(x, remember=dict.__setitem__):
    pair = np.empty(2)
    pair[0] = x
    remember(KNOWN, x, x)
    return pair[0]


class Scratch:
    def __init__(self):
        self.time, self.total = 0.0, 0.0

    def rate(self):
        return self.time + 1

    def step(self, x):
        self.time = x
        self.total = 0.0
        for k in range(3):
            self.total += k
        return self.rate() + self.total


def entry(x):
    ENTRIES.setdefault(x, [0])[0] = x
    return x


CACHES = [
    memo,
    room,
    cached,
    Counts().remember,
    Scratch().step,
    read_elsewhere,
    read_within,
    by_default,
    passed_on,
    entry,
]


@pytest.mark.parametrize("func", [*CACHES, abs, np.sqrt, lambda x: x + TABLE[1]])
def test_caches_and_what_is_read_are_not(func, eager):
    for _ in range(3):
        for one in (MEMO, KNOWN, ENTRIES):
            one.clear()
        assert told(func) == []


def only_reads_count(x):
    return x if COUNT > -1 else COUNT


def test_a_number_that_others_change_is_not_told(eager):
    def items():
        global COUNT
        for k in range(400):
            COUNT += 1
            yield k

    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert parallel_map(only_reads_count, items(), workers=2) == list(range(400))


class Lazy:
    @property
    def __class__(self):
        raise RuntimeError("there is no object yet")


class Unsized(list):
    def __len__(self):
        raise RuntimeError("there is no length yet")


class Guarded:
    def __getattribute__(self, name):
        raise RuntimeError("there is nothing yet")

    def __call__(self, x):
        return x


def test_objects_that_cannot_be_looked_at_break_no_call():
    def names_it(x):
        return x if held else 0

    held: object
    for kind in (Lazy, Unsized, Guarded):
        held = kind()
        assert SideEffects(names_it).changed() is None
    assert SideEffects(Guarded()).changed() is None


def test_functions_of_tuples(eager):
    for _ in range(20):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parallel_map(to_global, zip(range(400)), starmap=True, workers=2)
        if caught:
            break
    assert "'FOUND' (list)" in str(caught[0].message)


def test_arrays_and_blocks(eager):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            parallel_apply(lambda row: CLOSURES["a"](row[0]) or FOUND.append(row[0]), np.ones((400, 2)), workers=2)
            if caught:
                break
    assert "'FOUND' (list)" in str(caught[0].message)
