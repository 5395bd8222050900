"""Changes of shared objects that no call or assignment in a function tells: without the GIL they take processes."""

from __future__ import annotations

import collections
import functools
import sys
import types

import numpy as np
import pytest

from parwise._core.inputs.reading.shared_state import shared_change

OTHER = types.ModuleType("parwise_test_other_module")
exec(  # another module than this one
    """
class Model:
    def __init__(self): self.last = 0
    def fit(self, x): self.last = x; return self
    def predict(self): return self.last
    def ask(self, x): return x + len("ask")
    def __getitem__(self, x): self.last = x; return self.last
    @property
    def count(self): self.last += 1; return self.last

class Table:
    def __init__(self): self.rows = [1.0, 2.0]
    def look_up(self, x): return self.rows[0] * x

def fill(values, x): values[0] = x
def read(values, x): return values[0] * x
""",
    vars(OTHER),
)
sys.modules[OTHER.__name__] = OTHER


class Mine:
    def __init__(self):
        self.kept = 0

    def bump(self, x=0):
        self.kept += 1
        return self.kept

    @property
    def count(self):
        self.kept += 1
        return self.kept

    def __getitem__(self, x):
        self.kept = x
        return self.kept

    def __add__(self, x):
        self.kept = x
        return self.kept

    def __iter__(self):
        self.kept += 1
        yield self.kept

    def __repr__(self):
        self.kept += 1
        return "Mine"


class Plain:
    scale = 2.0

    def __add__(self, x):
        return self.scale * x

    @property
    def half(self):
        return self.scale / 2


MODEL, TABLE, MINE, PLAIN = OTHER.Model(), OTHER.Table(), Mine(), Plain()
ARRAY, FOUND, GROUPS = np.zeros(4), [], collections.defaultdict(list)


def in_a_generator(x):
    def generate():
        FOUND.append(x)
        yield x

    return list(generate())


def by_a_parameter(x):
    def add(found):
        found.append(x)

    add(FOUND)
    return x


def own_array_by_a_parameter(x):
    def fill(values):
        values[0] = x

    made = np.zeros(3)
    fill(made)
    return sum(value for value in made)


CHANGES = [
    in_a_generator,
    by_a_parameter,
    lambda x: MODEL.fit(x).predict(),
    lambda x: MODEL[x],
    lambda x: MODEL.count,
    lambda x: OTHER.fill(ARRAY, x),
    lambda x: OTHER.fill(values=ARRAY, x=x),
    lambda x: MINE.count,
    lambda x: MINE[x],
    lambda x: MINE + x,
    lambda x: list(MINE),
    lambda x: getattr(MINE, "bump")(),  # noqa: B009 - what is tested
    lambda x: list(map(MINE.bump, [x])),
    lambda x: list(map(FOUND.append, [x])),
    lambda x: sorted([x], key=FOUND.append),
    lambda x: functools.partial(FOUND.append, x)(),
    lambda x: functools.reduce(lambda found, one: found.append(one) or found, [x], FOUND),
    lambda x: np.add(*(x, 1, ARRAY)),
    lambda x: GROUPS[x],
    lambda x: globals().update(x=x),
    lambda x: exec("FOUND.append(x)"),
]
NO_CHANGES = [
    own_array_by_a_parameter,
    lambda x: TABLE.look_up(x),
    lambda x: OTHER.read(ARRAY, x),
    lambda x: PLAIN + x,
    lambda x: PLAIN.half * x,
    lambda x: sum(one * x for one in ARRAY),
    lambda x: sorted([x], key=lambda one: one * ARRAY[0]),
    lambda x: getattr(ARRAY, "sum")() * x,  # noqa: B009
]


@pytest.mark.parametrize("func", CHANGES)
def test_changes_that_are_found(func):
    assert shared_change(func, 1, (), {}) is not None


@pytest.mark.parametrize("func", NO_CHANGES)
def test_functions_that_only_read(func):
    assert shared_change(func, 1, (), {}) is None
