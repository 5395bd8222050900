"""`out` that the function reads: it reads what was there before, however it gets at it."""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import xarray as xr

from parwise import parallel_apply
from parwise._core.effects.readable import readable_values

from ..support.oracle import assert_same, blocks

N, CHUNK = 12, 3
BOUNDS = [(lo, lo + CHUNK) for lo in range(0, N, CHUNK)]
INDICES = np.arange(N)

STATE = None
HELD = None


def before(state, index):
    """The values before those at `index`, all of which the loop reads as they were."""
    return np.asarray(state[index - 1]) + 1.0


def of_a_global(index):
    return before(STATE, index)


def of_a_global_that_is_named_by_another(index):
    return of_a_global(index)


def of_an_attribute(index):
    return before(HELD.state, index)


def of_a_module(index):
    import parwise_test_states

    return before(parwise_test_states.state, index)


def of_an_argument(index, given=None):
    return before(given["state"][0], index)


class Model:
    def __init__(self, state):
        self.state = state

    def step(self, index):
        return self._read(index)

    def _read(self, index):
        return before(self.state, index)

    __call__ = step


class Items:
    def __init__(self, state):
        self._state = state

    def __getitem__(self, index):
        return self._state[index]


@dataclass(slots=True)
class Slots:
    state: np.ndarray


class Properties:
    def __init__(self, state):
        self._hidden = state

    @property
    def state(self):
        return self._lazy

    @cached_property
    def _lazy(self):
        return self._hidden


def default(state):
    return lambda index, state=state: before(state, index)


def only_by_keyword(state):
    def f(index, *, state=state):
        return before(state, index)

    return f


def inner(state):
    return lambda index: (lambda index: before(state, index))(index)


def wrapped(state):
    return functools.wraps(of_a_global)(lambda index: before(state, index))


def registered(state):
    @functools.singledispatch
    def f(index):
        raise NotImplementedError

    @f.register
    def _(index: np.ndarray):
        return before(state, index)

    return f


def installed(state):
    def f(index):
        return before(state, index)

    f.__module__ = "numpy"
    return f


def boxed(state):
    box = np.empty(1, object)
    box[0] = state
    return box


class Named(dict):
    def __init__(self, state):
        self[0] = state


class List(list):
    def __init__(self, state):
        self.state = state


def in_a_container(container):
    return lambda index: before(container[0], index)


def held_by(thing):
    global HELD
    HELD = thing
    return of_an_attribute


WAYS = {
    "global": lambda state: of_a_global,
    "global of a function that it calls": lambda state: of_a_global_that_is_named_by_another,
    "attribute of an object": lambda state: held_by(Model(state)),
    "attribute in slots": lambda state: held_by(Slots(state)),
    "attribute of a class": lambda state: held_by(type("Settings", (), {"state": state, "__module__": __name__})),
    "property": lambda state: held_by(Properties(state)),
    "attribute of a module": lambda state: of_a_module,
    "partial": lambda state: functools.partial(before, state),
    "method": lambda state: Model(state).step,
    "object": Model,
    "items": lambda state: functools.partial(before, Items(state)),
    "argument": lambda state: functools.partial(of_an_argument, given={"state": [state]}),
    "default": default,
    "default of a keyword": only_by_keyword,
    "inner function": inner,
    "dict of a closure": lambda state: (lambda held: lambda index: before(held["state"], index))({"state": state}),
    "function of a closure": lambda state: (lambda f: lambda index: f(index))(lambda index: before(state, index)),
    "wrapper": wrapped,
    "registered function": registered,
    "function of an installed package": installed,
    "method of the array": lambda state: lambda index, take=state.take: take(index - 1) + 1.0,
    "object array": lambda state: in_a_container(boxed(state)),
    "deque": lambda state: in_a_container(deque([state])),
    "dict of a class of the user's": lambda state: in_a_container(Named(state)),
    "attribute of a list": lambda state: held_by(List(state)),
    "object of a library": lambda state: held_by(types.SimpleNamespace(state=xr.Variable("x", state))),
}


@pytest.mark.parametrize("options", [{"executor": "serial"}, {"executor": "threads", "workers": 2}, {}], ids=str)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_function_reads_what_was_there_before(way, options, monkeypatch):
    state = np.arange(N) * 10.0
    monkeypatch.setitem(globals(), "STATE", state)
    module = types.ModuleType("parwise_test_states")
    module.state = state
    monkeypatch.setitem(sys.modules, module.__name__, module)
    func = way(state)
    want = blocks(func, INDICES, BOUNDS)
    got = parallel_apply(func, INDICES, vectorized=True, chunk=CHUNK, out=state, verify=False, **options)
    assert got is state
    assert_same(state, want)


@dataclass
class Simulation:
    """Its own methods for comparing, showing, opening and closing name all that it has."""

    data: np.ndarray
    out: np.ndarray

    def __post_init__(self):
        self.out[:] = 0

    def __exit__(self, *error):
        self.out.flush()

    def __len__(self):
        return len(self.out)

    def step(self, index):
        return 2 * self.data[index]


def test_what_the_function_does_not_name_is_not_looked_at():
    """Results that are held take memory: a method may have its `out` beside it."""
    found = list(readable_values(Simulation(data := np.zeros(3), out := np.ones(N)).step, [INDICES]))
    assert not any(one is out for one in found)
    assert any(one is data for one in found)


def test_nothing_of_a_class_is_called():
    class Equal(type):
        """Has no hash, and answers with an error."""

        def __eq__(cls, other):
            raise RuntimeError

        def __getattribute__(cls, name):
            raise RuntimeError(name)

    class Strange(metaclass=Equal):
        __slots__ = ("__dict__", "state", "unset")
        __module__ = property(lambda self: 1 / 0)

        def __init__(self, state):
            self.state = state

        @property
        def __class__(self):
            raise RuntimeError

    strange = Strange(state := np.zeros(3))
    f = lambda index: strange.state[index]  # noqa: E731
    f.__module__ = 5
    assert any(one is state for one in readable_values(f, [strange, {strange: Strange}]))


def test_values_may_hold_themselves():
    endless = [1, None]
    endless[1] = {"again": endless}
    assert len(list(readable_values(functools.partial(of_an_argument, given=endless), [endless]))) < 1000


def test_long_chains():
    """Each object is looked into once: looked through again for each that follows, these would take a minute."""
    first = chain = Model(None)
    for _ in range(20_000):
        chain.state = chain = Model(None)
    assert len(list(readable_values(first.step, []))) > 20_000
