"""Random classes: results and exceptions are of the caller's own classes, whose state nobody touches."""

from __future__ import annotations

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parwise import Pool, parallel_imap, parallel_map

from ..support.class_bodies import BASES, Script, contents, kinds, same, state_of
from ..support.functions import ISOLATED

#: Examples of the machine; `pytest --hypothesis-profile=long` draws 2,000.
EXAMPLES = max(12, hypothesis.settings().max_examples - 100)
NAMES = ("Alpha", "Beta", "Gamma")
numbers = itertools.count()


class Classes(RuleBasedStateMachine):
    """Classes are defined, and defined again; their instances are items, results and exceptions."""

    pool = None

    def __init__(self):
        super().__init__()
        self.script = Script(f"parwise_script_{next(numbers)}")
        self.items = []
        self.states = []

    def teardown(self):
        self.script.close()

    @initialize(kind=kinds, content=contents)
    def begin(self, kind, content):
        self.script.define("Alpha", kind, content)
        self.items.append(self.script.make("Alpha", 1))

    @rule(name=st.sampled_from(NAMES), kind=kinds, content=contents, k=st.integers(0, 9))
    def define(self, name, kind, content, k):
        self.script.define(name, kind, content)
        self.items.append(self.script.make(name, k))

    @rule(name=st.sampled_from(NAMES), base=st.sampled_from(NAMES), kind=st.sampled_from(["plain", "slots"]))
    def derive(self, name, base, kind):
        if base != name and self.script.made.get(base, ("",))[0] in BASES - {"number"}:
            self.script.define(name, kind, ["super", "class method"], base)
            self.items.append(self.script.make(name, 3))

    @precondition(lambda self: self.script.made)
    @rule(data=st.data(), k=st.integers(0, 9))
    def make(self, data, k):
        self.items.append(self.script.make(data.draw(st.sampled_from(sorted(self.script.made))), k))

    @precondition(lambda self: self.script.made)
    @rule(data=st.data(), value=st.integers(0, 99))
    def change(self, data, value):
        cls = self.script.names[data.draw(st.sampled_from(sorted(self.script.made)))]
        if hasattr(cls, "count"):
            cls.count = value
        if hasattr(cls, "registry"):
            cls.registry.append(value)

    @rule(function=st.sampled_from(["use", "give_type"]), way=st.integers(0, 4))
    def call(self, function, way):
        func, items = self.script.names[function], self.items
        want = [func(one) for one in items]
        self.states = [(cls, state_of(cls)) for cls in {id(c): c for c in self.known_classes()}.values()]
        if way == 0:
            got = parallel_map(func, items, **ISOLATED)
        elif way == 1:
            got = list(parallel_imap(func, items, **ISOLATED))
        elif way == 2:
            got = list(self.pool.map(func, items))
        elif way == 3:
            got = [self.pool.submit(func, one).result() for one in items]
        else:
            got = parallel_map(lambda k: func(items[k]), range(len(items)), **ISOLATED)
        assert len(got) == len(want)
        for mine, theirs in zip(got, want, strict=True):
            assert same(mine, theirs), (mine, theirs)

    @precondition(lambda self: any(isinstance(one, Exception) for one in self.items))
    @rule()
    def fail(self):
        error = next(one for one in self.items if isinstance(one, Exception))
        with pytest.raises(type(error)) as caught:
            parallel_map(self.script.names["fail"], [error, error], **ISOLATED)
        assert same(caught.value, error)

    def known_classes(self):
        return [*self.script.classes(), *map(type, self.items)]

    @invariant()
    def classes_keep_their_state(self):
        for cls, state in self.states:
            assert state_of(cls) == state, cls
        self.states = []


def test_random_classes(monkeypatch):
    with Pool(2) as own:
        own.apply(abs, (-1,))
        monkeypatch.setattr(Classes, "pool", own)
        settings = hypothesis.settings(max_examples=EXAMPLES, stateful_step_count=14, deadline=None)
        hypothesis.stateful.run_state_machine_as_test(Classes, settings=settings)
